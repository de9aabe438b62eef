"""Finds the edges in converters/, the shortest route, checks all that is cheap, then runs it. Edges do the converting."""

from __future__ import annotations

import importlib
import pkgutil
import shutil
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from . import console, host
from .checkpoint.carry import PAPERS_BYTES, carried_bytes
from .coverage import OpUse
from .errors import QualityError, ResourceError, UnsupportedError, UsageError
from .model import Model, check_out, fingerprint, is_up_to_date, work_key, write_manifest
from .need import need
from .staging import staged

FORMATS = ("hf", "paddle", "onnx", "pdmodel", "torchscript")
#: Formats that hold a program with its weights; the others are checkpoints, which need an architecture to run.
GRAPHS = ("onnx", "pdmodel", "torchscript")


@dataclass(frozen=True)
class Options:
    """What the edges of a route may be told. Each edge takes what concerns it.

    dtype: fp32, fp16 or bf16 for graphs. kv_cache: static, growing or auto, see graph/cache.py. all_logits: logits of every token.
    verify: end in a parity check. max_shard_bytes: larger checkpoints are split.
    input_specs: "name:dtype:2x3xN" of graph inputs, where the source does not tell. inputs_file: an .npz to check with.
    rtol, atol: "1e-3", or "output=1e-3" for one output. simplify: fold constants and drop dead nodes. opset: of ONNX results.
    """

    dtype: str = "fp32"
    kv_cache: str = "auto"
    all_logits: bool = False
    verify: bool = True
    max_shard_bytes: int = 5_000_000_000
    input_specs: tuple[str, ...] = ()
    inputs_file: str | None = None
    rtol: tuple[str, ...] = ()
    atol: tuple[str, ...] = ()
    simplify: bool = True
    opset: int | None = None


@dataclass(frozen=True)
class Plan:
    """A route that passed every cheap check: `run` does the work."""

    source: Model
    to: str
    out: Path
    edges: tuple[str, ...]
    options: Options
    key: str
    bytes_needed: int
    up_to_date: bool

    def as_dict(self) -> dict[str, Any]:
        """The plan as --dry-run --json prints it."""
        return {
            "source": str(self.source.path),
            "format": self.source.format,
            "to": self.to,
            "out": str(self.out),
            "route": list(self.edges),
            "options": asdict(self.options),
            "bytes_needed": self.bytes_needed,
            "up_to_date": self.up_to_date,
        }


@cache
def edges() -> Mapping[str, tuple[str, str]]:
    """Every edge on disk: module name → (source, target)."""
    package = importlib.import_module("ernie_cli.converters")
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__) if "_to_" in module.name)
    return {name: (name.split("_to_")[0], name.split("_to_")[1]) for name in names}


def find(source: str, target: str) -> tuple[str, ...]:
    """The shortest chain of edges. Raises UnsupportedError (exit 4) where there is none."""
    queue, seen = deque([(source, ())]), {source}
    while queue:
        at, path = queue.popleft()
        for name, (begin, end) in edges().items():
            if begin == at and end == target:
                return (*path, name)
            if begin == at and end not in seen:
                seen.add(end)
                queue.append((end, (*path, name)))  # type: ignore[arg-type]
    known = ", ".join(f"{begin} → {end}" for begin, end in edges().values())
    raise UnsupportedError(f"no route from {source} to {target}", f"the edges are: {known}")


def plan(model: str | Path, *, to: str, out: Path, options: Options | None = None) -> Plan:
    """Check everything cheap: the source, the route, what each edge needs, the output path and the disk.

    Raises UsageError, InputError, UnsupportedError, MissingError or ResourceError before any work was done.
    """
    options = options or Options()
    source = Model.open(model)
    if to == "paddle" and source.format in GRAPHS:
        to = "pdmodel"  # the checkpoint layout for a checkpoint, the inference program for a graph
    if source.format == to:
        raise UsageError(f"{source.path} is {to} already", f"--to {' or --to '.join(f for f in FORMATS if f != to)}")
    out = out.absolute()
    check_out(source, out)
    chain = find(source.format, to)
    for module in map(_load, chain):
        for name in (*module.NEEDS, *(getattr(module, "CHECK_NEEDS", ()) if options.verify else ())):
            need(name)
    arrays = fingerprint(Path(options.inputs_file)) if options.inputs_file and Path(options.inputs_file).is_file() else ""
    key = work_key(fingerprint(source.path), {"to": to, **asdict(options), "arrays": arrays})
    result = Plan(source, to, out, chain, options, key, _bytes_needed(chain, source, options), is_up_to_date(out, key))
    if not result.up_to_date:
        _check_disk(result)
    return result


def coverage(plan: Plan) -> list[OpUse]:
    """How the route's first edge maps every operator of the source. Later edges' sources do not exist yet.

    Raises UnsupportedError where the edge works on no operators (checkpoints).
    """
    module = _load(plan.edges[0])
    if not hasattr(module, "coverage"):
        raise UnsupportedError(f"{plan.source.path}: {plan.source.format} has no operators to check", "leave --check out; --dry-run plans")
    uses: list[OpUse] = module.coverage(plan.source, plan.options)
    return uses


