"""From the values of an activation to the largest value that its codes shall reach. Symmetric: of |x|.

All observers count into one kind of histogram, so none depends on the order of the data or on batches. A range becomes a scale
in scales.py.

minmax      the largest |x|
percentile  what 99.99 % of all |x| above 0 do not exceed; percentile:99.9 for another share
mse         the least squared error of rounding and saturating
entropy     the least Kullback-Leibler divergence; S. Migacz, "8-bit Inference with TensorRT", GTC 2017, slides 20 to 32
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial

import ml_dtypes
import numpy as np

from ...errors import UsageError
from ..scheme import TYPES
from .histogram import Histogram

#: Where `percentile` is given no number.
PERCENTILE = 99.99
#: mse looks between this share of the largest value and the largest value, in steps of equal ratio, then finer around the best.
_LEAST_SHARE, _STEPS, _FINER = 1 / 256, 64, 8
#: entropy: bins from 0 to the largest value, the least number of them that is kept, every which one is tried at first. Migacz tries
#: all; the divergence is smooth enough to look closer only around the best.
_BINS, _LEAST_BINS, _STRIDE = 2048, 128, 8


class Observer:
    """A Statistic: `add` values, then ask for the threshold of a kind of codes."""

    def __init__(self, name: str, choose: Callable[[np.ndarray, np.ndarray, str], float]) -> None:
        self.name, self._choose = name, choose
        self.histogram = Histogram()

    @property
    def nbytes(self) -> int:
        """What it holds in memory, whatever comes."""
        return self.histogram.nbytes

    def add(self, value: np.ndarray) -> None:
        """See one more array of any shape."""
        self.histogram.add(value)

    def threshold(self, kind: str) -> float:
        """The |x| that the largest code of `kind` ("int8", "fp8") shall mean: above 0, finite, at most the largest |x| seen.

        Where nothing but zeros was seen (or what float32 holds with few bits only) it is the largest code itself: the scale is 1.
        """
        largest = self.histogram.largest
        if largest < np.finfo(np.float32).tiny:
            return TYPES[kind][0]
        return min(float(self._choose(*self.histogram.bins(), kind)), largest)


def observer(name: str) -> Observer:
    """The observer called minmax, percentile (or percentile:99.9), mse or entropy. Raises UsageError for any other name."""
    name = "mse" if name == "auto" else name  # the least loss of all over many layers, see RESULTS.md
    base, _, number = name.partition(":")
    if base not in _CHOICES or (number and base != "percentile"):
        near = difflib.get_close_matches(base, _CHOICES, 1)
        raise UsageError(f"no observer named `{name}`", f"did you mean `{near[0]}`?" if near else f"there are {', '.join(_CHOICES)}")
    return Observer(name, partial(_percentile, _share(number)) if base == "percentile" else _CHOICES[base])


def _share(number: str) -> float:
    try:
        percent = float(number or PERCENTILE)
    except ValueError:
        percent = 0.0
    if not 0 < percent <= 100:
        raise UsageError(f"percentile:{number}: a number above 0 and at most 100 is needed", "percentile:99.9")
    return percent / 100


def rounded(codes: np.ndarray, kind: str) -> np.ndarray:
    """Numbers ≥ 0 as the nearest codes of `kind`, those out of reach as the largest one; float64."""
    codes = np.minimum(codes, TYPES[kind][0])
    found: np.ndarray = codes.astype(ml_dtypes.float8_e4m3fn).astype(np.float64) if kind == "fp8" else np.rint(codes)
    return found


# --- choices: bins (see Histogram.bins) and a kind of codes → a threshold ---------------------------------------------------


def _minmax(edges: np.ndarray, counts: np.ndarray, kind: str) -> float:
    return float(edges[-1, 1])


def _percentile(share: float, edges: np.ndarray, counts: np.ndarray, kind: str) -> float:
    """The upper end of the bin that completes the share. Zeros do not count: they are exact in any scale, and may be nearly all."""
    above = edges[:, 0] > 0
    seen = np.cumsum(counts[above])
    return float(edges[above][np.searchsorted(seen, share * (1 - 1e-12) * seen[-1]), 1])


def _mse(edges: np.ndarray, counts: np.ndarray, kind: str) -> float:
    values, weights = edges.mean(axis=1), counts / counts.sum()

    def error(threshold: float) -> float:
        scale = threshold / TYPES[kind][0]
        return float((np.square(rounded(values / scale, kind) * scale - values) * weights).sum())

    largest, ratio = float(edges[-1, 1]), float(_LEAST_SHARE ** (1 / _STEPS))
    best = _first_least([largest * ratio**step for step in range(_STEPS + 1)], error)
    around = [best * ratio ** (step / _FINER) for step in range(1 - _FINER, _FINER)]
    return _first_least([best, *(each for each in around if each < largest)], error)


def _first_least(candidates: list[float], error: Callable[[float], float]) -> float:
    """Of equally good ones the first: largest thresholds come first, and clip the least of what the data did not show."""
    return min(candidates, key=error)


def _entropy(edges: np.ndarray, counts: np.ndarray, kind: str) -> float:
    bins = _even(edges, counts)
    bins[0] = bins[1]  # zeros are exact in any scale; NVIDIA's pytorch-quantization leaves them out in this way
    coarse = range(_BINS, _LEAST_BINS - 1, -_STRIDE)
    best = min(coarse, key=partial(_divergence, bins, kind))
    near = range(min(best + _STRIDE, _BINS), max(best - _STRIDE, _LEAST_BINS) - 1, -1)
    best = min([best, *near], key=partial(_divergence, bins, kind))
    return float(edges[-1, 1] * best / _BINS)


def _even(edges: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The same counts in _BINS bins of equal width from 0 to the largest value, spread evenly within each old bin."""
    ends = np.maximum(edges[:, 1], np.nextafter(edges[:, 0], np.inf))
    places = np.stack([edges[:, 0], ends], axis=1).reshape(-1)
    seen = np.cumsum(counts)
    below = np.stack([seen - counts, seen], axis=1).reshape(-1)
    grid = np.linspace(0.0, places[-1], _BINS + 1)
    return np.diff(np.interp(grid, places, below.astype(np.float64), left=0.0))


def _divergence(bins: np.ndarray, kind: str, kept: int) -> float:
    """KL(P ‖ Q): P the first `kept` bins with all beyond in the last of them, Q the same seen through codes that reach as far."""
    reference = bins[:kept].copy()
    reference[-1] += bins[kept:].sum()
    filled = bins[:kept] > 0
    level = _levels(kept, kind)
    sums = np.bincount(level, bins[:kept])
    shared = np.bincount(level, filled)
    coded = np.where(filled, (sums / np.maximum(shared, 1))[level], 0.0)
    seen = reference > 0
    if not coded.sum() or (coded[seen] == 0).any():
        return float("inf")
    p, q = reference[seen] / reference.sum(), coded[seen] / coded.sum()
    return float((p * np.log(p / q)).sum())


def _levels(kept: int, kind: str) -> np.ndarray:
    """The number of the code that each of `kept` bins falls to."""
    if kind == "fp8":
        reach = (np.arange(kept) + 0.5) * (TYPES[kind][0] / kept)
        return reach.astype(ml_dtypes.float8_e4m3fn).view(np.uint8).astype(np.int64)
    return np.arange(kept) * _LEAST_BINS // kept


_CHOICES: dict[str, Callable[[np.ndarray, np.ndarray, str], float]] = {
    "minmax": _minmax,
    "percentile": partial(_percentile, PERCENTILE / 100),
    "mse": _mse,
    "entropy": _entropy,
}
NAMES = tuple(_CHOICES)
