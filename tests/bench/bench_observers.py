"""Our observers beside onnxruntime's calibrators, on the same arrays: what the int8 codes lose, and what finding the range takes.

    python tests/bench/bench_observers.py [--seed 0] [--model FOLDER] [--slow]

Arrays: shapes of activations by distribution, 32 batches of 4096 values each; with --model, what flows into that decoder's layers
on the embedded texts. The loss is the mean squared error of round(x / scale) · scale, saturating at ±127, over the mean square of x,
in dB: less is better. onnxruntime's numbers of bins and percentiles are its own defaults, and with --slow 2048 bins for its
entropy, as TensorRT's authors describe it. It is symmetric here, as TensorRT wants it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ernie_cli.model import Model
from ernie_cli.quant.calibrate import collect, data, observers
from ernie_cli.quant.options import Options

BATCHES, VALUES = 32, 4096
Arrays = list[np.ndarray]


def distributions(seed: int) -> dict[str, Arrays]:
    """What activations look like: after norms, after gates, after ReLU, with channels or single values far out."""
    rng = np.random.default_rng(seed)

    def batches(draw: Callable[[], np.ndarray]) -> Arrays:
        return [draw().astype(np.float32) for _ in range(BATCHES)]

    channels = np.where(np.arange(VALUES) % 512 == 0, 60.0, 1.0)
    return {
        "normal": batches(lambda: rng.normal(size=VALUES)),
        "laplace": batches(lambda: rng.laplace(size=VALUES)),
        "student t, 3": batches(lambda: rng.standard_t(3, size=VALUES)),
        "relu": batches(lambda: np.maximum(rng.normal(size=VALUES), 0)),
        "relu, 95 % zero": batches(lambda: np.maximum(rng.normal(size=VALUES) - 1.645, 0)),
        "relu6": batches(lambda: np.clip(rng.normal(2, 4, size=VALUES), 0, 6)),
        "uniform": batches(lambda: rng.uniform(-1, 1, size=VALUES)),
        "gated (product)": batches(lambda: rng.normal(size=VALUES) * rng.laplace(size=VALUES)),
        "8 channels × 60": batches(lambda: rng.normal(size=VALUES) * channels),
        # First, for onnxruntime keeps the width of its first bins: coming last, it makes them many, and entropy takes hours.
        "1 value × 1000": [np.array([1000.0], np.float32), *batches(lambda: rng.normal(size=VALUES))],
    }


class Kept:
    """A statistic that keeps everything."""

    nbytes = 0

    def __init__(self) -> None:
        self.arrays: Arrays = []

    def add(self, value: np.ndarray) -> None:
        self.arrays.append(np.asarray(value, np.float32).reshape(-1))


def activations(folder: Path) -> dict[str, Arrays]:
    """What flows into a decoder's matrix products."""
    import onnx_ir as ir

    model = Model.open(folder)
    nodes = [node for node in ir.load(model.main_file()).graph if node.op_type in ("MatMul", "Gemm")]
    names = list(dict.fromkeys(str(node.inputs[0].name) for node in nodes if node.inputs[0] is not None))
    kept = {name: Kept() for name in names}
    collect.collect(model, kept, data.open_data(None, model, Options(samples=BATCHES)), max_bytes=1 << 40)
    return {name: found.arrays for name, found in kept.items()}


def ours(name: str) -> Callable[[Arrays], float]:
    def find(arrays: Arrays) -> float:
        watching = observers.observer(name)
        for array in arrays:
            watching.add(array)
        return watching.threshold("int8")

    return find


def theirs(method: str, bins: int, percentile: float = 99.999) -> Callable[[Arrays], float]:
    """onnxruntime's HistogramCollector, as its EntropyCalibrater and PercentileCalibrater use it, values in as they come."""

    def find(arrays: Arrays) -> float:
        from onnxruntime.quantization.calibrate import HistogramCollector

        with contextlib.redirect_stdout(io.StringIO()):
            collector = HistogramCollector(method, True, bins, 128, percentile, "same")
            for array in arrays:
                collector.collect({"x": array})
            low, high = collector.compute_collection_result()["x"][:2]
        return float(max(abs(low), abs(high)))

    return find


def largest(arrays: Arrays) -> float:
    """onnxruntime's MinMaxCalibrater, which lets ReduceMin and ReduceMax nodes find the same."""
    return float(max(np.abs(array).max() for array in arrays))


METHODS: dict[str, Callable[[Arrays], float]] = {
    "ours minmax": ours("minmax"),
    "ours percentile": ours("percentile"),
    "ours entropy": ours("entropy"),
    "ours mse": ours("mse"),
    "ort minmax": largest,
    "ort percentile": theirs("percentile", 2048),
    "ort entropy 128": theirs("entropy", 128),
}
SLOW = {"ort entropy 2048": theirs("entropy", 2048)}


def lost_db(arrays: Arrays, threshold: float) -> float:
    values = np.concatenate(arrays).astype(np.float64)
    scale = threshold / 127
    error = np.clip(np.rint(values / scale), -127, 127) * scale - values
    return 10 * math.log10(float(np.square(error).mean() / np.square(values).mean()))


def line(cells: Sequence[str], width: int) -> str:
    return cells[0].ljust(width) + "".join(cell.rjust(18) for cell in cells[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, help="an ONNX folder of ernie-4.5-nano")
    parser.add_argument("--slow", action="store_true", help="onnxruntime's entropy with 2048 bins, too: minutes")
    given = parser.parse_args()
    methods = METHODS | (SLOW if given.slow else {})
    found = distributions(given.seed) | (activations(given.model) if given.model else {})
    width = max(map(len, found)) + 2
    print(line(["int8 loss in dB", *methods], width))
    lost: dict[str, list[float]] = {name: [] for name in methods}
    seconds = dict.fromkeys(methods, 0.0)
    for name, arrays in found.items():
        for method, find in methods.items():
            start = time.perf_counter()
            threshold = find(arrays)
            seconds[method] += time.perf_counter() - start
            lost[method].append(lost_db(arrays, threshold))
        print(line([name, *(f"{lost[method][-1]:.2f}" for method in methods)], width))
    print(line(["mean", *(f"{np.mean(values):.2f}" for values in lost.values())], width))
    print(line(["seconds in all", *(f"{value:.2f}" for value in seconds.values())], width))


if __name__ == "__main__":
    main()
