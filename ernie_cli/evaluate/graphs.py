"""How far the outputs of one graph model lie from another's, over a set of inputs. Language models are language.py's."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from typing import Any

import numpy as np

from .. import console
from ..errors import InputError, UsageError
from ..model import Model
from ..parity.pairing import pair, translated
from ..runtime.graphs import GraphSession, open_graph

Feeds = Mapping[str, np.ndarray]


class Gap:
    """Gathers the figures of one output, run by run: how runs are cut into batches makes no difference."""

    def __init__(self) -> None:
        self.signal = self.other = self.product = self.noise = self.max_abs = 0.0
        self.hits = self.rows = self.elements = self.not_finite = 0

    def add(self, want: np.ndarray, got: np.ndarray) -> None:
        """One run's arrays, of the same shape."""
        ref, new = want.astype(np.float64).ravel(), got.astype(np.float64).ravel()
        fine = np.isfinite(ref) & np.isfinite(new)
        self.not_finite += int((~fine & ~((ref == new) | (np.isnan(ref) & np.isnan(new)))).sum())
        self.elements += ref.size
        if want.ndim and want.shape[-1] > 1 and want.size:
            same = want.argmax(-1) == got.argmax(-1)
            self.hits, self.rows = self.hits + int(np.sum(same)), self.rows + same.size
        ref, new = np.where(fine, ref, 0.0), np.where(fine, new, 0.0)
        gap = ref - new
        self.signal += float(ref @ ref)
        self.other += float(new @ new)
        self.product += float(ref @ new)
        self.noise += float(gap @ gap)
        self.max_abs = max(self.max_abs, float(np.abs(gap).max(initial=0.0)))

    def as_dict(self) -> dict[str, Any]:
        """cosine. snr_db: None where equal. top1: share of equal argmax along the last axis, None where that is shorter than 2.
        max_abs: in the output's unit. not_finite: NaN and infinities on one side alone, which no other figure counts."""
        norm = math.sqrt(self.signal) * math.sqrt(self.other)
        return {
            "cosine": min(1.0, self.product / norm) if norm > 0 else float(self.noise == 0),
            "snr_db": 10 * math.log10(max(self.signal, 1e-300) / self.noise) if self.noise > 0 else None,
            "top1": self.hits / self.rows if self.rows else None,
            "max_abs": self.max_abs,
            "not_finite": self.not_finite,
            "elements": self.elements,
        }


def measure(reference: Model, candidate: Model, data: Iterable[Feeds]) -> dict[str, dict[str, Any]]:
    """Run both on every feed (arrays by the reference's input names): the reference's outputs by name → the figures of Gap.as_dict.

    Raises UsageError where inputs or outputs of the two do not belong together, InputError without a single feed.
    """
    with ExitStack() as stack:
        mine, theirs = (stack.enter_context(closing(open_graph(model))) for model in (reference, candidate))
        inputs, outputs = _paired(reference, mine, candidate, theirs)
        gaps = {name: Gap() for name in outputs}
        meter = stack.enter_context(console.progress("comparing", operator.length_hint(data, 0) or None, unit="samples"))
        runs = 0
        for feeds in data:
            runs += 1
            want, got = mine.run(feeds), theirs.run(translated(feeds, inputs, theirs.inputs, []))
            for name, other in outputs.items():
                if want[name].shape != got[other].shape:
                    gives, other_gives = (f"{list(array.shape)}" for array in (want[name], got[other]))
                    what = f"output `{name}`: {reference.path} gives {gives}, {candidate.path} gives {other_gives}"
                    raise UsageError(what, "compare two forms of the same model")
                gaps[name].add(want[name], got[other])
            meter.advance(1)
    if not runs:
        raise InputError("there is no data to measure on", "give --data with at least one sample")
    return {name: gap.as_dict() for name, gap in gaps.items()}


def _paired(reference: Model, mine: GraphSession, candidate: Model, theirs: GraphSession) -> tuple[dict[str, str], dict[str, str]]:
    found = []
    for what in ("input", "output"):
        own, others = ([spec.name for spec in getattr(each, f"{what}s")] for each in (mine, theirs))
        names = pair(what, own, others, [])
        if names is None:
            said = f"{reference.path} has the {what}s {', '.join(own[:6])}; {candidate.path} has {', '.join(others[:6])}"
            raise UsageError(said, "compare two forms of the same model")
        found.append(names)
    return found[0], found[1]
