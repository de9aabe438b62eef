"""How far apart outputs may be: by precision, or as the user says with --rtol and --atol. Measuring is metrics.py's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UsageError

if TYPE_CHECKING:
    from .metrics import Metrics


@dataclass(frozen=True)
class Limits:
    """max_rel: of the largest |difference| to the largest |reference|. slice_rel: the same within any one slice that stands out of
    the noise. snr_db: least ratio of signal to difference, so that a few large values cannot hide many small wrong ones.
    epsilon: the type's rounding step; noise: share of the largest |reference| that rounding may reach anywhere."""

    max_rel: float
    slice_rel: float
    snr_db: float
    epsilon: float
    noise: float

    def problems(self, found: Metrics) -> list[str]:
        """What of `found` lies outside, in words."""
        said = []
        if not found.max_rel <= self.max_rel:
            said.append(f"max_rel {found.max_rel:.3g} (must be <= {self.max_rel:g})")
        if not found.slice_rel <= self.slice_rel:
            said.append(f"max_rel {found.slice_rel:.3g} within {found.slice} (must be <= {self.slice_rel:g})")
        if found.snr_db is not None and not found.snr_db >= self.snr_db and found.max_rel > self.noise:
            said.append(f"SNR {found.snr_db:.1f} dB (must be >= {self.snr_db:g})")
        return said


#: float32: correct conversions of a hundred layers stay near 1e-5, one summed in another order near 1e-6; a wrong epsilon or
#: a dropped bias shows from 1e-4 on. Its noise: correct conversions of mobilenets with ReLU6 were seen to reach 3e-5. The 16-bit
#: figures are those of the decoders' check, see parity/__init__.py: about four times what correct conversions show. float64
#: differs by the order of sums alone, and by transcendental functions' last bits.
LIMITS: Mapping[str, Limits] = {
    "fp64": Limits(max_rel=1e-9, slice_rel=1e-6, snr_db=160.0, epsilon=2.0**-53, noise=2e-10),
    "fp32": Limits(max_rel=1e-4, slice_rel=1e-2, snr_db=60.0, epsilon=2.0**-24, noise=5e-5),
    "fp16": Limits(max_rel=3e-2, slice_rel=0.5, snr_db=26.0, epsilon=2.0**-11, noise=6e-3),
    "bf16": Limits(max_rel=1.5e-1, slice_rel=1.0, snr_db=13.0, epsilon=2.0**-8, noise=3e-2),
}
#: numpy's names → ours.
PRECISIONS = {"float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


@dataclass(frozen=True)
class Tolerance:
    """What the user allows an output: |difference| <= atol + rtol × |reference| for every element, as torch's assert_close.

    With rtol alone it is relative to the output's largest |reference|: near zero nothing else could pass.
    """

    rtol: float | None = None
    atol: float | None = None

    def problems(self, ref: np.ndarray, gap: np.ndarray, scale: float) -> list[str]:
        """What lies outside, in words. ref, gap: finite float64 arrays of one shape; scale: the largest |reference|."""
        rtol, atol = self.rtol or 0.0, self.atol or 0.0
        beyond = gap > rtol * scale if self.atol is None else gap > atol + rtol * np.abs(ref)
        share = float(beyond.mean())
        return [f"{share:.2%} of the elements lie beyond {self}"] if share else []

    def __str__(self) -> str:
        return " and ".join(f"{name} {value:g}" for name, value in (("rtol", self.rtol), ("atol", self.atol)) if value is not None)


def tolerances(rtol: Iterable[str], atol: Iterable[str], outputs: Sequence[str]) -> dict[str, Tolerance]:
    """--rtol and --atol, each "1e-3" for all outputs or "name=1e-3" for one → the outputs that have a tolerance of their own.

    Raises UsageError for what is no number >= 0 and for names that no output has.
    """
    relative, absolute = _parsed("--rtol", rtol, outputs), _parsed("--atol", atol, outputs)
    found = {name: Tolerance(relative.get(name, relative.get("")), absolute.get(name, absolute.get(""))) for name in outputs}
    return {name: tolerance for name, tolerance in found.items() if tolerance != Tolerance()}


def _parsed(option: str, given: Iterable[str], outputs: Sequence[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for text in given:
        name, _, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise UsageError(f"{option} {text}: `{number}` is no number from 0 up", f"{option} 1e-3, or {option} OUTPUT=1e-3")
        if name and name not in outputs:
            raise UsageError(f"{option} {text}: no output named `{name}`", f"the outputs are {', '.join(outputs)}")
        if name in found:
            raise UsageError(f"{option} is given twice for {name or 'all outputs'}", "leave one of them out")
        found[name] = value
    return found
