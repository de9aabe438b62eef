"""`--max-drop 1%`: puts the most harmful layers back to float until no more than that is lost. How a model is built and measured,
and how harm is ranked, is the caller's knowledge.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import console
from ..errors import QualityError, UsageError
from ..model import Model

Build = Callable[[frozenset[str]], Model]
Measure = Callable[[Model], float]


@dataclass(frozen=True)
class Metric:
    """language, graphs: which models have it. drop(baseline, value): how much was lost, 0.01 for 1 %; negative: gained.

    says: what 1 % of it means.
    """

    says: str
    drop: Callable[[float, float], float]
    higher_is_better: bool
    language: bool = True
    graphs: bool = False


def _points_lost(baseline: float, value: float) -> float:
    return baseline - value


#: What `--metric` takes. Shares (top1, cosine, exact-match) are counted in points: from 0.97 to 0.96 is 1 %.
METRICS: Mapping[str, Metric] = {
    "perplexity": Metric("perplexity grows by that share of the float model's", lambda baseline, value: value / baseline - 1, False),
    "top1": Metric("so many points fewer of the largest outputs agree with the float model's", _points_lost, True, graphs=True),
    "cosine": Metric("the worst output's cosine to the float model's falls by 0.01", _points_lost, True, language=False, graphs=True),
    "exact-match": Metric("so many points fewer answers are right", _points_lost, True),
    "kl": Metric("the mean divergence from the float model is 0.01 nats", lambda baseline, value: value - baseline, False),
}
_DEFAULTS = {True: "perplexity", False: "cosine"}
#: Subtracting two figures leaves as much behind.
_ROUNDING = 1e-9
_NUMBER = re.compile(r"(\d{1,9}(?:\.\d{0,12})?|\.\d{1,12})(?:e-?\d{1,2})?")


def parse_drop(text: str) -> float:
    """ "1%" or "0.01" → 0.01. Raises UsageError for anything that is no share from 0 to 100 %."""
    said = text.strip()
    percent = said.endswith("%")
    number = said.removesuffix("%").strip()
    if not said.isascii() or not _NUMBER.fullmatch(number):
        raise UsageError(f"--max-drop {console.printable(text)[:40]}: a share expected", "--max-drop 1%, or --max-drop 0.01")
    share = float(number) / (100 if percent else 1)
    if share >= 1 and not percent:  # who writes 1 hardly means that all may be lost
        raise UsageError(f"--max-drop {said} is {share:.0%}", f"did you mean --max-drop {number}%?")
    if share > 1:
        raise UsageError(f"--max-drop {said} is more than there is to lose", "--max-drop 1%")
    return share


def choose(name: str, *, language: bool) -> str:
    """The metric that `--metric` names, "auto" made definite. language: whether the model is a decoder that speaks.

    Raises UsageError for one that nobody knows, or that such a model does not have.
    """
    if name == "auto":
        return _DEFAULTS[language]
    fitting = [each for each, metric in METRICS.items() if (metric.language if language else metric.graphs)]
    if name in fitting:
        return name
    near = difflib.get_close_matches(name, fitting, 1)
    hint = f"did you mean --metric {near[0]}?" if near else f"there are {', '.join(fitting)}"
    kind = "a language model" if language else "a model that is no language model"
    raise UsageError(f"--metric {name}: " + (f"{kind} has none" if name in METRICS else "nobody knows it"), hint)


@dataclass(frozen=True)
class Fitted:
    """model: the last that was built, and the one kept. reverted: layers that stay in float, worst first.

    value: its metric as measured; drop: what that loses of the baseline. tried: (layers reverted, drop) of every measurement.
    """

    model: Model
    reverted: tuple[str, ...]
    metric: str
    baseline: float
    value: float
    drop: float
    max_drop: float
    tried: tuple[tuple[int, float], ...]

    def as_dict(self) -> dict[str, Any]:
        """As the record keeps it."""
        return {
            "metric": self.metric, "baseline": self.baseline, "value": self.value, "drop": self.drop, "max_drop": self.max_drop,
            "reverted": list(self.reverted), "tried": [{"reverted": count, "drop": drop} for count, drop in self.tried],
        }  # fmt: skip


def fit(
    build: Build,
    measure: Measure,
    baseline: float,
    damage: Sequence[str] | Callable[[], Sequence[str]],
    max_drop: float,
    *,
    metric: str = "perplexity",
    first: Model | None = None,
) -> Fitted:
    """Revert as few of the worst layers as it takes.

    build(reverted) → the model with those layers in float; it may overwrite what it built before: only the last one is kept.
    measure(model) → the metric's value, baseline: the float model's. damage: all layers' names, worst first, or a function that finds
    them out, called when something must be reverted, while the model with nothing reverted stands. first: that model, if it is built.
    The fewest are found by doubling and bisection, then that model is built and measured again unless it was the last; where it
    does not fit after all, further layers are reverted one by one. Raises QualityError (exit 6) where no layer could stay quantised.
    """
    if not 0 <= max_drop <= 1 or not math.isfinite(baseline):
        raise UsageError(f"a drop of {max_drop:.3g} from {baseline:.6g} cannot be measured", "--max-drop 1%")
    search = _Search(build, measure, baseline, damage, max_drop, metric, first)
    with console.progress("fitting the budget", None) as meter:
        search.meter = meter
        return search.run()


class _Search:
    """One search. Prefixes of `damage` are named by their length."""

    def __init__(
        self, build: Build, measure: Measure, baseline: float, damage: Any, max_drop: float, metric: str, first: Model | None
    ) -> None:
        self.build, self.measure, self.baseline, self.max_drop, self.metric = build, measure, baseline, max_drop, metric
        self.damage: tuple[str, ...] = () if callable(damage) else tuple(dict.fromkeys(damage))
        self.find = damage if callable(damage) else None
        self.first = first
        self.meter = console.Meter(None)
        self.tried: list[tuple[int, float]] = []

    def run(self) -> Fitted:
        count = self._fewest()
        if self.tried[-1][0] != count:  # another was built since: this one must stand on a measurement of its own
            while not self._fits(count):
                count = self._allowed(count + 1)
        return Fitted(
            self.model, self.damage[:count], self.metric, self.baseline, self.value, self.tried[-1][1], self.max_drop, tuple(self.tried)
        )

    def _fewest(self) -> int:
        """The end of a doubling that fits, brought down by bisection: it fitted when it was measured, the one before did not."""
        if self._fits(0):
            return 0
        if self.find is not None:
            self.damage = tuple(dict.fromkeys(self.find()))
        below, count, most = 0, self._allowed(1), len(self.damage)
        while count < most and not self._fits(count):
            below, count = count, min(2 * count, most)
        while count - below > 1:
            middle = (below + count) // 2
            below, count = (below, middle) if self._fits(middle) else (middle, count)
        return self._allowed(count)

    def _allowed(self, count: int) -> int:
        """`count`, where that leaves a layer quantised. Raises QualityError where it leaves none."""
        if count < len(self.damage):
            return count
        reverted, drop = max(self.tried)
        lost = f"{percent(drop)} of {self.metric} is lost" + (f" with {reverted} of {len(self.damage)} layers in float" if reverted else "")
        raise QualityError(f"--max-drop {percent(self.max_drop)} cannot be met: {lost}", self._hint())

    def _hint(self) -> str:
        drop = self.tried[0][1]
        keep = f"; --max-drop {percent(1.05 * drop)} keeps every layer as it is" if drop < 0.95 else ""
        return f"better calibration data (--data), or a wider scheme (--to int8-weight){keep}"

    def _fits(self, count: int) -> bool:
        self.model = self.first if self.first is not None else self.build(frozenset(self.damage[:count]))
        self.first = None
        self.value = self.measure(self.model)
        drop = METRICS[self.metric].drop(self.baseline, self.value) if math.isfinite(self.value) else math.inf
        self.tried.append((count, drop))
        fine = drop <= self.max_drop + _ROUNDING
        said = f"{self.metric} {self.value:.6g} ({percent(drop)} lost) with {count} layer{'s' * (count != 1)} in float"
        self.meter.advance(1, said)
        console.detail(f"{said}: {'fits' if fine else 'too much'}")
        return fine


def percent(share: float) -> str:
    """0.0123 → "1.23%"; small shares keep three digits."""
    return f"{100 * share:.3g}%"
