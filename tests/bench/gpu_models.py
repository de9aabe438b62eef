"""The models that bench_gpu.py measures, made once in its work folder: nano and 0.3B shapes, each in every precision, and their engines."""

from __future__ import annotations

import functools
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import rounds

from ernie_cli import named
from ernie_cli.quant.cache import bytes_per_token

#: Precision → the float type of its graph: what transformers runs beside it, and what it is quantised from.
FLOATS = {"fp16": "fp16", "int8": "fp16", "int8-weight": "fp16", "int4": "fp16", "bf16": "bf16", "fp32": "fp32"}
MODELS = {"nano": "ERNIE-4.5-nano", "0.3B": "ERNIE-4.5-0.3B's shapes, seeded weights"}


class Failed(Exception):
    """A model that could not be made, and why in one line."""


@dataclass(frozen=True)
class Bytes:
    """weights: what a step of single tokens reads of them, once for the whole batch. kv_per_token: of one row's cache, per token."""

    weights: int
    kv_per_token: int

    def of_step(self, batch: int, length: float) -> float:
        """Bytes that a step over rows of this mean length cannot do without reading."""
        return self.weights + batch * length * self.kv_per_token


def checkpoint(name: str, work: Path) -> Path:
    """The checkpoint that all precisions of a model are made from."""
    return named.resolve(named.EMBEDDED) if name == "nano" else rounds.checkpoint(work)


@functools.cache
def graph(name: str, precision: str, work: Path) -> Path:
    """The ONNX decoder with the static cache, made where it is not there yet. Raises Failed."""
    out = work / f"{name}-{precision}"
    source = checkpoint(name, work)
    if precision == FLOATS[precision]:
        _ernie("convert", source, "--to", "onnx", "--dtype", precision, "--kv-cache", "static", "--no-verify", "-o", out)
        return out
    calibration = ["--smooth", "off", *([] if name == "nano" else ["--random-calibration"])] if precision == "int8" else []
    _ernie("quantize", graph(name, FLOATS[precision], work), "--to", precision, "--no-measure", *calibration, "-o", out)
    return out


def engine(name: str, precision: str, work: Path, *, context: int, batch: int, library: str) -> Path:
    """The TensorRT engine of that graph for this machine's GPU. Raises Failed with what `ernie build` says."""
    out = work / f"{name}-{precision}-{library}-{context}x{batch}"
    place = ["--device", "auto", "--engine-library", library, "--no-verify"]
    _ernie("build", graph(name, precision, work), *place, "--context", context, "--batch", batch, "-o", out)
    return out


def _ernie(*words: object) -> None:
    command = [sys.executable, "-m", "ernie_cli", *map(str, words), "-q"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = (
            [line for line in done.stderr.splitlines() if line.startswith("error:")] or done.stderr.splitlines()[-1:] or ["it says nothing"]
        )
        raise Failed(f"ernie {words[0]}: {said[0].removeprefix('error: ')[:300]}")


@functools.cache
def read_bytes(folder: Path) -> Bytes:
    """From the graph itself. A table that is only gathered from is not read but for the rows of the tokens."""
    model = ir.load(folder / "model.onnx")
    whole = [value for value in model.graph.initializers.values() if any(not _gathers(use) for use in value.uses())]
    return Bytes(sum(value.const_value.nbytes for value in whole if value.const_value is not None), bytes_per_token(model))


def _gathers(use: ir.Usage) -> bool:
    return use.node.op_type == "Gather" and use.idx == 0
