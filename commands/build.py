"""`ernie build`: a model in, a TensorRT engine with its papers out."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from ernie_cli import console, options


class EngineLibrary(str, Enum):
    auto = "auto"
    tensorrt = "tensorrt"
    rtx = "tensorrt-rtx"


class Hardware(str, Enum):
    ampere_plus = "ampere-plus"
    same_capability = "same-capability"


def _builder(name: str, help: str) -> Any:
    return typer.Option(name, help=help, rich_help_panel="Builder", show_default=False)


def build(
    model: Annotated[str, typer.Argument(help="A checkpoint, an ONNX model, or `ernie-4.5-nano`.", show_default=False)],
    device: Annotated[
        str, typer.Option("--device", help="What runs the engine: a profile's name, or `auto`: this machine's GPU.")
    ] = "auto",
    out: options.Out = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision", help="fp32, fp16, bf16 or a scheme of `ernie quantize`.", show_default="the model's; fp16 of checkpoints"
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="For precisions that calibrate, as `ernie quantize` takes it.", show_default=False)
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option("--shape", help="name:min,opt,max as x:1x3x32x32,1x3x224x224,8x3x224x224; repeatable.", show_default=False),
    ] = None,
    context: Annotated[
        int | None, typer.Option("--context", min=1, help="Of decoders: most tokens of prompt and reply.", show_default="1024")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Of decoders: most conversations at a time.")] = 1,
    engine_library: Annotated[EngineLibrary, typer.Option("--engine-library", help="What compiles it.")] = EngineLibrary.auto,
    portable: Annotated[bool, _builder("--portable", "For every GPU that the library compiles for, not one.")] = False,
    workspace: Annotated[str | None, _builder("--workspace", "Most scratch memory on the GPU, as 2GB.")] = None,
    opt_level: Annotated[
        int | None,
        typer.Option(
            "--opt-level",
            min=0,
            max=5,
            help="0: quickest build, 5: quickest engine.",
            rich_help_panel="Builder",
            show_default="the library's",
        ),
    ] = None,
    timing_cache: Annotated[Path | None, _builder("--timing-cache", "Keep the timings of kernels in this file.")] = None,
    version_compatible: Annotated[bool, _builder("--version-compatible", "Later releases of the library may run it.")] = False,
    hardware_compatible: Annotated[Hardware | None, _builder("--hardware-compatible", "Other GPUs may run it.")] = None,
    refit: Annotated[bool, _builder("--refit", "Weights can be exchanged later.")] = False,
    strip_weights: Annotated[bool, _builder("--strip-weights", "Leave weights out; --refit-from puts them in.")] = False,
    weight_streaming: Annotated[bool, _builder("--weight-streaming", "Weights may stay in the host's memory.")] = False,
    refit_from: Annotated[Path | None, _builder("--refit-from", "MODEL is an engine: put in the weights of this ONNX model.")] = None,
    verify: Annotated[
        bool, _builder("--verify", "MODEL is an engine: run it on this machine's GPU beside the graph it was built from.")
    ] = False,
    no_verify: Annotated[bool, _builder("--no-verify", "Leave the new engine unchecked.")] = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> None:
    """Build a TensorRT engine, with or without a GPU in this machine.

    \b
    ernie build ernie-4.5-nano --device rtx4090 -o out/engine
    ernie build out/hf --precision int4 --device rtx4090 --context 4096 --batch 4 -o out/engine
    ernie build resnet.onnx --device t4 --shape x:1x3x224x224,8x3x224x224,8x3x224x224 -o out/resnet
    ernie build --verify out/engine
    """
    from ernie_cli import named
    from ernie_cli.engine import build as door
    from ernie_cli.engine import text
    from ernie_cli.engine.options import Options, size
    from ernie_cli.engine.plan import plan as planned

    source = named.resolve(model)
    if verify or refit_from is not None:
        return text.show_again(door.again(source, verify=verify, refit_from=refit_from, out=out))
    chosen = Options(
        precision=precision,
        data=str(data) if data else None,
        shapes=tuple(shape or ()),
        context=context,
        batch=batch,
        library=engine_library.value,
        portable=portable,
        verify=not no_verify,
        workspace=size(workspace),
        effort=opt_level,
        timing_cache=str(timing_cache) if timing_cache else None,
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible.value if hardware_compatible else "",
        refit=refit,
        strip_weights=strip_weights,
        weight_streaming=weight_streaming,
    )
    target = out or Path(f"{model if model == named.EMBEDDED else source.resolve().stem}-{device}")
    plan = planned(source, device=device, out=target, options=chosen)
    if dry_run:
        return console.result(text.plan_text(plan), data=plan.as_dict())
    made = door.run(plan, force=force)
    return text.show(target, made, up_to_date=plan.up_to_date and not force)
