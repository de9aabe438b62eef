"""Streams checkpoint tensors into the graph's data file: cast, transposed, aligned, a few megabytes at a time.

Peak memory is a few blocks, whatever the model's size. The graph's initializers then point into the file. What the
tensors are called and where they stand on disk is the checkpoint room's matter.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import onnx_ir as ir

from .builder import WeightSource

#: A page: runtimes map the file, and TensorRT wants weights aligned.
ALIGNMENT_BYTES = 4096
#: Output bytes made at a time: large enough for numpy, small enough for the cache behind it.
BLOCK_BYTES = 2 << 20

NUMPY_DTYPES: dict[ir.DataType, Any] = {
    ir.DataType.FLOAT: np.dtype(np.float32),
    ir.DataType.FLOAT16: np.dtype(np.float16),
    ir.DataType.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
}


class TensorSource(Protocol):
    """The part of a checkpoint that this file needs."""

    def read(self, name: str) -> np.ndarray: ...


def cast(block: np.ndarray, dtype: Any) -> np.ndarray:
    """`block` as a contiguous array of `dtype`. bfloat16 → float32 is a shift of bits, ten times faster than a general cast."""
    if block.dtype == ml_dtypes.bfloat16 and dtype == np.float32:
        wide = block.view(np.uint16).astype(np.uint32, order="C")
        wide <<= 16
        return wide.view(np.float32)
    return np.ascontiguousarray(block.astype(dtype, copy=False))


def blocks(tensors: list[np.ndarray], source: WeightSource, dtype: Any) -> Iterator[np.ndarray]:
    """The bytes of one initializer, in file order: parts joined along `out` (axis 0), transposed if asked, cast."""
    if not source.transpose:
        for tensor in tensors:
            rows = max(1, BLOCK_BYTES // max(1, dtype.itemsize * int(np.prod(tensor.shape[1:]))))
            for start in range(0, len(tensor), rows):
                yield cast(tensor[start : start + rows], dtype)
        return
    width = sum(len(tensor) for tensor in tensors)
    # At least a cache line of bf16 columns at a time, or every line of the source would be fetched many times over.
    columns = max(64, BLOCK_BYTES // (dtype.itemsize * width))
    for start in range(0, tensors[0].shape[1], columns):
        parts = [tensor[:, start : start + columns].T for tensor in tensors]
        yield cast(np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0], dtype)


def write(
    checkpoint: TensorSource, weights: Mapping[ir.Value, WeightSource], path: Path, advance: Callable[[float], None]
) -> dict[str, dict[str, Any]]:
    """Write every weight to `path` and make each initializer point there.

    `advance(n)` is called as bytes are written. Returns the file's entry for the manifest: {name: {size, sha256}}.
    """
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for value, source in weights.items():
            padding = b"\0" * (-file.tell() % ALIGNMENT_BYTES)
            file.write(padding)
            digest.update(padding)
            start = file.tell()
            for block in blocks([checkpoint.read(name) for name in source.tensors], source, NUMPY_DTYPES[value.type.dtype]):  # type: ignore[union-attr]
                data = memoryview(block.reshape(-1).view(np.uint8))
                file.write(data)
                digest.update(data)
                advance(len(data))
            _point(value, path, start, file.tell() - start)
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
    return {path.name: {"size": size, "sha256": digest.hexdigest()}}


def _point(value: ir.Value, path: Path, offset: int, length: int) -> None:
    assert value.dtype is not None and value.shape is not None and value.name
    value.const_value = ir.ExternalTensor(path.name, offset, length, value.dtype, shape=value.shape, name=value.name, base_dir=path.parent)
