"""Constants in a narrower float type: what of their values it holds, and tensors that are rounded when they are read. Knows no graph."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

#: Elements looked at or rounded at a time: 4 MB of float32.
_PIECE = 1 << 20


@dataclass(frozen=True)
class Extent:
    """least, most: of the finite values (0 where there are none). magnitude: the largest |finite value|."""

    least: float
    most: float

    @property
    def magnitude(self) -> float:
        return max(-self.least, self.most)


def limits(dtype: ir.DataType) -> tuple[float, float]:
    """(largest finite value, smallest one with all its digits) of a float type."""
    info: Any = ml_dtypes.finfo(dtype.numpy())  # type: ignore[no-untyped-call]
    return float(info.max), float(info.tiny)


def extent(tensor: ir.TensorProtocol) -> Extent:
    """Of a tensor of floats, read in pieces."""
    least, most = 0.0, 0.0
    flat = _values(tensor)
    for start in range(0, len(flat), _PIECE):
        piece = flat[start : start + _PIECE]
        low, high = float(piece.min()), float(piece.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            piece = piece[np.isfinite(piece)]
            low, high = (float(piece.min()), float(piece.max())) if len(piece) else (0.0, 0.0)
        least, most = (low, high) if start == 0 else (min(least, low), max(most, high))
    return Extent(least, most)


class Narrowed(ir.LazyTensor):
    """A tensor of float32 as float16 or bfloat16, rounded to nearest when it is read, and kept by nobody.

    Finite values beyond the type's end become its largest; infinite ones stay.
    """

    def __init__(self, tensor: ir.TensorProtocol, dtype: ir.DataType, name: str) -> None:
        super().__init__(lambda: ir.tensor(self._whole(), dtype=dtype, name=name), dtype, ir.Shape(tensor.shape.numpy()), name=name)
        self._before = tensor

    def pieces(self) -> Iterator[np.ndarray]:
        """The values in file order, a few megabytes at a time."""
        most, kind = limits(self.dtype)[0], self.dtype.numpy()
        flat = _values(self._before)
        for start in range(0, len(flat), _PIECE):
            piece = flat[start : start + _PIECE]
            yield np.where(np.isinf(piece), piece, np.clip(piece, -most, most)).astype(kind)

    def _whole(self) -> np.ndarray:
        out = np.empty(self.size, self.dtype.numpy())
        at = 0
        for piece in self.pieces():
            out[at : at + piece.size] = piece
            at += piece.size
        return out.reshape(self.shape.numpy())


def _values(tensor: ir.TensorProtocol) -> np.ndarray:
    """The values, flat; what is mapped of a file is given back to the system when the array is dropped."""
    if isinstance(tensor, ir.ExternalTensor) and tensor.size:
        return np.asarray(np.memmap(tensor.path, tensor.dtype.numpy(), "r", tensor.offset or 0, (tensor.size,)))
    return tensor.numpy().reshape(-1)
