"""Runs a source model at several sizes and with several numbers, and keeps what goes in and comes out.

A size that the source itself refuses is dropped with a note; what a target must make of the rest is graphs.py's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..console import Meter
from ..errors import InputError, UnsupportedError, UsageError
from ..runtime.graphs import GraphSession, TensorSpec
from . import axes as lengths
from .feeds import CAPS, draw, ids
from .metrics import Metrics

#: What a backend raises where inputs do not suit the model. All else is not the inputs' fault.
REFUSED = (UsageError, InputError, UnsupportedError)
#: Outputs that change by less, relative to their largest value, when all inputs change, say little about the model.
_CONSTANT = 1e-6
#: Further draws for such outputs: smaller and larger numbers wake dead activations and calm saturated ones.
_GAINS = (0.1, 10.0, 0.01)


@dataclass(frozen=True)
class Case:
    """One run of the source. label: "minimum", "typical", "batch=3", …; sizes: the dynamic axes' lengths."""

    label: str
    sizes: Mapping[str, int]
    feeds: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]

    def as_dict(self) -> dict[str, object]:
        """As records keep it."""
        return {"case": self.label, "sizes": dict(self.sizes), "shapes": {name: list(array.shape) for name, array in self.feeds.items()}}


#: Output → each case with how far the target was from the source in it.
Found = dict[str, list[tuple[Case, Metrics]]]


@dataclass
class Runner:
    """Draws inputs, runs the source, remembers what it took. rows: input → rows of the table it indexes."""

    session: GraphSession
    specs: tuple[TensorSpec, ...]
    rows: Mapping[str, int]
    notes: list[str]
    meter: Meter
    cap: int | None = None
    reason: str = ""
    cases: list[Case] = field(default_factory=list)

    def run(self, label: str, sizes: lengths.Sizes, *, seed: int = 0, gain: float = 1.0, caps: Iterable[int | None] | None = None) -> bool:
        """Try one size; True where the source took it."""
        for cap in (self.cap,) if caps is None else caps:
            feeds = draw(self.specs, sizes, seed=seed, rows=self.rows, cap=cap, gain=gain)
            try:
                outputs = self.session.run(feeds)
            except REFUSED as err:
                self.reason = err.message
                continue
            self.cap = cap
            self.cases.append(Case(label, dict(sizes), feeds, outputs))
            self.meter.advance(1, label)
            return True
        return False

    def first(self, label: str, candidates: Iterable[lengths.Sizes], seed: int = 0) -> bool:
        """Try sizes until the source takes one. Notes those it refused."""
        refused = []
        for sizes in candidates:
            if self.run(label, sizes, seed=seed):
                break
            refused.append(sizes)
        self.note_refused(refused)
        return bool(self.cases) and self.cases[-1].label == label

    def note_refused(self, refused: Sequence[lengths.Sizes]) -> None:
        """Write down what was dropped."""
        if refused:
            self.notes.append(f"the source refuses {'; '.join(map(lengths.said, refused))}")


def given(session: GraphSession, feeds: Mapping[str, np.ndarray]) -> tuple[list[Case], tuple[lengths.Axis, ...]]:
    """One case: the inputs that the user gave. What the source says of them is raised as it is."""
    return [Case("given", {}, feeds, session.run(feeds))], ()


def several(
    session: GraphSession, specs: Sequence[TensorSpec], rows: Mapping[str, int], notes: list[str], meter: Meter
) -> tuple[list[Case], tuple[lengths.Axis, ...]]:
    """Cases at a typical size, the smallest, one more per dynamic axis, and typical again with other numbers; and those axes.

    Raises UsageError where the source takes nothing of what was tried.
    """
    runner = Runner(session, tuple(specs), rows, notes, meter)
    axes = lengths.dynamic_axes(specs)
    if not _base(runner, axes):
        raise UsageError(
            f"the source takes none of the inputs that were tried; it says: {runner.reason}", "--inputs FILE.npz with inputs that it takes"
        )
    base = runner.cases[0].sizes
    runner.run("typical, other numbers", base, seed=1)
    runner.first("minimum", lengths.minimum(axes, base))
    if any(axis.kind == "space" for axis in axes):
        runner.run("batch of one", {**base, **{axis.name: 1 for axis in axes if axis.kind == "batch"}}, seed=4)
    for axis in axes[: lengths.MOST_AXES]:
        runner.first(f"another {axis.name}", lengths.odd(axis, axes, base), seed=2)
    if len(axes) > lengths.MOST_AXES:
        notes.append(f"{len(axes) - lengths.MOST_AXES} more dynamic axes were not tried alone")
    _wake(runner, base)
    return runner.cases, axes


def _base(runner: Runner, axes: Sequence[lengths.Axis]) -> bool:
    """Find lengths, and ids, that the source takes: lengths first, then smaller ids, for every pair."""
    caps: list[int | None] = [None, *CAPS[1:]] if any(map(ids, runner.specs)) else [None]
    tried: list[lengths.Sizes] = []
    for sizes in lengths.typical(axes):
        if sizes in tried:
            continue
        tried.append(sizes)
        if runner.run("typical", sizes, caps=caps):
            runner.note_refused(tried[:-1])
            if runner.cap is not None:
                runner.notes.append(f"integer inputs stay below {runner.cap}: the source refuses larger ones")
            return True
    return False


def _wake(runner: Runner, base: lengths.Sizes) -> None:
    """Draw other numbers while a float output hardly depends on them. A count that stays the same is no sign of sleep, and larger
    inputs would make ties of the scores it counts."""
    outputs = runner.cases[0].outputs
    for number, gain in enumerate(_GAINS):
        if not any(outputs[name].dtype.kind == "f" for name in _constant(runner.cases)):
            break
        runner.run(f"typical, inputs × {gain:g}", base, seed=3 + number, gain=gain)
    still = list(_constant(runner.cases))
    runner.notes += [f"output `{name}` hardly depends on the inputs: it is compared, but shows little" for name in still]


def _constant(cases: Sequence[Case]) -> Iterator[str]:
    """Outputs that are (nearly) the same in all runs of the base size."""
    same_size = [case for case in cases if case.sizes == cases[0].sizes]
    for name, first in same_size[0].outputs.items():
        wide = [np.nan_to_num(case.outputs[name].astype(np.float64)) for case in same_size if case.outputs[name].shape == first.shape]
        if first.size and len(wide) == len(same_size) > 1:
            spread = max(float(np.abs(other - wide[0]).max()) for other in wide[1:])
            if spread <= _CONSTANT * float(np.abs(wide[0]).max()):
                yield name
