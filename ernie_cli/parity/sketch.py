"""A tensor as a few numbers that tell how far it is from another: statistics and random projections. Keeps no array."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

#: The mean of this many squared projections of a difference gives its length within about 18 %, whatever its direction
#: (Johnson-Lindenstrauss). Projected in pieces that fit a core's cache.
_WIDTH, _PIECE = 16, 8192
#: Integers with fewer elements are shapes, axes and flags: equal ones prove nothing. Floats seldom agree by chance.
_FEW = 8


@dataclass(frozen=True, eq=False)
class Sketch:
    """shape and dtype of a tensor, statistics of its finite elements, how many were not, and its projections."""

    shape: tuple[int, ...]
    dtype: str
    mean: float
    std: float
    low: float
    high: float
    norm: float
    nans: int
    infs: int
    projected: np.ndarray

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def telling(self) -> bool:
        """Whether an equal tensor is likely to be the same one."""
        return self.size >= (2 if self.floats else _FEW) and self.std > 0

    @property
    def floats(self) -> bool:
        return "float" in self.dtype

    def as_dict(self) -> dict[str, Any]:
        """Statistics, as records keep them."""
        return {
            "shape": list(self.shape), "dtype": self.dtype, "min": self.low, "mean": self.mean, "max": self.high, "std": self.std,
            "nans": self.nans, "infs": self.infs,
        }  # fmt: skip


def sketch(array: np.ndarray) -> Sketch:
    """The sketch of an array of numbers or booleans, elements in row-major order."""
    wide = np.asarray(array).astype(np.float64).ravel()
    nans, infs = int(np.isnan(wide).sum()), int(np.isinf(wide).sum())
    wide = np.where(np.isfinite(wide), wide, 0.0) if nans or infs else wide
    some = wide if wide.size else np.zeros(1)
    norm = float(np.linalg.norm(wide))
    low, high = float(some.min()), float(some.max())
    return Sketch(
        array.shape, array.dtype.name, float(some.mean()), float(some.std()), low, high, norm, nans, infs, _project(wide)
    )  # fmt: skip


def distance(a: Sketch, b: Sketch) -> float:
    """Length of the difference over the length of `a`, estimated; infinite where sizes or numbers of NaN differ."""
    if a.size != b.size or (a.nans, a.infs) != (b.nans, b.infs):
        return float("inf")
    return distances(a, b.projected[None])[0]


def distances(a: Sketch, projected: np.ndarray) -> list[float]:
    """The same to several tensors of one size, by their projections [n, width]."""
    gaps = np.sqrt(((projected - a.projected) ** 2).mean(1))
    found: list[float] = (gaps / (a.norm or 1e-3)).tolist()
    return found


def same_values(a: Sketch, b: Sketch, within: float) -> bool:
    """Whether two tensors may hold the same values in another order."""
    unit = within * max(abs(a.low), abs(a.high), 1e-30)
    return a.size == b.size and all(abs(x - y) <= unit for x, y in ((a.low, b.low), (a.high, b.high), (a.mean, b.mean), (a.std, b.std)))


def permuted(array: np.ndarray, shape: tuple[int, ...]) -> Iterator[Sketch]:
    """Sketches of `array` with its axes in every other order that gives `shape` (axes of length 1 aside). Up to 5 axes."""
    array = np.squeeze(array)
    wanted = tuple(length for length in shape if length != 1)
    if array.ndim > 5 or sorted(array.shape) != sorted(wanted):
        return
    for order in itertools.islice(itertools.permutations(range(array.ndim)), 1, None):
        if tuple(array.shape[axis] for axis in order) == wanted:
            yield sketch(np.transpose(array, order))


def _project(flat: np.ndarray) -> np.ndarray:
    """Random projections of a vector, the same for every vector of one length."""
    total = np.zeros(_WIDTH)
    matrix = _matrix()
    for number, start in enumerate(range(0, flat.size, _PIECE)):
        piece = flat[start : start + _PIECE]
        signs = np.random.default_rng([7, number]).integers(0, 2, _WIDTH) * 2 - 1  # else a swap of two pieces would not show
        total += signs * (piece @ matrix[: piece.size])
    return total


@cache
def _matrix() -> np.ndarray:
    return np.random.default_rng(7).standard_normal((_PIECE, _WIDTH))
