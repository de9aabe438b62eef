"""A weight as integers (or 8-bit floats) and scales, and back. Symmetric: no zero points. Knows arrays, no graphs.

How a matrix is rounded quickly, in pieces and on all cores, is rounding.py's matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from . import rounding
from .scheme import WeightFormat

#: What each type of codes is in numpy.
NUMPY: dict[str, np.dtype[Any]] = {
    "int8": np.dtype(np.int8),
    "int4": np.dtype(ml_dtypes.int4),
    "fp8": np.dtype(ml_dtypes.float8_e4m3fn),
}
#: Blocks that both ONNX Runtime's and TensorRT's kernels take, largest first.
BLOCKS = (128, 64, 32, 16)


@dataclass(frozen=True)
class Codes:
    """What DequantizeLinear takes: codes in the weight's shape, scale in its float type.

    axis: the axis that scales run along. block: 0: scale is [channels], one per index of `axis`; else scale has the weight's
    shape but for `axis`, where it has one entry per `block` codes.
    """

    codes: np.ndarray
    scale: np.ndarray
    axis: int
    block: int = 0

    @property
    def nbytes(self) -> int:
        """What they take in a file: int4 two to a byte."""
        packed = (self.codes.size + 1) // 2 if self.codes.dtype == NUMPY["int4"] else self.codes.nbytes
        return packed + self.scale.nbytes

    @property
    def turned(self) -> Codes:
        """The same of a transposed matrix, as views."""
        return Codes(self.codes.T, self.scale.T, 1 - self.axis, self.block)

    def dequantized(self) -> np.ndarray:
        """float32, the weight's shape: codes × scale in the scale's type, the values that DequantizeLinear computes."""
        scale = spread(self.scale, self.codes.shape, self.axis, self.block)
        whole = self.codes.astype(np.float32) * scale.astype(np.float32, copy=False)
        return whole.astype(scale.dtype, copy=False).astype(np.float32, copy=False)


def spread(scale: np.ndarray, shape: tuple[int, ...], axis: int, block: int) -> np.ndarray:
    """Scales in a shape that broadcasts against a weight of `shape`."""
    if block:
        return np.repeat(scale, block, axis=axis)[tuple(slice(length) for length in shape)]
    return scale.reshape([-1 if at == axis else 1 for at in range(len(shape))])


def fit(form: WeightFormat, length: int, *, matrix: bool = True) -> WeightFormat:
    """The form that a weight of `length` summed entries can have, nearest to the one that is wanted.

    Blocks must divide the length: else the largest smaller one that does, or int8 with a scale per channel. So do weights that
    are no matrices (convolutions), whose sums run over several axes.
    """
    if not form.block:
        return form
    found = next((block for block in BLOCKS if block <= form.block and length % block == 0), 0)
    return WeightFormat(form.type, found) if found and matrix else WeightFormat("int8")


def round_to_nearest(weight: np.ndarray, form: WeightFormat, channel_axis: int, sum_axis: int, *, dtype: Any = np.float32) -> Codes:
    """The nearest codes of a float weight, under a scale per channel or per block.

    8 bits: the smallest scale that covers the largest value. int4: of a few scales the one with the least squared error. What
    holds nothing but zeros gets scale 1. weight: any float type, any strides. sum_axis: the axis that a product sums over.
    dtype: of scales, the graph's float type. Raises FloatingPointError where the weight holds NaN or infinite values.
    """
    return _rounded(weight, None, form, sum_axis if form.block else channel_axis, np.dtype(dtype))


def encode(weight: np.ndarray, scale: np.ndarray, form: WeightFormat, axis: int) -> Codes:
    """The nearest codes of `weight` under given scales (see Codes)."""
    return _rounded(weight, scale, form, axis, scale.dtype)


def _rounded(weight: np.ndarray, scale: np.ndarray | None, form: WeightFormat, axis: int, dtype: np.dtype[Any]) -> Codes:
    """Through a matrix whose scales run along its columns: blocks along its rows, or a scale for each column."""
    if form.block:
        assert weight.ndim == 2, "blocks are for matrices"
        turn = axis == 1
        matrix, given = (weight.T, None if scale is None else scale.T) if turn else (weight, scale)
        codes, made = rounding.rounded(matrix, form, given, dtype)
        done = Codes(codes.view(NUMPY[form.type]), made, 0, form.block)
        return done.turned if turn else done
    moved = np.moveaxis(weight, axis, -1)
    codes, made = rounding.rounded(moved.reshape(-1, weight.shape[axis]), form, None if scale is None else scale[None], dtype)
    return Codes(np.moveaxis(codes.view(NUMPY[form.type]).reshape(moved.shape), -1, axis), made[0], axis)
