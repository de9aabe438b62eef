"""int8 of vision models against fp32 and against onnxruntime.quantization.quantize_static, on equal data: speed, and what is lost.

    python tests/bench/bench_vision.py --work DIR [--rounds 7] [--threads N] [--models resnet50 resnet mobilenet vit]

The peer gets every observer it has, weights per channel, unsigned activations with a zero point, which TensorRT does not take; its best
one counts. Ours is the one file that ONNX Runtime and TensorRT take, opened once by plain ONNX Runtime ("portable") and once as `ernie`
opens it ("ernie"). Losses are on pictures that nobody calibrated on.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import rounds

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "quant"))
import vision

from ernie_cli.model import Model
from ernie_cli.quant import activations_unsigned
from ernie_cli.quant.options import Options
from ernie_cli.quant.quantize import quantize

#: Pictures to calibrate on and to measure on: (small models, full size). The peer keeps every activation of the former in memory.
CALIBRATION, HELD_BACK = (64, 8), (256, 32)
OBSERVERS = ("MinMax", "Entropy", "Percentile")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as ONNX Runtime wants")
    parser.add_argument("--models", nargs="*", default=["resnet50", "resnet", "mobilenet", "vit"], choices=list(vision.NETS))
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    found = {name: measure(name, given.work / name, given.rounds, given.threads) for name in given.models}
    print(json.dumps(found, indent=2))


def measure(name: str, work: Path, turns: int, threads: int) -> dict[str, Any]:
    """Everything about one model."""
    side = vision.NETS[name].side
    large = side > 100
    work.mkdir(parents=True, exist_ok=True)
    model = Model.open(work / "fp32") if (work / "fp32" / "model.onnx").exists() else vision.make(name, work / "fp32")
    pictures = vision.images(CALIBRATION[large], 11, side)
    np.savez(work / "calibration.npz", pixel_values=pictures)
    made = quantize(model, "int8", work / "int8", Options(data=str(work / "calibration.npz"), measure=False), force=True)
    held = vision.images(HELD_BACK[large], 12, side)
    wanted = logits(model.main_file(), held)
    peers = {f"peer {observer}": path for observer, path in peer(model, work, pictures)}
    rewritten = activations_unsigned.rewritten(made.main_file())
    assert rewritten is not None
    ours: dict[str, Any] = {"portable": made.main_file(), "ernie": ir.to_proto(rewritten).SerializeToString()}
    losses = {label: loss(wanted, logits(source, held)) for label, source in {**ours, **peers}.items()}
    best = max(peers, key=lambda label: losses[label]["snr_db"])
    sources = {"fp32": model.main_file(), **ours, best: peers[best]}
    contenders = {label: runner(source, held[:1], threads) for label, source in sources.items()}
    speed = rounds.take_turns(contenders, turns)
    return {
        "loss": losses,
        "best peer": best,
        "speed": speed,
        "times fp32": {label: round(speed["fp32"]["ms"] / each["ms"], 2) for label, each in speed.items()},
        "megabytes": {"fp32": size(model), "int8": size(made)},
    }


def peer(model: Model, work: Path, pictures: np.ndarray) -> Iterator[tuple[str, Path]]:
    """onnxruntime.quantization's files, by observer. One that fails is said and left out."""
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = work / "prepared.onnx"
    quant_pre_process(str(model.main_file()), str(prepared))
    for observer in OBSERVERS:
        out = work / f"peer-{observer}.onnx"
        options = {"per_channel": True, "activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        try:
            with contextlib.redirect_stdout(sys.stderr):
                quantize_static(str(prepared), str(out), Reader(pictures), calibrate_method=getattr(CalibrationMethod, observer), **options)
        except Exception as err:  # noqa: BLE001 — its calibrators raise whatever numpy raises
            print(f"{observer} failed: {err}", file=sys.stderr)
            continue
        yield observer, out


class Reader:
    """Pictures as onnxruntime.quantization reads them."""

    def __init__(self, pictures: np.ndarray) -> None:
        self.batches = iter(np.split(pictures, range(4, len(pictures), 4)))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {vision.INPUT: batch}


def opened(source: Path | bytes, threads: int = 0) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, threads
    return onnxruntime.InferenceSession(source if isinstance(source, bytes) else str(source), options)


def logits(source: Path | bytes, pictures: np.ndarray) -> np.ndarray:
    session = opened(source)
    return np.concatenate([session.run(None, {vision.INPUT: batch})[0] for batch in np.split(pictures, range(8, len(pictures), 8))])


def loss(wanted: np.ndarray, got: np.ndarray) -> dict[str, float]:
    noise = 10 * np.log10(np.square(wanted).sum() / np.square(wanted - got).sum())
    cosine = (wanted * got).sum(1) / np.linalg.norm(wanted, axis=1) / np.linalg.norm(got, axis=1)
    figures = {"snr_db": noise, "cosine": cosine.mean(), "top1": (wanted.argmax(1) == got.argmax(1)).mean()}
    return {name: round(float(value), 5) for name, value in figures.items()}


def runner(source: Path | bytes, picture: np.ndarray, threads: int) -> Callable[[], rounds.Sample]:
    """One turn: the best of five runs after one to warm up."""
    return partial(_turn, opened(source, threads), {vision.INPUT: picture})


def _turn(session: onnxruntime.InferenceSession, feeds: dict[str, np.ndarray]) -> rounds.Sample:
    session.run(None, feeds)
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        session.run(None, feeds)
        taken.append(1000 * (time.perf_counter() - start))
    return {"ms": min(taken)}


def size(model: Model) -> float:
    return round(model.main_file().stat().st_size / 1e6, 2)


if __name__ == "__main__":
    main()
