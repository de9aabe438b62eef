"""Two arrays that should be the same → how far they are apart, and what of it is more than rounding. Knows no models.

What is compared with what, and on which inputs, is graphs.py's business.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from .tolerance import LIMITS, Limits, Tolerance

#: An error counts as one slice's own when it is this many times the median error: of a normal distribution's draws, one in 10^100.
STANDS_OUT = 32.0
#: Larger values that repeat are masks ("minus infinity"), not signal: they would make every error small beside them.
_MASK = 1e4


@dataclass(frozen=True)
class Metrics:
    """How far `got` is from `want`. Absolute figures are in the output's own unit.

    max_rel: largest |difference| over largest |reference|. slice_rel: the same within the worst slice along any axis but the
    first, where it stands out of the noise; 0 elsewhere. slice: that slice. snr_db: reference over difference, None where
    equal. top1: share of equal argmax along the last axis, None where that is shorter than 2. equal: share of equal elements.
    nans, infs: how many the reference has. problems: what is more than rounding, in words; empty: passed.
    """

    shape: tuple[int, ...]
    dtype: str
    max_abs: float = 0.0
    max_rel: float = 0.0
    mean_abs: float = 0.0
    cosine: float = 1.0
    snr_db: float | None = None
    slice_rel: float = 0.0
    slice: str = ""
    top1: float | None = None
    equal: float = 1.0
    nans: int = 0
    infs: int = 0
    problems: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """As records keep it."""
        return {**asdict(self), "shape": list(self.shape), "problems": list(self.problems)}


def compare(want: np.ndarray, got: np.ndarray, *, precision: str = "fp32", tolerance: Tolerance | None = None) -> Metrics:
    """Compare two arrays of any type.

    Shapes must be equal. Integers and booleans must be equal, indices of near-ties (argmax, top-k, NMS) too, unless `tolerance`
    says otherwise. Floats must lie within LIMITS[precision], or within `tolerance` where one is given. NaN and infinities must
    be where the reference has them.
    """
    want, got = np.asarray(want), np.asarray(got)
    if want.shape != got.shape:
        return Metrics(
            want.shape, want.dtype.name, equal=0.0, problems=(f"shape {list(got.shape)} where the source has {list(want.shape)}",)
        )
    if want.dtype.kind == "c":
        want, got = _parts(want), _parts(got)
    if not want.size:
        return Metrics(want.shape, want.dtype.name)
    exact = want.dtype.kind in "biu" and got.dtype.kind in "biu"
    return _figures(want, got, None if exact else LIMITS[precision], tolerance)


def _figures(want: np.ndarray, got: np.ndarray, limits: Limits | None, tolerance: Tolerance | None) -> Metrics:
    ref, new = _wide(want), _wide(got)
    with np.errstate(invalid="ignore"):
        same = want == got if limits is None else (ref == new) | (np.isnan(ref) & np.isnan(new))
    fine = np.isfinite(ref) & np.isfinite(new)
    finite_ref, finite_new = np.where(fine, ref, 0.0), np.where(fine, new, 0.0)
    gap = np.abs(finite_ref - finite_new)
    found = Metrics(
        want.shape,
        want.dtype.name,
        max_abs=float(gap.max()),
        mean_abs=float(gap.mean()),
        top1=float((finite_ref.argmax(-1) == finite_new.argmax(-1)).mean()) if want.ndim and want.shape[-1] > 1 else None,
        equal=float(np.mean(same)),
        nans=int(np.isnan(ref).sum()),
        infs=int(np.isinf(ref).sum()),
    )
    found = _relative(found, finite_ref, finite_new, gap, limits)
    problems = _strange(ref, new)
    if tolerance is not None:
        problems += tolerance.problems(finite_ref, gap, _scale(finite_ref))
    elif limits is None:
        problems += [f"{1 - found.equal:.2%} of the elements differ (integers must be equal)"] if found.equal < 1 else []
    else:
        problems += limits.problems(found)
    return replace(found, problems=tuple(problems))


def _relative(found: Metrics, ref: np.ndarray, new: np.ndarray, gap: np.ndarray, limits: Limits | None) -> Metrics:
    """The figures that are relative to the signal. A mask's error counts against the mask alone."""
    masks = _masks(ref)
    own = float(np.where(masks, gap / np.maximum(np.abs(ref), 1.0), 0.0).max())
    ref, new, gap = (np.where(masks, 0.0, each) for each in (ref, new, gap))
    scale = _scale(ref)
    signal, noise = (math.sqrt(float((each * each).sum())) for each in (ref, gap))
    worst, where = _worst_slice(ref, gap, scale, limits) if limits is not None else (0.0, "")
    return replace(
        found,
        max_rel=max(float(gap.max()) / scale, own),
        cosine=_cosine(ref, new),
        snr_db=20 * math.log10(max(signal, 1e-300) / noise) if noise > 0 else None,
        slice_rel=worst,
        slice=where,
    )


