"""A weight as integers (or 8-bit floats) and scales, and back. Symmetric: no zero points. Knows arrays, no graphs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from .scheme import TYPES, WeightFormat

#: What each type of codes is in numpy.
NUMPY: dict[str, np.dtype[Any]] = {
    "int8": np.dtype(np.int8),
    "int4": np.dtype(ml_dtypes.int4),
    "fp8": np.dtype(ml_dtypes.float8_e4m3fn),
}


@dataclass(frozen=True)
class Codes:
    """What DequantizeLinear takes: codes in the weight's shape, scale float32.

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

    def dequantized(self) -> np.ndarray:
        """float32, the weight's shape: codes × scale, as DequantizeLinear computes it."""
        return self.codes.astype(np.float32) * spread(self.scale, self.codes.shape, self.axis, self.block)


def spread(scale: np.ndarray, shape: tuple[int, ...], axis: int, block: int) -> np.ndarray:
    """Scales in a shape that broadcasts against a weight of `shape`."""
    if block:
        return np.repeat(scale, block, axis=axis)[tuple(slice(length) for length in shape)]
    return scale.reshape([-1 if at == axis else 1 for at in range(len(shape))])


def round_to_nearest(weight: np.ndarray, form: WeightFormat, channel_axis: int, sum_axis: int) -> Codes:
    """Codes of a float weight with the smallest scale that covers its largest value, per channel or per block.

    A block or channel of zeros gets scale 1, so that nothing is divided by zero. sum_axis: the axis that a product sums over.
    """
    weight = weight.astype(np.float32, copy=False)
    largest, _ = TYPES[form.type]
    if form.block:
        peaks = _block_peaks(weight, form.block, sum_axis)
        axis = sum_axis
    else:
        peaks = np.abs(weight).max(axis=tuple(at for at in range(weight.ndim) if at != channel_axis))
        axis = channel_axis
    scale = np.where(peaks > 0, peaks / np.float32(largest), np.float32(1)).astype(np.float32)
    return encode(weight, scale, form, axis)


def encode(weight: np.ndarray, scale: np.ndarray, form: WeightFormat, axis: int) -> Codes:
    """The nearest codes of `weight` under given scales (see Codes)."""
    largest, _ = TYPES[form.type]
    scaled = weight / spread(scale, weight.shape, axis, form.block)
    if form.type != "fp8":
        scaled = np.rint(scaled)
    np.clip(scaled, -largest, largest, out=scaled)
    return Codes(scaled.astype(NUMPY[form.type]), scale, axis, form.block)


def _block_peaks(weight: np.ndarray, block: int, axis: int) -> np.ndarray:
    moved = np.moveaxis(np.abs(weight), axis, 0)
    peaks = np.maximum.reduceat(moved, np.arange(0, len(moved), block), axis=0)
    return np.moveaxis(peaks, 0, axis)
