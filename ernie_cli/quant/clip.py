"""Scales that clip: for every block of a weight the one with the least error at the layer's output, as far as the block alone makes it.

Scales with the least error of the weights themselves are rounding.py's, which needs no data.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .codes import Codes, encode
from .scheme import TYPES, WeightFormat

#: The scales tried, as shares of the one that reaches the largest weight. More of them change nothing on ernie-4.5-nano.
SHARES = tuple(np.linspace(1.05, 0.7, 15))
#: Two's complement has one code more below zero.
_LOWEST = {"int4": -8.0, "int8": -127.0}
#: Weights looked at together: what is tried again and again stays in the processor's cache.
_PIECE = 1 << 17


def codes(weight: np.ndarray, importance: np.ndarray, form: WeightFormat, dtype: Any = np.float32) -> Codes:
    """Codes of a weight [K, N], K a multiple of the block, under the scales of least error.

    importance: float32 [K/block, block, block]; the error e of a block's column costs eᵀ·importance·e. dtype: of scales.
    Raises FloatingPointError where the weight holds NaN or infinite values.
    """
    scale = np.empty((len(weight) // form.block, weight.shape[1]), dtype)
    for blocks, columns in _pieces(len(scale), weight.shape[1], form.block):
        part = weight[blocks.start * form.block : blocks.stop * form.block, columns].astype(np.float32, copy=False)
        scale[blocks, columns] = _best(part.reshape(-1, form.block, part.shape[1]), form, importance[blocks], scale.dtype)
    return encode(weight, scale, form, 0)


def _best(part: np.ndarray, form: WeightFormat, importance: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """[blocks, block, N] → scales [blocks, N] above 0; 1 where all weights are zero."""
    reach = np.abs(part).max(axis=1) / np.float32(TYPES[form.type][0])
    if not np.isfinite(reach).all():
        raise FloatingPointError("NaN or infinite values")
    best, least = np.ones(reach.shape, dtype), np.full(reach.shape, np.inf, np.float32)
    for share in SHARES:
        narrow = (reach * np.float32(share)).astype(dtype)
        scale = np.where(narrow > 0, narrow, np.ones((), dtype)).astype(np.float32)[:, None]
        error = np.rint(part / scale)
        np.clip(error, _LOWEST[form.type], TYPES[form.type][0], out=error)
        error *= scale
        error -= part
        cost = np.einsum("bkn,bkn->bn", error, importance @ error)
        better = (cost < least) & (narrow > 0)
        np.copyto(best, narrow, where=better)
        np.copyto(least, cost, where=better)
    return best


def _pieces(blocks: int, width: int, block: int) -> Iterator[tuple[slice, slice]]:
    """(blocks, columns) that cover them all, about _PIECE weights each."""
    columns = min(width, max(1, _PIECE // block))
    count = max(1, _PIECE // (block * columns))
    for first in range(0, blocks, count):
        for start in range(0, width, columns):
            yield slice(first, min(blocks, first + count)), slice(start, min(width, start + columns))
