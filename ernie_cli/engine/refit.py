"""New weights for an engine that was built with --refit or --strip-weights: checked, done in a process of its own, with papers again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from .. import nvml
from ..digest import sha256_of
from ..errors import MissingError, UnsupportedError
from ..model import Model, fingerprint, write_manifest
from ..staging import MANIFEST, staged
from . import admit, library
from .builder import answer
from .command import rebuild
from .papers import engine_facts
from .request import Request

#: Flags of the builder with which an engine takes weights later.
_TAKES = {"REFIT", "REFIT_IDENTICAL", "REFIT_INDIVIDUAL", "STRIP_PLAN"}


def refit(engine: Model, graph: Model, out: Path) -> Model:
    """The engine in `out`, with the weights of `graph`: the ONNX model it was built from, or one of the same nodes and shapes.

    Raises UnsupportedError (4) where it takes none or these do not fit, MissingError (5) without a GPU or its library, InputError (3)
    for a damaged plan, QualityError (6) where the engine then is not the same model as `graph`.
    """
    facts = engine_facts(engine)
    if not _TAKES & set(facts["flags"]):
        raise UnsupportedError(f"{engine.path}: its weights are fixed: it was built without --refit", f"{rebuild(engine)} --refit")
    if graph.format != "onnx":
        raise UnsupportedError(f"{graph.path} is {graph.format}: weights come from an ONNX model", f"ernie convert {graph.path} --to onnx")
    _admitted(engine, facts)
    request = Request(str(graph.main_file()), facts["library"]["name"], fixed=facts["fixed"])
    with staged(out) as folder:
        shutil.copytree(engine.folder, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
        answer("refit", request, folder)
        made = _sign(engine, graph, folder)
        _verified(made, graph)
    return Model.open(out)


def _admitted(engine: Model, facts: dict[str, Any]) -> None:
    """Check that the plan may be opened here. Raises what admit does, MissingError without the library."""
    driver = nvml.read()
    found = library.find(facts["library"]["name"], gpu=bool(driver.gpus)) if facts["library"]["name"] in library.LIBRARIES else None
    if not driver.gpus:
        raise MissingError(f"weights go into an engine on a GPU: {driver.problem}", "do it on the device, before the first run")
    if found is None:
        extra = "rtx" if facts["library"]["name"] == "tensorrt-rtx" else "gpu"
        raise MissingError(
            f"{engine.path} was built by {facts['library']['name']}, which is not installed", f"pip install 'ernie-cli[{extra}]'"
        )
    admit.admit(engine, found.version, driver.gpus[0].compute_capability, admit.this_system(), library=found.name)


def _sign(engine: Model, graph: Model, folder: Path) -> Model:
    """The engine's papers, with the new plan's digest and where its weights come from. What was checked was another plan."""
    plan = folder / "model.plan"
    known = {key: value for key, value in engine.manifest.items() if key != "ernie"}
    files = {**known.get("files", {}), plan.name: {"size": plan.stat().st_size, "sha256": sha256_of(plan)}}
    weights = {"path": str(graph.path.absolute()), "format": graph.format, "fingerprint": fingerprint(graph.path)}
    made_by = {key: value for key, value in known.get("made_by", {}).items() if key not in ("tool", "time")}
    made_by["refit"] = str(engine.path.absolute())
    record = {**known.get("engine", {}), "weights": weights}
    return write_manifest(folder, **{**known, "files": files, "made_by": made_by, "checks": [], "key": "", "engine": record})


def _verified(made: Model, graph: Model) -> None:
    """Run it beside the graph, and write down how that went."""
    from . import verify

    why_not = verify.why_not(made)
    check = {"name": "parity", "passed": None, "why": why_not} if why_not else verify.check(made, graph)
    known = {key: value for key, value in made.manifest.items() if key != "ernie"}
    write_manifest(made.folder, **{**known, "checks": [check]})
