"""`ernie convert`: one model folder in, another out, checked."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ernie_cli import console, options
from ernie_cli.errors import UsageError

if TYPE_CHECKING:
    from ernie_cli.route import Plan


class Format(str, Enum):
    hf = "hf"
    paddle = "paddle"
    onnx = "onnx"


class Dtype(str, Enum):
    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


class KvCache(str, Enum):
    auto = "auto"
    static = "static"
    growing = "growing"


def convert(
    model: Annotated[str, typer.Argument(help="A model folder, or `ernie-4.5-nano`.", show_default=False)],
    to: Annotated[Format, typer.Option("--to", help="The format to make.", show_default=False)],
    out: options.Out = None,
    dtype: Annotated[Dtype, typer.Option("--dtype", help="Type of weights and activations of a graph.")] = Dtype.fp32,
    kv_cache: Annotated[KvCache, typer.Option("--kv-cache", help="How a graph keeps earlier tokens.")] = KvCache.auto,
    all_logits: Annotated[bool, typer.Option("--all-logits", help="Logits of every token, for scoring.")] = False,
    max_shard_gb: Annotated[float, typer.Option("--max-shard-gb", help="Split larger checkpoints.")] = 5.0,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Skip the parity check; the record says so.")] = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> None:
    """Convert a model to another format and prove that it is still the same model.

    \b
    ernie convert out/hf --to onnx -o out/onnx
    ernie convert out/hf --to paddle -o out/paddle
    ernie convert out/paddle --to onnx --dtype fp16 --kv-cache static -o out/fp16
    """
    from ernie_cli import named, route

    if not 1e-6 <= max_shard_gb <= 1e6:  # NaN fails, too
        raise UsageError(f"--max-shard-gb {max_shard_gb:g} makes no sense", "give gigabytes, as in --max-shard-gb 5")
    chosen = route.Options(dtype.value, kv_cache.value, all_logits, not no_verify, round(max_shard_gb * 1e9))
    source = named.resolve(model)
    name = model if model == named.EMBEDDED else source.resolve().name
    target = out or Path(f"{name}-{to.value}")
    plan = route.plan(source, to=to.value, out=target, options=chosen)
    if dry_run:
        console.result(_plan_text(plan), data=plan.as_dict())
        return
    made = route.run(plan, force=force)
    data = {"path": str(made.path), "up_to_date": plan.up_to_date and not force, **made.manifest}
    console.result(_result_text(target, made.manifest.get("checks", [])), data=data)


def _plan_text(plan: Plan) -> str:
    facts = plan.as_dict()
    state = "up to date: nothing to do" if facts["up_to_date"] else f"writes about {console.size(facts['bytes_needed'])}"
    return f"{facts['source']} ({facts['format']}) → {' → '.join(facts['route'])} → {facts['out']}: {state}"


def _result_text(path: Path, checks: list[dict[str, object]]) -> str:
    lines = [str(path)]
    for check in checks:
        verdict = {True: "passed", False: "FAILED", None: "not verified"}[check.get("passed")]  # type: ignore[index]
        figures = "; ".join(
            f"{phase}: max rel {values['max_rel']:.1e}, top-1 {values['top1']:.0%}"
            for phase, values in check.items()
            if isinstance(values, dict) and "max_rel" in values and "top1" in values and phase != "limits"
        )
        lines.append(f"  {check['name']}: {verdict}{f' ({figures})' if figures else ''}")
    return "\n".join(lines)
