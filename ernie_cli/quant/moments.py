"""What the inputs of a linear layer are like, summed up: which channels are large and which move together.

An error ΔW of the weight [K, N] costs tr(ΔWᵀ·H·ΔW) at the layer's output, H = XᵀX: all that gptq.py, awq.py and mix.py need of
the data, so that no activation is kept.
"""

from __future__ import annotations

import numpy as np

from ..errors import InputError

#: Rows multiplied at once, in float32; products are summed in float64. They are counted out whatever the batches are, so the same
#: rows give the same sums to the bit.
_ROWS = 256
#: Columns of a weight that an error is measured on: enough to compare, few enough for wide layers.
_COLUMNS = 512


class SecondMoments:
    """A Statistic (see calibrate/collect.py) of rows of `channels` numbers. count: rows seen."""

    def __init__(self, channels: int) -> None:
        self._products = np.zeros((channels, channels))
        self._absolute = np.zeros(channels)
        self._waiting = np.empty((_ROWS, channels), np.float32)
        self._filled = 0
        self.count = 0

    @property
    def nbytes(self) -> int:
        """What it holds in memory, whatever comes."""
        return self._products.nbytes + self._absolute.nbytes + self._waiting.nbytes

    def add(self, value: np.ndarray) -> None:
        """See [..., K]."""
        rows = value.reshape(-1, len(self._absolute))
        self.count += len(rows)
        while len(rows):
            taken = min(len(rows), _ROWS - self._filled)
            self._waiting[self._filled : self._filled + taken] = rows[:taken]
            self._filled += taken
            rows = rows[taken:]
            if self._filled == _ROWS:
                self._flush()

    def _flush(self) -> None:
        part, self._filled = self._waiting[: self._filled], 0
        self._products += part.T @ part
        self._absolute += np.abs(part).sum(axis=0, dtype=np.float64)

    @property
    def products(self) -> np.ndarray:
        """XᵀX, float64 [K, K]."""
        self._flush()
        return self._products

    @property
    def means(self) -> np.ndarray:
        """Mean |x| of each channel, float64 [K]."""
        self._flush()
        return self._absolute / max(1, self.count)

    def check(self, name: str) -> None:
        """Raise InputError where the values, called `name`, were not finite."""
        if not (np.isfinite(self.means).all() and np.isfinite(self.products.diagonal()).all()):
            raise InputError(f"`{name}` is not finite on the calibration data", "`ernie eval` shows whether the model itself gives NaN")


def diagonal_blocks(products: np.ndarray, block: int, damping: float) -> np.ndarray:
    """The blocks on the diagonal of [K, K] over the mean of that, float32 [K/block, block, block], and `damping` on the diagonal."""
    mean = float(products.diagonal().mean()) or 1.0
    starts = range(0, len(products), block)
    blocks = np.stack([products[start : start + block, start : start + block] for start in starts]) / mean
    return np.asarray(blocks + damping * np.eye(block), np.float32)


def cost(error: np.ndarray, products: np.ndarray | None) -> float:
    """tr(ΔWᵀ·H·ΔW) of ΔW float32 [K, N]; without products the sum of squares (H = 1)."""
    weighed = error if products is None else products.astype(np.float32, copy=False) @ error
    return float(np.einsum("ij,ij->", error, weighed, dtype=np.float64))


def relative_error(weight: np.ndarray, rounded: np.ndarray, products: np.ndarray | None = None) -> float:
    """What the layer's output loses of its power, 0 to about 1: of a sample of the columns of [K, N] and what became of them."""
    some = sampled(weight)
    whole = cost(some, products)
    return cost(sampled(rounded) - some, products) / whole if whole > 0 else 0.0


def sampled(weight: np.ndarray) -> np.ndarray:
    """Evenly spaced columns, float32 [K, up to _COLUMNS]."""
    return np.ascontiguousarray(weight[:, :: -(-weight.shape[1] // _COLUMNS)], np.float32)
