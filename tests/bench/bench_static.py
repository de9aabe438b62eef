"""int8 of the embedded decoder against onnxruntime.quantization.quantize_static with each of its observers, on equal data.

    python tests/bench/bench_static.py [--work DIR]

Both calibrate on the embedded calibration texts and are measured by `ernie eval` on the held-out lines. The peer: weights per
channel, signed symmetric activations, inputs of MatMul and Gemm (its results are worse where outputs are quantised, too), QDQ format.
Needs an onnx that knows opset 24 (1.21 or newer): without shapes the peer leaves activations in float.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnxruntime import quantization

from ernie_cli.model import Model
from ernie_cli.quant.calibrate.data import open_data
from ernie_cli.quant.calibrate.graph import complete
from ernie_cli.quant.options import Options
from ernie_cli.runtime.onnxruntime import create_session

METHODS = ("MinMax", "Entropy", "Percentile")
SAMPLES, LENGTH = 128, 32


class Reader(quantization.CalibrationDataReader):
    """The texts as feeds of the decoder's graph, with an empty cache: in rows of one length, other than which two observers cannot take."""

    def __init__(self, model: Model) -> None:
        session, _ = create_session(model.main_file())
        data = open_data(None, model, Options(samples=SAMPLES))
        tokens = np.concatenate([feeds["input_ids"][0] for feeds in data])
        rows = tokens[: len(tokens) // LENGTH * LENGTH].reshape(-1, 1, LENGTH)
        self.feeds: Iterator[dict[str, np.ndarray]] = iter([complete(session, {"input_ids": row}) for row in rows])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.feeds, None)


def peer(model: Model, method: str, out: Path) -> None:
    """quantize_static with one observer, into a folder that `ernie eval` opens."""
    shutil.copytree(model.folder, out, dirs_exist_ok=True)
    (out / "ernie.json").unlink()
    quantization.quantize_static(
        str(model.main_file()),
        str(out / "model.onnx"),
        Reader(model),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        activation_type=quantization.QuantType.QInt8,
        weight_type=quantization.QuantType.QInt8,
        calibrate_method=quantization.CalibrationMethod[method],
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]},
    )


def measured(model: Path, against: Path) -> str:
    """A line of the table."""
    command = [sys.executable, "-m", "ernie_cli", "eval", str(model), "--against", str(against), "--json", "-q"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    full, answer = found["full"], found["answer"]
    return f"{full['ratio']:.4f} | {answer['ratio']:.4f} | {full['kl']:.1e} | {full['top1']:.1%} | {found['exact_match']:.4f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path)
    if onnx.defs.onnx_opset_version() < 24:
        raise SystemExit(f"onnx {onnx.__version__} does not know opset 24: the peer would leave activations in float and look better")
    work = parser.parse_args().work or Path(tempfile.mkdtemp(prefix="static-"))
    source = work / "onnx"
    ernie = [sys.executable, "-m", "ernie_cli"]
    subprocess.run([*ernie, "convert", "ernie-4.5-nano", "--to", "onnx", "-o", str(source), "-q"], check=True, stdout=sys.stderr)
    ours = [*ernie, "quantize", str(source), "--to", "int8", "-o", str(work / "ernie"), "--no-measure", "-q", "--force"]
    subprocess.run(ours, check=True, stdout=sys.stderr)
    print("| | perplexity, all tokens | … of answers | KL | top-1 | exact match |\n|---|---|---|---|---|---|")
    print("| ernie |", measured(work / "ernie", source), flush=True)
    for method in METHODS:
        peer(Model.open(source), method, work / method)
        print(f"| quantize_static, {method} |", measured(work / method, source), flush=True)


if __name__ == "__main__":
    main()
