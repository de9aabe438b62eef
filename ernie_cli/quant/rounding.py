"""Rounds a matrix to codes: in pieces that fit a core's cache, on all cores. Knows numpy and no format of files or graphs.

numpy gives up the interpreter's lock in every step here, so threads help. A step over a whole matrix would run at the speed of
memory; the same step over a piece of a megabyte runs at the speed of the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ml_dtypes
import numpy as np

from .. import host
from ..checkpoint.turn import Turner
from .scheme import TYPES, WeightFormat

#: float32 bytes of a piece. Three such arrays are at work at a time, and second-level caches hold one or two megabytes.
_PIECE_BYTES = 1 << 20
#: Rows of a piece where blocks let it be cut: numpy's inner loops run along the other axis, and want hundreds of numbers.
_ROWS = 512
#: Weights below this are done before a thread has started.
_SMALL_ELEMENTS = 1 << 18
_MOST_THREADS = 8
#: int4 scales that are tried, as the largest value of a block divided by these: 7 covers it, more clip it or use the code -8.
#: On normal weights in blocks of 32 they give 0.9 dB more than 7 alone, of 1.0 dB that any number of them would.
_INT4_DIVISORS = (7.0, 7.5, 8.0, 8.5)
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def rounded(matrix: np.ndarray, form: WeightFormat, scale: np.ndarray | None, dtype: np.dtype[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Codes of `matrix` [K, N] (any float type, any strides) and their scales [ceil(K / block), N], [1, N] without blocks.

    Codes are int8, for int4 in the lower half of a byte; for fp8 the bits of E4M3 as uint8. scale: given, or None to choose.
    Raises FloatingPointError where the matrix holds NaN or infinite values.
    """
    rows, columns = matrix.shape
    block = form.block or rows
    codes = np.empty((rows, columns), np.uint8 if form.type == "fp8" else np.int8)
    made = np.empty((-(-rows // block), columns), dtype)
    height = max(block, _ROWS // block * block)
    width = max(16, _PIECE_BYTES // 4 // max(1, min(rows, height)))

    def one(corner: tuple[int, int]) -> None:
        top, left = corner
        piece = slice(top, top + height), slice(left, left + width)
        scales = slice(top // block, (top + height) // block), piece[1]
        values = _loaded(matrix[piece], block)
        chosen = _scales(values, form, dtype) if scale is None else scale[scales]
        made[scales] = chosen
        _codes(values, chosen.astype(np.float32, copy=False)[:, None], form, codes[piece])

    corners = [(top, left) for left in range(0, columns, width) for top in range(0, rows, height)]
    _each(one, corners, threads=1 if matrix.size < _SMALL_ELEMENTS else min(_MOST_THREADS, host.cores()))
    return codes, made


def _each(work: Callable[[tuple[int, int]], None], items: Sequence[tuple[int, int]], *, threads: int) -> None:
    if threads == 1 or len(items) == 1:
        for item in items:
            work(item)
        return
    pool = ThreadPoolExecutor(threads)
    try:
        for _ in pool.map(work, items):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


def _loaded(piece: np.ndarray, block: int) -> np.ndarray:
    """float32 [blocks, block, n], rows beyond the matrix zero. Transposed views are turned in the cache."""
    rows, columns = piece.shape
    values = np.empty((-(-rows // block) * block, columns), np.float32)
    values[rows:] = 0
    if piece.strides[0] == piece.itemsize != piece.strides[1]:
        turned = np.empty(piece.shape, piece.dtype)
        Turner().turn(piece.T, turned)
        piece = turned
    if piece.dtype == _BFLOAT16:  # the upper half of a float32: a shift is four times as quick as ml_dtypes' cast
        bits = values[:rows].view(np.uint32)
        bits[...] = piece.view(np.uint16)
        np.left_shift(bits, 16, out=bits)
    else:
        values[:rows] = piece
    return values.reshape(-1, block, columns)


def _scales(values: np.ndarray, form: WeightFormat, dtype: np.dtype[Any]) -> np.ndarray:
    """[blocks, n] of `dtype`, all above 0."""
    peaks = np.maximum(values.max(axis=1), -values.min(axis=1))
    if not np.isfinite(peaks).all():
        raise FloatingPointError("NaN or infinite values")
    if form.type != "int4":
        return _positive(peaks / np.float32(TYPES[form.type][0]), dtype)
    best, least = _positive(peaks / np.float32(_INT4_DIVISORS[0]), dtype), np.full(peaks.shape, np.inf, np.float32)
    scratch = np.empty_like(values), np.empty_like(values)
    for divisor in _INT4_DIVISORS:
        scale = _positive(peaks / np.float32(divisor), dtype)
        error = _squared_error(values, scale.astype(np.float32, copy=False), *scratch)
        better = error < least
        np.copyto(best, scale, where=better)
        np.copyto(least, error, where=better)
    return best


def _positive(scale: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """In the graph's float type; 1 where that makes it 0."""
    narrow = scale.astype(dtype, copy=False)
    return np.where(narrow > 0, narrow, np.ones((), dtype))


def _squared_error(values: np.ndarray, scale: np.ndarray, scaled: np.ndarray, off: np.ndarray) -> np.ndarray:
    """Of each block under each scale, near enough to choose by. scaled, off: scratch."""
    np.multiply(values, np.float32(1) / scale[:, None], out=scaled)
    np.rint(scaled, out=off)
    np.clip(off, -8, 7, out=off)
    np.subtract(off, scaled, out=off)
    error: np.ndarray = np.einsum("bkn,bkn->bn", off, off) * (scale * scale)
    return error


def _codes(values: np.ndarray, scale: np.ndarray, form: WeightFormat, out: np.ndarray) -> None:
    """Fill `out` [K, n]. `values` is used up."""
    np.divide(values, scale, out=values)
    largest = TYPES[form.type][0]
    flat = values.reshape(-1, values.shape[-1])[: len(out)]
    if form.type == "fp8":
        np.clip(flat, -largest, largest, out=flat)
        out[...] = e4m3_bits(flat)
        return
    np.rint(flat, out=flat)
    np.clip(flat, -8 if form.type == "int4" else -largest, largest, out=flat)
    out[...] = flat  # float → int8: exact
    if form.type == "int4":
        np.bitwise_and(out, 15, out=out)  # the way ml_dtypes keeps them


def e4m3_bits(values: np.ndarray) -> np.ndarray:
    """The bits of float32 values within ±448 as E4M3, rounded to nearest, ties to even. ml_dtypes' cast does the same, slower.

    1 sign, 4 exponent (bias 7), 3 mantissa bits; below 2⁻⁶ steps of 2⁻⁹. OCP 8-bit Floating Point Specification 1.0, §5.
    """
    bits = values.view(np.uint32)
    sign = ((bits >> 24) & 0x80).astype(np.uint8)
    size = bits & 0x7FFFFFFF
    small = size < np.float32(2**-6).view(np.uint32)
    subnormal = np.rint(np.abs(values) * np.float32(512), where=small, out=np.zeros_like(values)).astype(np.uint8)
    size += 0x7FFFF + ((size >> 20) & 1)
    size >>= 20
    size -= (127 - 7) << 3
    return np.where(small, subnormal, size.astype(np.uint8)) | sign
