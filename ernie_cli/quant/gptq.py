"""GPTQ: codes of one row after the other, each row's error made good by the rows that are still to come.

Frantar et al. 2022, arXiv 2210.17323. Rows go in the order of their input's size, but scales are fixed beforehand for blocks of
neighbours ("static groups"), so the result is what DequantizeLinear takes. Knows arrays; search.py brings the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .codes import NUMPY, Codes, round_to_nearest
from .scheme import TYPES, WeightFormat

#: Added to the diagonal, as a share of its mean; ten times more each time the matrix is not positive definite.
DAMPING = 0.01
_TRIES = 6
#: Rows done one by one; more are halved, and the second half corrected by one product of matrices.
_LEAF = 16
#: From this many channels on the decomposition is in float32: float64 would need 1 GB and more for each copy.
_WIDE = 8192


@dataclass(frozen=True)
class Factor:
    """order: rows in the order in which they are rounded [K]. upper: U of UᵀU = H⁻¹ in that order, float32 [K, K]."""

    order: np.ndarray
    upper: np.ndarray


def codes(weight: np.ndarray, moments: np.ndarray | Factor, form: WeightFormat, dtype: Any = np.float32) -> Codes:
    """Codes of a weight [K, N], K a multiple of the block, whose inputs have the second moments XᵀX [K, K].

    moments: also their factor, made once for all weights of an input. dtype: of scales. The same arrays give the same codes.
    Memory: a copy of the weight in float32, and half of one more. Raises FloatingPointError where the weight is not finite.
    """
    made = moments if isinstance(moments, Factor) else factor(moments)
    scale = round_to_nearest(weight, form, 1, 0, dtype=dtype).scale
    left = weight[made.order].astype(np.float32, copy=False)
    rounded = np.empty(weight.shape, np.int8)
    _round(_Rounding(left, rounded, scale.astype(np.float32, copy=False), made, form), 0, len(left))
    return Codes(rounded.astype(NUMPY[form.type]), scale, 0, form.block)


def factor(moments: np.ndarray) -> Factor:
    """Decompose XᵀX [K, K]. Channels that were always zero are rounded on their own, as all are where nothing was seen."""
    sizes = moments.diagonal()
    order = np.argsort(-sizes, kind="stable")
    kind = np.float32 if len(sizes) >= _WIDE else np.float64
    backwards = order[::-1]  # a lower triangle backwards is an upper one forwards
    mean = float(sizes.mean()) or 1.0
    for attempt in range(_TRIES):
        matrix = (moments[np.ix_(backwards, backwards)] / mean).astype(kind)
        matrix[np.diag_indices_from(matrix)] += np.where(sizes[backwards] > 0, 0.0, 1.0) + DAMPING * 10**attempt
        try:
            lower = np.linalg.cholesky(matrix)
        except np.linalg.LinAlgError:
            continue
        del matrix
        return Factor(order, _inverse(lower[::-1, ::-1]).astype(np.float32))
    return Factor(order, np.eye(len(sizes), dtype=np.float32))


def _inverse(upper: np.ndarray) -> np.ndarray:
    """Of an upper triangle, by halves."""
    if len(upper) <= 64:
        return np.linalg.inv(upper)
    half = len(upper) // 2
    made = np.zeros_like(upper)
    made[:half, :half], made[half:, half:] = _inverse(upper[:half, :half]), _inverse(upper[half:, half:])
    made[:half, half:] = -made[:half, :half] @ (upper[:half, half:] @ made[half:, half:])
    return made


@dataclass(frozen=True)
class _Rounding:
    """left: what is still to be rounded, in order; afterwards errors. codes, scale: in the weight's own order."""

    left: np.ndarray
    codes: np.ndarray
    scale: np.ndarray
    factor: Factor
    form: WeightFormat


def _round(work: _Rounding, begin: int, end: int) -> None:
    """Round rows begin to end, in order, each with the errors of those before it made good."""
    left, upper = work.left, work.factor.upper
    if end - begin > _LEAF:
        middle = (begin + end) // 2
        _round(work, begin, middle)
        left[middle:end] -= upper[begin:middle, middle:end].T @ left[begin:middle]
        _round(work, middle, end)
        return
    for row in range(begin, end):
        place = work.factor.order[row]
        step = work.scale[place // work.form.block]
        nearest = np.clip(np.rint(left[row] / step), -8, TYPES[work.form.type][0])
        work.codes[place] = nearest
        left[row] = (left[row] - nearest * step) / upper[row, row]
        left[row + 1 : end] -= upper[row, row + 1 : end, None] * left[row]
