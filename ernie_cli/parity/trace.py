"""What a model computes step by step, as sketches, and which steps of two models are the same. Accuses nobody: that is bisect.py's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..runtime.graphs import GraphSession
from .sketch import Sketch, distance, distances, permuted, same_values, sketch

#: Names mean something where both models know this share of the smaller one's, and nearly all of those are tensors of one size.
_KNOWN, _RELIABLE = 0.5, 0.9
#: Unrelated tensors are about 1.4 of their length apart.
NEAR = 0.5


@dataclass(frozen=True)
class Mark:
    """A step of a model without its value. sketch: None where it is no tensor."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    sketch: Sketch | None


@dataclass
class Trace:
    """The steps of a model in the order of computation. fixed: steps that follow from weights alone."""

    marks: dict[str, Mark]
    feeds: frozenset[str]
    fixed: frozenset[str] = field(default=frozenset())

    def weights(self, mark: Mark) -> list[str]:
        """Names of the weights that go into a step, straight or through steps that follow from weights alone."""
        found: list[str] = []
        pending = list(mark.inputs)
        while pending:
            name = pending.pop(0)
            if name in self.fixed and self.marks[name].inputs:
                pending += self.marks[name].inputs
            elif name in self.fixed or (name not in self.marks and name not in self.feeds):
                found.append(name)
        return list(dict.fromkeys(found))

    def weights_near(self, mark: Mark, count: int) -> list[str]:
        """Its weights; where those are fewer than `count`, those of the steps that read it, too: it may be half of a split step."""
        found = self.weights(mark)
        after = [other for other in self.marks.values() if mark.name in other.inputs] if len(found) < count else []
        return list(dict.fromkeys([*found, *(name for other in after for name in self.weights(other))]))

    def reads(self, mark: Mark) -> set[str]:
        """Names of the values, the model's inputs included, that go into a step."""
        return {name for name in mark.inputs if name in self.feeds or (name in self.marks and name not in self.fixed)}

    def values(self, mark: Mark) -> list[Mark]:
        """The steps whose values, not weights, go into a step."""
        return [self.marks[name] for name in mark.inputs if name in self.marks and name not in self.fixed]


def trace(session: GraphSession, feeds: Mapping[str, np.ndarray]) -> Trace:
    """Run a model and sketch every value. Holds one value at a time besides what the backend holds."""
    marks: dict[str, Mark] = {}
    fixed: set[str] = set()
    moving = set(feeds)
    for step in session.steps(feeds):
        numbers = step.value is not None and step.value.dtype.kind in "fiubV"
        marks[step.name] = Mark(step.name, step.operator, step.inputs, sketch(step.value) if numbers and step.value is not None else None)
        if moving.isdisjoint(step.inputs):
            fixed.add(step.name)
        else:
            moving.add(step.name)
    return Trace(marks, frozenset(feeds), frozenset(fixed))


@dataclass(frozen=True)
class Match:
    """What a source step is in the target. error: relative length of the difference, infinite where nothing is near.
    other: the target's step, None where there is none of that size. rearranged: its axes are in another order."""

    error: float
    other: Mark | None
    rearranged: bool = False


def match(source: Trace, target: Trace) -> dict[str, Match]:
    """For every source step with a value, the target's step nearest to it.

    Where names are reliable, two branches that have changed places are no match: each equals the other's namesake.
    """
    by_size: dict[int, list[Mark]] = {}
    for mark in target.marks.values():
        if mark.sketch is not None:
            by_size.setdefault(mark.sketch.size, []).append(mark)
    stacks = {size: np.stack([mark.sketch.projected for mark in marks if mark.sketch]) for size, marks in by_size.items()}
    found = {
        mark.name: _nearest(mark, by_size.get(mark.sketch.size, []), stacks.get(mark.sketch.size))
        for mark in source.marks.values()
        if mark.sketch is not None
    }
    return _untangled(found, source, target) if names_are_reliable(source, target) else _in_turn(found, source, target)


def _untangled(found: Mapping[str, Match], source: Trace, target: Trace) -> dict[str, Match]:
    """Steps whose match is another source step's namesake, while that one's match is yet another's, are not the same."""

    def elsewhere(name: str) -> str:
        other = found[name].other if name in found and found[name].error <= NEAR else None
        return other.name if other is not None and other.name != name and other.name in source.marks else ""

    wrong = [name for name in found if name in target.marks and elsewhere(name) and elsewhere(elsewhere(name))]
    changed = {}
    for name in wrong:
        own, there = source.marks[name].sketch, target.marks[name].sketch
        if own is not None and there is not None and own.size == there.size:
            changed[name] = Match(distance(own, there), target.marks[name])
    return {**found, **changed}


