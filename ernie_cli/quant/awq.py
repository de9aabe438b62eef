"""AWQ: channels whose inputs are large get finer steps, by a factor that the layer before takes back; then blocks are clipped.

Lin et al. 2023, arXiv 2306.00978. The factors are mean|x|ᵃ, a found by trying. Knows arrays and fold.py's groups; which layers and
which data is search.py's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import clip
from .codes import Codes, round_to_nearest
from .fold import Group
from .moments import SecondMoments, cost, diagonal_blocks, sampled
from .scheme import WeightFormat

#: Exponents a: 0 changes nothing, 1 gives every channel the same size.
EXPONENTS = tuple(np.linspace(0.0, 1.0, 21))
#: Weights' own squared error counts a little in clipping, or channels that the data never used could be clipped at will.
DAMPING = 0.1


def search(group: Group, moments: SecondMoments, form: WeightFormat) -> np.ndarray:
    """The factors [K] for fold.fold with which the group's layers, rounded to nearest, lose least at their outputs. All 1 where none help.

    moments: of group.value. Raises FloatingPointError where a weight holds NaN or infinite values.
    """
    tried = [group.largest(powers(moments.means, float(exponent))) for exponent in EXPONENTS]
    return best(tried, [sampled(layer.read()) for layer in group.layers], moments.products, form)


def best(tried: list[np.ndarray], weights: list[np.ndarray], products: np.ndarray, form: WeightFormat) -> np.ndarray:
    """Of several factors [K] those with which weights [K, N] lose least under second moments `products`; of equal ones the first."""
    products = products.astype(np.float32)

    def lost(factors: np.ndarray) -> float:
        column = factors.astype(np.float32)[:, None]
        return sum(cost(round_to_nearest(weight * column, form, 1, 0).dequantized() / column - weight, products) for weight in weights)

    return min(tried, key=lost)


def powers(means: np.ndarray, exponent: float) -> np.ndarray:
    """means ** exponent, around 1. Channels that are always zero count as the smallest that is not."""
    alive = means[means > 0]
    if not len(alive):
        return np.ones_like(means)
    powered = np.maximum(means, alive.min()) ** exponent
    # The geometric mean of both ends becomes 1, so that neither leaves a float16's range.
    return np.asarray(powered / np.sqrt(powered.max() * powered.min()))


def importance(products: np.ndarray, factors: np.ndarray, form: WeightFormat) -> np.ndarray:
    """What `codes` needs of second moments [K, K], when the inputs are divided by `factors` [K]. Little: K · block numbers."""
    return diagonal_blocks(products / np.outer(factors, factors), form.block, DAMPING)


def codes(weight: np.ndarray, importance: np.ndarray, form: WeightFormat, dtype: Any = np.float32) -> Codes:
    """Codes of a (folded) weight [K, N], each block clipped where its own output error is least. Raises as clip.codes does."""
    return clip.codes(weight, importance, form, dtype)