def _parts(array: np.ndarray) -> np.ndarray:
    return np.stack([array.real, array.imag], -1)


def _wide(array: np.ndarray) -> np.ndarray:
    """As float64. Integers beyond 2^53 lose their last bits here, but not where `equal` is counted."""
    result: np.ndarray = array.astype(np.float64)
    return result


def _strange(ref: np.ndarray, new: np.ndarray) -> list[str]:
    """NaN and infinities that are not where they should be."""
    said = []
    if count := int((np.isnan(new) & ~np.isnan(ref)).sum()):
        said.append(f"{count} NaN where the source has none")
    if count := int((np.isnan(ref) & ~np.isnan(new)).sum()):
        said.append(f"{count} numbers where the source has NaN")
    infinite = np.isinf(ref) | np.isinf(new)
    if count := int((infinite & (ref != new) & ~np.isnan(ref) & ~np.isnan(new)).sum()):
        said.append(f"{count} infinite values where the source has others")
    return said


def _masks(ref: np.ndarray) -> np.ndarray:
    """Which elements are fillers like -1e9 or the lowest float: far above the rest, and there more than once."""
    size = np.abs(ref)
    top = float(size.max())
    rest = size[size <= top / 2]
    if top < _MASK or not rest.size or top < _MASK * float(rest.max()) or int((size == top).sum()) < 2:
        return np.zeros(ref.shape, bool)
    return size > top / 2


def _scale(ref: np.ndarray) -> float:
    """The largest |reference|. Where all of it is zero, 0.001: then 1e-7 is rounding for float32."""
    return float(np.abs(ref).max()) or 1e-3


def _cosine(ref: np.ndarray, new: np.ndarray) -> float:
    scale = max(float(np.abs(ref).max()), float(np.abs(new).max())) or 1.0
    a, b = ref.ravel() / scale, new.ravel() / scale
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms > 0 else float(np.array_equal(a, b))


def _worst_slice(ref: np.ndarray, gap: np.ndarray, scale: float, limits: Limits) -> tuple[float, str]:
    """The largest |difference| of a slice over its own largest |reference|, and which slice.

    A column a thousand times smaller than the others hides a missing bias from every figure of the whole. Rounding does not
    shrink with the column where it comes from sums of large numbers, so errors count only where they stand out of the
    median error (what is left of the rounding of this very comparison), and above a share of the limit for the whole.
    """
    nonzero = gap[gap > 0]
    if ref.ndim < 2 or not nonzero.size:
        return 0.0, ""
    floor = min(STANDS_OUT * float(np.median(nonzero)), limits.noise * scale)
    floor = max(floor, 8 * limits.epsilon * scale)
    worst, where = 0.0, ""
    for axis in range(1, ref.ndim):
        others = tuple(other for other in range(ref.ndim) if other != axis)
        errors, sizes = gap.max(others), np.abs(ref).max(others)
        ratios = np.where(errors > floor, errors / np.maximum(sizes, floor), 0.0)
        index = int(ratios.argmax())
        if ratios[index] > worst:
            worst, where = float(ratios[index]), f"index {index} of axis {axis}"
    return worst, where
