"""`ernie convert`: one model folder in, another out, checked."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from ernie_cli import console, options
from ernie_cli.errors import QualityError, UsageError


class Format(str, Enum):
    hf = "hf"
    paddle = "paddle"
    onnx = "onnx"
    torchscript = "torchscript"
    pdmodel = "pdmodel"


class Dtype(str, Enum):
    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


class KvCache(str, Enum):
    auto = "auto"
    static = "static"
    growing = "growing"


def _parity(name: str, help: str) -> Any:
    return typer.Option(name, help=help, rich_help_panel="Parity check", show_default=False)


def convert(
    model: Annotated[str, typer.Argument(help="A model folder or file, or `ernie-4.5-nano`.", show_default=False)],
    to: Annotated[Format, typer.Option("--to", help="The format to make; `paddle` of a graph is pdmodel.", show_default=False)],
    out: options.Out = None,
    dtype: Annotated[Dtype, typer.Option("--dtype", help="Type of a graph made from a checkpoint.")] = Dtype.fp32,
    kv_cache: Annotated[KvCache, typer.Option("--kv-cache", help="How a decoder's graph keeps earlier tokens.")] = KvCache.auto,
    all_logits: Annotated[bool, typer.Option("--all-logits", help="Logits of every token, for scoring.")] = False,
    max_shard_gb: Annotated[float, typer.Option("--max-shard-gb", help="Split larger checkpoints.")] = 5.0,
    opset: Annotated[int | None, typer.Option(min=7, max=24, help="Opset of an ONNX result.", show_default="the edge's choice")] = None,
    no_simplify: Annotated[bool, typer.Option("--no-simplify", help="Leave constants unfolded and dead nodes in.")] = False,
    input: Annotated[
        list[str] | None,
        typer.Option("--input", help="An input that the model does not describe, as ids:int64:Nx128; repeatable.", show_default=False),
    ] = None,
    inputs: Annotated[Path | None, _parity("--inputs", "Check with these arrays (.npz) instead of seeded ones.")] = None,
    rtol: Annotated[list[str] | None, _parity("--rtol", "Allow this relative error, as 1e-3 or OUTPUT=1e-3.")] = None,
    atol: Annotated[list[str] | None, _parity("--atol", "Allow this absolute error, as 1e-3 or OUTPUT=1e-3.")] = None,
    report: Annotated[Path | None, _parity("--report", "Write the full record as JSON.")] = None,
    keep_failed: Annotated[bool, _parity("--keep-failed", "Keep a result that failed as OUT.failed.")] = False,
    no_verify: Annotated[bool, _parity("--no-verify", "Skip the check; the record says so.")] = False,
    check: Annotated[bool, typer.Option("--check", help="List how every operator would be mapped, do nothing.")] = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> None:
    """Convert a model to another format and prove that it is still the same model.

    \b
    ernie convert out/hf --to onnx -o out/onnx
    ernie convert out/paddle --to onnx --dtype fp16 --kv-cache static -o out/fp16
    ernie convert resnet.pdmodel --to torchscript -o out/resnet
    ernie convert net.pt --to onnx --input image:float32:Nx3x224x224 --check
    """
    from ernie_cli import coverage, named, route, route_text

    if not 1e-6 <= max_shard_gb <= 1e6:  # NaN fails, too
        raise UsageError(f"--max-shard-gb {max_shard_gb:g} makes no sense", "give gigabytes, as in --max-shard-gb 5")
    chosen = route.Options(
        dtype.value, kv_cache.value, all_logits, not no_verify, round(max_shard_gb * 1e9), tuple(input or ()),
        str(inputs) if inputs else None, tuple(rtol or ()), tuple(atol or ()), not no_simplify, opset,
    )  # fmt: skip
    source = named.resolve(model)
    target = out or Path(f"{model if model == named.EMBEDDED else source.resolve().stem}-{to.value}")
    route_text.check_report(report)
    plan = route.plan(source, to=to.value, out=target, options=chosen)
    if check:
        uses = route.coverage(plan)
        console.result(route_text.coverage_table(uses), data=route_text.coverage_data(uses))
        return coverage.refuse(uses, plan.edges[0])
    if dry_run:
        return console.result(route_text.plan_text(plan), data=plan.as_dict())
    try:
        made = route.run(plan, force=force, keep_failed=keep_failed)
    except QualityError as err:
        route_text.show_failure(err)
        route_text.write_report(report, plan, [], err)
        raise
    checks = made.manifest.get("checks", [])
    route_text.write_report(report, plan, checks)
    data = {"path": str(made.path), "up_to_date": plan.up_to_date and not force, **made.manifest}
    console.result(route_text.result_text(target, checks), data=data)
    return None
