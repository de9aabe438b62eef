"""Streams checkpoint tensors into the graph's data file: cast, transposed, aligned, a few megabytes at a time.

Peak memory is a few blocks, whatever the model's size. The graph's initializers then point into the file. What the
tensors are called and where they stand on disk is the checkpoint room's matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import onnx_ir as ir

from ..checkpoint.stream import HashedFile
from ..checkpoint.turn import COLUMNS, Turner
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


def blocks(tensor: np.ndarray, transpose: bool, dtype: np.dtype[Any]) -> Iterator[np.ndarray]:
    """The content of one initializer, in file order: `tensor`, transposed if asked, cast to `dtype`."""
    if not transpose:
        rows = max(1, BLOCK_BYTES // max(1, dtype.itemsize * math.prod(tensor.shape[1:])))
        for start in range(0, len(tensor), rows):
            yield np.ascontiguousarray(tensor[start : start + rows]).astype(dtype, copy=False)
        return
    turner = Turner()
    for start in range(0, tensor.shape[1], COLUMNS):
        columns = tensor[:, start : start + COLUMNS]
        block = np.empty(columns.shape[::-1], tensor.dtype)
        turner.turn(columns, block)
        yield block.astype(dtype, copy=False)


def write(
    checkpoint: TensorSource, weights: Mapping[ir.Value, WeightSource], path: Path, advance: Callable[[float], None]
) -> dict[str, dict[str, Any]]:
    """Write every weight to `path` and make each initializer point there.

    `advance(n)` is called as bytes are written. Returns the file's entry for the manifest: {name: {size, sha256}}.
    """
    position = 0
    with HashedFile(path) as file:
        for value, source in weights.items():
            padding = -position % ALIGNMENT_BYTES
            file.write(bytes(padding))
            start = position = position + padding
            for block in blocks(checkpoint.read(source.tensor), source.transpose, NUMPY_DTYPES[_dtype(value)]):
                file.write(block.reshape(-1).view(np.uint8))
                position += block.nbytes
                advance(block.nbytes)
            _point(value, path, start, position - start)
    return {path.name: file.facts}


def _dtype(value: ir.Value) -> ir.DataType:
    assert value.dtype is not None
    return value.dtype


def _point(value: ir.Value, path: Path, offset: int, length: int) -> None:
    assert value.shape is not None and value.name
    value.const_value = ir.ExternalTensor(
        path.name, offset, length, _dtype(value), shape=value.shape, name=value.name, base_dir=path.parent
    )
