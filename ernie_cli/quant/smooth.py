"""SmoothQuant: what makes activations hard to quantise, a few channels much larger than the rest, is moved into the weights.

Xiao et al. 2022, arXiv 2211.10438: channel j of an activation is divided by max|X_j|^alpha / max|W_j|^(1-alpha). Which activations
can be divided, and how, is fold.py's matter; what flows through the graph calibrate/collect.py's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from .. import console
from ..model import Model
from .calibrate.collect import collect
from .calibrate.observers import rounded
from .codes import round_to_nearest
from .fold import Group, fold, groups
from .layers import Layer
from .scheme import TYPES, WeightFormat

#: What "auto" chooses from, beside leaving an activation as it is.
ALPHAS = tuple(round(0.1 * step, 1) for step in range(1, 11))
#: "auto" tries each alpha on this many rows of an activation and output columns of a layer.
ROWS, COLUMNS = 1024, 512
#: Elements of a row sample at most, but LEAST_ROWS in any case: statistics of all layers shall fit memory at once.
MOST_ELEMENTS, LEAST_ROWS = 1 << 19, 128
#: The last rows, this share of them, are what an alpha is judged on.
NEW = 0.25
#: "auto" leaves an activation alone unless the error falls below this share of what it was: less is chance.
WORTH = 0.98
#: Channels and weights count as this share of the largest at least: a channel below it would lose nothing worth a wild factor.
FLOOR = 1e-2


class ChannelPeaks:
    """A Statistic: max |x| of each channel, which is the last axis."""

    def __init__(self, channels: int) -> None:
        self.peaks = np.zeros(channels, np.float32)

    @property
    def nbytes(self) -> int:
        return self.peaks.nbytes

    def add(self, value: np.ndarray) -> None:
        rows = value.reshape(-1, len(self.peaks))
        if len(rows):
            np.maximum(self.peaks, np.maximum(rows.max(axis=0), -rows.min(axis=0)), out=self.peaks)


class RowSample(ChannelPeaks):
    """Channel peaks, and rows drawn evenly from all there were: which ones does not depend on how they come in batches."""

    def __init__(self, channels: int, count: int = ROWS, seed: int = 0) -> None:
        super().__init__(channels)
        self._draw = np.random.default_rng(seed)
        self._kept = np.zeros((count, channels), np.float32)
        self._keys, self._places, self._seen = np.ones(count), np.full(count, -1), 0

    @property
    def nbytes(self) -> int:
        return super().nbytes + self._kept.nbytes + self._keys.nbytes + self._places.nbytes

    @property
    def rows(self) -> np.ndarray:
        """float32 [at most count, channels], in the order in which they came."""
        order = np.argsort(self._places, kind="stable")
        return np.asarray(self._kept[order[np.sum(self._places < 0) :]])

    def add(self, value: np.ndarray) -> None:
        """Every row gets a random number below 1; those with the smallest stay, each in a slot of its own."""
        super().add(value)
        rows = value.reshape(-1, self._kept.shape[1])
        keys = np.concatenate([self._keys, self._draw.random(len(rows))])
        count = len(self._keys)
        stays = np.zeros(len(keys), bool)
        stays[np.argpartition(keys, count - 1)[:count]] = True
        free, new = np.flatnonzero(~stays[:count]), np.flatnonzero(stays[count:])
        self._kept[free], self._keys[free], self._places[free] = rows[new], keys[count + new], self._seen + new
        self._seen += len(rows)


def statistic(group: Group, alpha: float | str) -> ChannelPeaks:
    """What must be seen of a group's value before `smooth` with that alpha."""
    rows = min(ROWS, max(LEAST_ROWS, MOST_ELEMENTS // group.channels))
    return RowSample(group.channels, rows) if alpha == "auto" else ChannelPeaks(group.channels)


def apply(
    model: Model, graph: ir.Model, layers: Sequence[Layer], data: Iterable[Mapping[str, np.ndarray]], alpha: float | str, **how: Any
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Measure `model` on `data` and smooth the activations of `layers` in `graph`, which is the same model. See `smooth`."""
    found = groups(graph, layers, tied=True)
    seen = {group.name: statistic(group, alpha) for group in found}
    collect(model, seen, data, title="finding outliers")
    return smooth(found, seen, alpha, **how)


def smooth(
    found: Sequence[Group], seen: Mapping[str, ChannelPeaks], alpha: float | str, *, form: WeightFormat, kind: str
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Fold factors into every group of which `seen` (by the value's name) has a statistic.

    alpha: 0 to 1, or "auto": of ALPHAS the one with the least error at the layers' outputs, activations quantised to `kind` with
    one scale, weights to `form`; none where that is hardly better. Returns a record for each group,
    {"value", "layers", "alpha", "spread" (largest factor / smallest)}, with "auto" also "sqnr_db": [before, after]; and what each
    value of the graph is divided by now (see fold.fold).
    """
    records, divided = [], dict[str, np.ndarray]()
    with console.progress("smoothing", len(found), unit="activations") as meter:
        for group in found:
            if group.name in seen:
                record, factor = _chosen(_Trial(group, seen[group.name], form, kind), alpha)
                records.append({"value": group.name, "layers": [layer.name for layer in group.layers], **record})
                for name, each in fold(group, factor).items() if factor is not None else ():
                    divided[name] = divided[name] * each if name in divided else each
            meter.advance(1, group.name)
    return records, divided


def factors(group: Group, peaks: np.ndarray, of_weights: np.ndarray, alpha: float) -> np.ndarray:
    """SmoothQuant's factors [channels] > 0 from both sides' peaks, tied channels alike. Their middle is 1, so that neither side
    leaves its type's range."""
    one, other = (_alive(group.largest(each.astype(np.float64))) for each in (peaks, of_weights))
    raw = one**alpha / other ** (1 - alpha)
    return np.asarray(raw / np.sqrt(raw.max() * raw.min()))


def _alive(peaks: np.ndarray) -> np.ndarray:
    largest = float(peaks.max(initial=0.0))
    return np.maximum(peaks, FLOOR * largest) if largest > 0 else np.ones_like(peaks)


def _row_peaks(weight: np.ndarray) -> np.ndarray:
    """max |w| of each row of [K, N], a few rows at a time: heads are large."""
    step = max(1, (1 << 22) // max(1, weight.shape[1]))
    parts = (weight[start : start + step] for start in range(0, len(weight), step))
    return np.concatenate([np.maximum(part.max(axis=1), -part.min(axis=1)).astype(np.float32) for part in parts])


def _chosen(trial: _Trial, alpha: float | str) -> tuple[dict[str, Any], np.ndarray | None]:
    """A group's record, and its factors unless it is left alone."""
    record: dict[str, Any] = {}
    if not np.isfinite(trial.seen.peaks).all():  # who measures scales will say so
        return {"alpha": None, "spread": 1.0}, None
    if alpha == "auto":
        before = trial.error(None)
        errors = {each: trial.error(each) for each in ALPHAS}
        best = min(errors, key=lambda each: errors[each])
        if errors[best] >= WORTH * before:
            return {"alpha": None, "spread": 1.0, "sqnr_db": [_decibel(before)] * 2}, None
        alpha, record = best, {"sqnr_db": [_decibel(before), _decibel(errors[best])]}
    found = trial.factors(float(alpha))
    return {"alpha": float(alpha), "spread": float(f"{found.max() / found.min():.4g}"), **record}, found


class _Trial:
    """One group's layers on sampled rows, as they will be computed: what an alpha costs. Weights are read once.

    Ranges are taken from the first rows and the error from the last: a large alpha makes every channel fill the range that was
    seen, and what it loses on values that were not seen would not show otherwise.
    """

    def __init__(self, group: Group, seen: ChannelPeaks, form: WeightFormat, kind: str) -> None:
        self.group, self.seen, self.form, self.kind = group, seen, form, kind
        weights = [layer.read() for layer in group.layers]
        self.row_peaks = np.max([_row_peaks(weight) for weight in weights], axis=0)
        if isinstance(seen, RowSample):
            rows = seen.rows
            new = max(1, round(len(rows) * NEW))
            self.rows, self.peaks = rows[-new:], np.abs(rows[:-new] if len(rows) > 1 else rows).max(axis=0, initial=0.0)
            self.parts = [weight[:, :: -(-weight.shape[1] // COLUMNS)].astype(np.float32) for weight in weights]
            self.exact = [self.rows @ part for part in self.parts]

    def factors(self, alpha: float) -> np.ndarray:
        """From all that was seen."""
        return factors(self.group, self.seen.peaks, self.row_peaks, alpha)

    def error(self, alpha: float | None) -> float:
        """The layers' squared error relative to their outputs, on average, with both sides quantised. None: nothing is folded."""
        found = np.ones(self.group.channels) if alpha is None else factors(self.group, self.peaks, self.row_peaks, alpha)
        factor = found.astype(np.float32)
        scale = max(float((self.peaks / factor).max()), 1e-30) / TYPES[self.kind][0]
        rows = self.rows / factor
        rows = np.copysign(rounded(np.abs(rows) / scale, self.kind) * scale, rows).astype(np.float32)
        errors = []
        for part, exact in zip(self.parts, self.exact, strict=True):
            weight = round_to_nearest(part * factor[:, None], self.form, 1, 0).dequantized()
            size = float(np.square(exact).sum())
            errors.append(float(np.square(rows @ weight - exact).sum()) / size if size > 0 else 0.0)
        return float(np.mean(errors))


def _decibel(error: float) -> float:
    return round(-10 * float(np.log10(max(error, 1e-20))), 2)
