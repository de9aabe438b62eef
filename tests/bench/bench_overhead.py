"""What `ernie convert` costs beside the bare library call: wall time, peak memory, and its checks apart.

    python tests/bench/bench_overhead.py [--rounds 3] [--work FOLDER] [--only CASE …]

Each contender runs in a process of its own, loading of libraries included, in turns. The bare call is what a user would write:
paddle2onnx.export, or torch.jit.load and torch.onnx.export, at the opset that ernie chose and with the same inputs and axes.
Exit code 1 where ernie less its checks takes more than 1.25 × the bare call.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rounds

HERE = Path(__file__).resolve().parent
MOST = 1.25

#: Case → the file that `prepare` makes, and the --input options that ernie is given.
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "resnet50, pdmodel → onnx": ("resnet50-paddle/model.json", ()),
    "resnet50, torchscript → onnx": ("resnet50-torch/model.pt", ("pixel_values:float32:batchx3x224x224",)),
    "ERNIE 4.5 0.3B, torchscript → onnx": ("decoder/model.pt", ("input_ids:int64:batchxlength",)),
}


# --- in processes of their own --------------------------------------------------------------------------------------------


def prepare(case: str, work: Path) -> None:
    """Make a case's model: seeded weights, real shapes, fp32."""
    sys.path.insert(0, str(HERE.parent / "zoo"))
    import originals
    from architecture import Architecture, image

    file = work / CASES[case][0]
    if file.exists():
        return
    if case.startswith("ERNIE"):
        _prepare_decoder(work, file)
    elif file.suffix == ".json":
        from paddle.vision import models

        one = Architecture("resnet50", "paddle", models.resnet50, (image(224),))
        originals.save(one, originals.build(one), file.parent)
    else:
        from torch_transformers import POOLED, Entry

        entry = Entry("resnet50", "ResNetModel", (image(224, name="pixel_values"),), POOLED, attention="eager")
        one = Architecture(entry.name, "torch", entry.build, entry.inputs)
        originals.save(one, originals.build(one), file.parent)


def _prepare_decoder(work: Path, file: Path) -> None:
    import torch
    from transformers import Ernie4_5ForCausalLM

    model = Ernie4_5ForCausalLM.from_pretrained(work / "checkpoint", dtype=torch.float32, attn_implementation="eager")

    class Decoder(torch.nn.Module):
        """Token ids → logits. The mask is given: without one transformers looks for packed rows with operators that the exporter lacks."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model.eval()

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), use_cache=False).logits

    file.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(Decoder(), (torch.arange(32).reshape(2, 16) + 100,), check_trace=False).save(str(file))


def bare(case: str, work: Path, opset: int) -> None:
    """The library call alone."""
    file, out = work / CASES[case][0], work / "bare.onnx"
    if file.suffix == ".json":
        import paddle2onnx

        paddle2onnx.export(str(file), str(file.with_suffix(".pdiparams")), str(out), opset_version=opset)
        return
    import torch

    warnings.simplefilter("ignore")
    module = torch.jit.load(str(file), map_location="cpu").eval()
    name, dtype, shape = CASES[case][1][0].split(":")
    axes = {at: axis for at, axis in enumerate(shape.split("x")) if not axis.isdigit()}
    lengths = [{"batch": 2, "length": 16}.get(axis) or int(axis) for axis in shape.split("x")]
    example = torch.full(lengths, 7, dtype=getattr(torch, dtype))
    options: dict[str, Any] = {"opset_version": opset, "input_names": [name], "dynamic_axes": {name: axes}}
    torch.onnx.export(module, (example,), str(out), dynamo=False, **options)


# --- the measurement --------------------------------------------------------------------------------------------------------


def ours(case: str, work: Path, *more: str) -> list[str]:
    """Our command line."""
    file, inputs = CASES[case]
    given = [word for each in inputs for word in ("--input", each)]
    return [
        sys.executable,
        "-m",
        "ernie_cli",
        "convert",
        str(work / file),
        "--to",
        "onnx",
        "-o",
        str(work / "ernie"),
        "--force",
        "-q",
        *given,
        *more,
    ]


def apart(sample: rounds.Sample, check_seconds: float = 0.0) -> rounds.Sample:
    """Wall seconds without the checks (parity, and whether open axes are open), the checks', peak memory in MB."""
    return {"seconds": sample["seconds"] - check_seconds, "check_seconds": check_seconds, "peak_mb": sample["peak_mb"]}


def measure(case: str, work: Path, times: int) -> tuple[str, float]:
    """The table of a case, and the ratio that counts."""
    part = [sys.executable, "-W", "ignore", str(Path(__file__).resolve()), "--work", str(work), "--part"]
    if case.startswith("ERNIE"):
        rounds.checkpoint(work)
    subprocess.run([*part, "prepare", case], check=True, stdout=sys.stderr)
    rounds.timed(ours(case, work))  # tells the opset, and warms the file cache for all
    opset = _opset(work / "ernie")

    def ernie(*more: str) -> rounds.Sample:
        sample = rounds.timed(ours(case, work, *more))
        checks = json.loads((work / "ernie" / "ernie.json").read_text())["checks"]
        return apart(sample, sum(check.get("seconds") or 0.0 for check in checks))

    contenders: dict[str, Callable[[], rounds.Sample]] = {
        "the bare call": lambda: apart(rounds.timed([*part, "bare", case, str(opset)])),
        "ernie --no-verify": lambda: ernie("--no-verify"),
        "ernie": ernie,
    }
    results = rounds.take_turns(contenders, times)
    ratio = results["ernie"]["seconds"] / results["the bare call"]["seconds"]
    size = sum(each.stat().st_size for each in (work / "ernie").iterdir()) / 1e6
    said = f"ernie less its checks / the bare call: {ratio:.2f} (must be <= {MOST}); opset {opset}, {size:.0f} MB"
    return f"## {case}\n\n{rounds.table(results)}\n\n{said}\n", ratio


def _opset(folder: Path) -> int:
    import onnx

    name = json.loads((folder / "ernie.json").read_text())["main"]
    model = onnx.load(str(folder / name), load_external_data=False)
    return next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--only", nargs="+", default=list(CASES), metavar="CASE", help=f"of: {', '.join(CASES)}")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        verb, case, *more = args.part
        prepare(case, args.work) if verb == "prepare" else bare(case, args.work, int(more[0]))
        return 0
    work = args.work or Path(tempfile.mkdtemp(prefix="overhead-"))
    ratios = []
    for case in CASES:
        if not any(word in case for word in args.only):
            continue
        text, ratio = measure(case, work.absolute(), args.rounds)
        print(text, flush=True)
        ratios.append(ratio)
    return int(any(ratio > MOST for ratio in ratios))


if __name__ == "__main__":
    sys.exit(main())
