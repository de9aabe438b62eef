"""`ernie quantize`: a model in, the same model with narrow weights out, and what it cost."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from ernie_cli import console, options


class Method(str, Enum):
    rtn = "rtn"
    awq = "awq"
    gptq = "gptq"


class Mix(str, Enum):
    none = "none"
    auto = "auto"


class Layout(str, Enum):
    auto = "auto"
    nchw = "nchw"
    nhwc = "nhwc"


def _data(name: str, help: str) -> Any:
    return typer.Option(name, help=help, rich_help_panel="Calibration", show_default=False)


def _report(name: str, help: str) -> Any:
    return typer.Option(name, help=help, rich_help_panel="Report", show_default=False)


def quantize(
    model: Annotated[str, typer.Argument(help="A checkpoint, an ONNX model, or `ernie-4.5-nano`.", show_default=False)],
    to: Annotated[str, typer.Option("--to", help="int8, int8-weight, fp8, fp8-weight, int4, int8-kv or fp8-kv.", show_default=False)],
    out: options.Out = None,
    method: Annotated[Method, typer.Option("--method", help="How int4 weights are rounded; awq and gptq need --data.")] = Method.rtn,
    block: Annotated[int, typer.Option("--block", help="int4 weights that share a scale: 32, 64 or 128.")] = 32,
    mix: Annotated[Mix, typer.Option("--mix", help="auto: sensitive layers and the head at 8 bits.")] = Mix.none,
    smooth: Annotated[
        str | None, typer.Option("--smooth", help="SmoothQuant's strength: 0 to 1, or auto; `off`.", show_default="auto for decoders")
    ] = None,
    include: Annotated[
        list[str] | None, typer.Option("--include", help="Only layers whose name or type matches.", show_default=False)
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option("--exclude", help="Not these.", show_default=False)] = None,
    device: Annotated[str | None, typer.Option("--device", help="Refuse what this device cannot run.", show_default=False)] = None,
    data: Annotated[Path | None, _data("--data", "Lines (.jsonl, .txt), arrays (.npz) or a folder of images.")] = None,
    samples: Annotated[int, typer.Option("--samples", help="Most samples that are read.", rich_help_panel="Calibration")] = 128,
    observer: Annotated[
        str, typer.Option("--observer", help="minmax, percentile, percentile:99.9, mse or entropy.", rich_help_panel="Calibration")
    ] = "auto",
    scales: Annotated[Path | None, _data("--scales", "Take the scales from this file, as an earlier run wrote it.")] = None,
    mean: Annotated[str | None, _data("--mean", "Of images, as 0.485,0.456,0.406.")] = None,
    std: Annotated[str | None, _data("--std", "Of images.")] = None,
    layout: Annotated[Layout, typer.Option("--layout", help="Of images.", rich_help_panel="Calibration")] = Layout.auto,
    random_calibration: Annotated[bool, _data("--random-calibration", "Seeded noise in place of data; the record says so.")] = False,
    eval_data: Annotated[Path | None, _report("--eval-data", "Measure the loss on this, not on data held back.")] = None,
    max_drop: Annotated[str | None, _report("--max-drop", "Put layers back until no more is lost, as 1%.")] = None,
    metric: Annotated[str, _report("--metric", "What --max-drop counts: perplexity, top1, cosine …")] = "auto",
    no_measure: Annotated[bool, _report("--no-measure", "Leave quality and speed of the whole model unmeasured.")] = False,
    report: Annotated[Path | None, _report("--report", "Write the full record as JSON.")] = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> None:
    """Quantise a model, and say what was lost and what was gained.

    \b
    ernie quantize out/onnx --to int8 --data lines.jsonl -o out/int8
    ernie quantize out/hf --to int4 -o out/int4
    ernie quantize out/onnx --to int4 --method gptq --data lines.jsonl --max-drop 1% -o out/gptq
    ernie quantize resnet.onnx --to int8 --data photos/ --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
    """
    from ernie_cli import named, route_text
    from ernie_cli.quant import quantize as door
    from ernie_cli.quant import text
    from ernie_cli.quant.options import Options, numbers
    from ernie_cli.quant.plan import plan as planned

    source = named.resolve(model)
    chosen = Options(
        str(data) if data else None, str(eval_data) if eval_data else None, block, method.value, mix.value, smooth, observer,
        random_calibration, str(scales) if scales else None, tuple(include or ()), tuple(exclude or ()), max_drop, metric, device,
        not no_measure, samples, numbers("--mean", mean), numbers("--std", std), layout.value,
    )  # fmt: skip
    target = out or Path(f"{model if model == named.EMBEDDED else source.resolve().stem}-{to}")
    route_text.check_report(report)
    plan = planned(source, to=to, out=target, options=chosen)
    if dry_run:
        return console.result(text.plan_text(plan), data=plan.as_dict())
    made = door.run(plan, force=force)
    text.write_report(report, made)
    return text.show(target, made, up_to_date=plan.up_to_date and not force)