def run(plan: Plan, *, force: bool = False, keep_failed: bool = False) -> Model:
    """Do the work of a plan, or nothing where it is done already. Returns the model in `plan.out`.

    keep_failed: a result that is not the same model is kept as `<out>.failed`. Raises QualityError (exit 6) for such.
    """
    if plan.up_to_date and not force:
        console.info(f"{plan.out} is up to date")
        return Model.open(plan.out)
    made_from = {"path": str(plan.source.path.absolute()), "format": plan.source.format, "fingerprint": fingerprint(plan.source.path)}
    model, hop = plan.source, None
    try:
        for number, name in enumerate(plan.edges, 1):
            last = number == len(plan.edges)
            target = plan.out if last else plan.out.with_name(f"{plan.out.name}.hop{number}")
            with staged(target) as folder:
                try:
                    made = _checked(name, model, _load(name).convert(model, folder, plan.options), plan, last)
                except QualityError:
                    if keep_failed:
                        _keep(folder, plan.out)
                    raise
                _sign(made, made_from, plan, name, plan.key if last else "")
            model = Model.open(target)
            if hop is not None:  # it is not read again
                shutil.rmtree(hop, ignore_errors=True)
            hop = target if not last else None
    finally:
        if hop is not None:
            shutil.rmtree(hop, ignore_errors=True)
    return model


def convert(model: str | Path, *, to: str, out: Path, options: Options | None = None, force: bool = False) -> Model:
    """`ernie convert MODEL --to FORMAT -o OUT` as a call: plan and run. Raises what they raise."""
    return run(plan(model, to=to, out=out, options=options), force=force)


def _checked(edge: str, source: Model, made: Model, plan: Plan, last: bool) -> Model:
    """Compare what a graph edge made with its source; at the end of a longer route, also with what the route began with.

    Edges from checkpoints check themselves: they know the architecture. The checks of earlier hops stay in the record.
    """
    earlier = list(source.manifest.get("checks", [])) if source.path != plan.source.path else []
    known = {key: value for key, value in made.manifest.items() if key not in ("ernie", "format")}
    checks = [*earlier, *known.pop("checks", []), *(_compared(edge, source, made, plan, last) if source.format in GRAPHS else [])]
    return write_manifest(made.path, format=made.format, **{**known, "checks": checks})


def _compared(edge: str, source: Model, made: Model, plan: Plan, last: bool) -> list[dict[str, Any]]:
    from .parity import graphs

    name = edge.replace("_to_", " → ")
    if not plan.options.verify:
        console.warn(f"{name}: not verified: --no-verify")
        return [{"name": "parity", "edge": name, "passed": None, "why": "--no-verify"}]
    checks = [graphs.check(source, made, plan.options, name=name)]
    if last and plan.source.path != source.path and plan.source.format in GRAPHS:
        checks.append(graphs.check(plan.source, made, plan.options, name=f"{plan.source.format} → {plan.to}, end to end"))
    return checks


def _keep(folder: Path, out: Path) -> None:
    """Move a result that failed its check to where it can be looked at."""
    kept = out.with_name(f"{out.name}.failed")
    shutil.rmtree(kept, ignore_errors=True)
    folder.rename(kept)
    console.info(f"the suspect is kept in {kept}")


def _load(name: str) -> ModuleType:
    return importlib.import_module(f"ernie_cli.converters.{name}")


def _bytes_needed(chain: Sequence[str], source: Model, options: Options) -> int:
    """Most that lies on disk at once: an edge's result, what it keeps beside it while it works, and the hop that it reads.

    Later edges' sources do not exist yet: their results are taken to be as large as the first one.
    """
    copies = [min(at, 1) + 1 + int(getattr(_load(name), "SCRATCH_COPIES", 0)) for at, name in enumerate(chain)]
    weights, beside = int(_load(chain[0]).output_bytes(source, options)), min(len(chain), 2) * carried_bytes(source.path)
    return max(copies) * weights + beside + PAPERS_BYTES


def _check_disk(plan: Plan) -> None:
    free = host.disk_free(plan.out)
    if plan.bytes_needed > free:
        what = f"{plan.out}: {console.size(plan.bytes_needed)} are needed, {console.size(free)} are free"
        raise ResourceError(what, "free some space, or choose another disk with -o")


def _sign(made: Model, made_from: Mapping[str, Any], plan: Plan, edge: str, key: str) -> None:
    """Complete the manifest an edge wrote with what only the route knows."""
    known = dict(made.manifest)
    made_by = {**known.pop("made_by", {}), "command": "convert", "edge": edge, "options": asdict(plan.options)}
    for name in ("ernie", "made_from", "key"):
        known.pop(name, None)
    write_manifest(made.path, made_from=made_from, made_by=made_by, key=key, **known)