def _in_turn(found: Mapping[str, Match], source: Trace, target: Trace) -> dict[str, Match]:
    """Without names: where several steps of one kind read the same values (query, key, value), the target's must come in the same
    order. Those that do not have changed places. (Where a converter reorders for good, what follows is right, and nobody is blamed.)
    """
    places = {name: place for place, name in enumerate(target.marks)}
    groups: dict[Any, list[Mark]] = {}
    for mark in source.marks.values():
        if mark.name in found and mark.sketch is not None and mark.sketch.telling and mark.name not in source.fixed:
            groups.setdefault((frozenset(source.reads(mark)), mark.operator, mark.sketch.size), []).append(mark)
    changed = {}
    for group in groups.values():
        others = [found[mark.name].other for mark in group if found[mark.name].error <= NEAR]
        matched = [other for other in others if other is not None]
        if len(group) < 2 or len({other.name for other in matched}) < len(group):
            continue
        for mark, other, due in zip(group, matched, sorted(matched, key=lambda each: places[each.name]), strict=True):
            if other is not due and mark.sketch is not None and due.sketch is not None:
                changed[mark.name] = Match(distance(mark.sketch, due.sketch), due)
    return {**found, **changed}


def names_are_reliable(source: Trace, target: Trace) -> bool:
    common = [(source.marks[name].sketch, target.marks[name].sketch) for name in source.marks if name in target.marks]
    sizes = [a.size == b.size for a, b in common if a is not None and b is not None]
    return len(common) >= _KNOWN * min(len(source.marks), len(target.marks)) and sum(sizes) >= _RELIABLE * len(sizes)


def _nearest(mark: Mark, others: Sequence[Mark], stack: np.ndarray | None) -> Match:
    """The nearest value; of equally near ones the namesake. Where nothing is near, the namesake, if there is one."""
    best = named = Match(float("inf"), None)
    if mark.sketch is None or stack is None:
        return best
    for other, gap in zip(others, distances(mark.sketch, stack), strict=True):
        if other.sketch is None or (other.sketch.nans, other.sketch.infs) != (mark.sketch.nans, mark.sketch.infs):
            continue
        best = Match(gap, other) if gap < best.error else best
        named = Match(gap, other) if other.name == mark.name else named
    return named if named.other is not None and (best.error > NEAR or named.error <= 2 * best.error) else best


def rearranged(
    session: GraphSession, feeds: Mapping[str, np.ndarray], found: dict[str, Match], source: Trace, target: Trace, within: float
) -> None:
    """Find those of the source's unmatched values that the target has with its axes in another order. Changes `found`.

    A value of the very same shape, or of the same name, is no such: its axes were mixed up. Runs the source again where
    statistics let it hope.
    """
    hopes = _same_values_elsewhere(found, source, target, within)
    for step in session.steps(feeds) if hopes else ():
        for other in hopes.get(step.name, ()) if step.value is not None else ():
            own, there = np.asarray(step.value), other.sketch
            if there is None:
                continue
            gap = min((distance(each, there) for each in permuted(own, there.shape)), default=float("inf"))
            if gap <= min(within, found[step.name].error):
                found[step.name] = Match(gap, other, rearranged=True)


def _same_values_elsewhere(found: Mapping[str, Match], source: Trace, target: Trace, within: float) -> dict[str, list[Mark]]:
    """Unmatched source step → the target's steps that may hold its values in another shape."""
    reliable = names_are_reliable(source, target)
    hopes: dict[str, list[Mark]] = {}
    for mark in source.marks.values():
        own = mark.sketch
        if own is None or not own.telling or found[mark.name].error <= within or (reliable and mark.name in target.marks):
            continue
        for other in target.marks.values():
            if other.sketch is not None and other.sketch.shape != own.shape and same_values(own, other.sketch, within):
                hopes.setdefault(mark.name, []).append(other)
    return hopes


def partner(source: Trace, target: Trace, found: Mapping[str, Match], inputs: Mapping[str, str], mark: Mark) -> Mark | None:
    """The target's step in the place of a source step that it has nowhere: the namesake, else the one that reads the same values.

    inputs: the models' inputs, source → target. Where several steps read the same, the one in the same turn, if there are as many.
    """
    if mark.name in target.marks:
        return target.marks[mark.name]
    if found[mark.name].other is not None and found[mark.name].error <= NEAR:
        return found[mark.name].other
    siblings = [other.name for other in source.marks.values() if source.reads(other) == source.reads(mark)]
    near = {name: match.other.name for name, match in found.items() if match.other is not None and match.error <= NEAR}
    others = {inputs.get(name) or near.get(name, "") for name in source.reads(mark)}
    readers = [other for other in target.marks.values() if others and target.reads(other) == others]
    return readers[siblings.index(mark.name)] if len(readers) == len(siblings) else None
