"""Building engines: what was predicted before beside what the builder then reported, and how long it took. No GPU is needed.

    python tests/bench/bench_build.py --work DIR [--only nano-fp16 seeded-int4 …]

Models: nano and the 0.3B-shaped checkpoint of seeded.py in fp16, int8, int8-weight and int4 (nano in fp8, too), three small vision models
in fp32.
Decoders are built for 1024 tokens and one conversation, vision models for 1 to 8 pictures; RTX 4090, the library's own effort.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import rounds

from ernie_cli import device, nano, route
from ernie_cli.engine import builder, library, log, predict, shapes, target
from ernie_cli.engine.options import Options
from ernie_cli.engine.predict import Prediction
from ernie_cli.engine.request import Request
from ernie_cli.model import Model
from ernie_cli.quant.options import Options as Quantising
from ernie_cli.quant.plan import is_decoder
from ernie_cli.quant.quantize import quantize

DEVICE = "rtx4090"
#: As little data as will do: sizes do not depend on scales.
QUICKLY = Quantising(measure=False, samples=2, observer="minmax", smooth="off")
NARROW = ("int8", "int8-weight", "int4")
SIDE = 32


@dataclass(frozen=True)
class Figures:
    """Of one build: quantity → (predicted, reported), in bytes; seconds of parsing and building."""

    pairs: dict[str, tuple[int, int]]
    seconds: float


def nano_as(precision: str, work: Path) -> Model:
    """The model inside the package as a graph with a static cache."""
    made = route.convert(
        nano.path(), to="onnx", out=work / "nano-fp16", options=route.Options(dtype="fp16", kv_cache="static", verify=False)
    )
    return made if precision == "fp16" else quantize(made, precision, work / f"nano-{precision}", QUICKLY)


def seeded_as(precision: str, work: Path) -> Model:
    """ERNIE-4.5-0.3B's shapes with random weights."""
    options = route.Options(dtype="fp16", kv_cache="static", verify=False)
    made = route.convert(rounds.checkpoint(work), to="onnx", out=work / "seeded-fp16", options=options)
    noise = replace(QUICKLY, random_calibration=True)  # it has no tokenizer
    return made if precision == "fp16" else quantize(made, precision, work / f"seeded-{precision}", noise)


def vision_as(name: str, work: Path) -> Model:
    """One of tests/quant/vision.py's nets as it is born: sizes do not depend on training."""
    import torch

    sys.path.insert(0, str(Path(__file__).parents[1] / "quant"))
    import vision

    folder = work / f"vision-{name}"
    if not folder.exists():
        torch.manual_seed(0)
        folder.mkdir(parents=True)
        vision._export(vision.NETS[name].build().eval(), torch.zeros(2, 3, SIDE, SIDE), folder / "model.onnx", fold=True)
    return Model.open(folder)


CASES: dict[str, Callable[[Path], Model]] = {
    **{f"nano-{precision}": lambda work, precision=precision: nano_as(precision, work) for precision in ("fp16", "fp8", *NARROW)},  # type: ignore[misc]
    **{f"seeded-{precision}": lambda work, precision=precision: seeded_as(precision, work) for precision in ("fp16", *NARROW)},  # type: ignore[misc]
    **{name: lambda work, name=name: vision_as(name, work) for name in ("resnet", "mobilenet", "vit")},  # type: ignore[misc]
}


def measure(model: Model, folder: Path) -> Figures:
    """Predict, build into `folder`, read what the builder says."""
    chosen = device.load(DEVICE)
    options = (
        Options(context=1024)
        if is_decoder(model)
        else Options(shapes=(f"pixel_values:1x3x{SIDE}x{SIDE},4x3x{SIDE}x{SIDE},8x3x{SIDE}x{SIDE}",))
    )
    lengths = shapes.shapes(model, options)
    foreseen = predict.predict(model, lengths)
    used, _ = library.choose("tensorrt-rtx")
    request = Request(
        str(model.main_file()), used.name, target.capabilities(chosen, used, options), fixed=lengths.fixed, profiles=lengths.profiles
    )
    folder.mkdir(parents=True, exist_ok=True)
    built = builder.build(request, folder)
    said = log.read(built.log)
    return Figures(pairs(foreseen, built, said), built.parse_seconds + built.build_seconds)


def pairs(foreseen: Prediction, built: builder.Built, said: log.Log) -> dict[str, tuple[int, int]]:
    """Quantity → (predicted, reported)."""
    activations = [*zip(foreseen.activation_bytes.values(), said.activation_bytes, strict=True), (0, 0)]
    return {
        "plan": (foreseen.plan_bytes, built.plan.stat().st_size),
        "weights": (foreseen.weight_bytes, said.weight_bytes),
        "activations": activations[0],
        "of single tokens": activations[1],
        "memory to build": (foreseen.host_peak_bytes, built.peak_host_bytes),
    }


def row(name: str, figures: Figures) -> str:
    """A line of the table: MB, predicted / reported, and by how much the prediction is off."""
    cells = [
        f"{predicted / 1e6:.4g} / {reported / 1e6:.4g} ({_off(predicted, reported)})" for predicted, reported in figures.pairs.values()
    ]
    return f"| {name} | {' | '.join(cell if cell != '0 / 0 (–)' else '–' for cell in cells)} | {figures.seconds:.0f} |"


def _off(predicted: int, reported: int) -> str:
    return f"{100 * (predicted / reported - 1):+.0f} %" if reported else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    told = parser.parse_args()
    print(json.dumps(rounds.machine()), file=sys.stderr)
    print("| | plan | weights | activations | of single tokens | memory to build | seconds |\n|---|---|---|---|---|---|---|", flush=True)
    for name in told.only:
        print(row(name, measure(CASES[name](told.work), told.work / "engines" / name)), flush=True)


if __name__ == "__main__":
    main()
