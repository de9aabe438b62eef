"""Sizes that say nothing: a picture so small that a pool's window is larger, or that pooling leaves no pixels of.

ONNX Runtime gives some value for such, torch and Paddle refuse them. The typical size is never excused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..model import Model
from ..runtime.graphs import open_graph
from .axes import Axis
from .cases import Case, Found
from .trace import trace


def excuse(source: Model, ran: Sequence[Case], found: Found, axes: Sequence[Axis], record: dict[str, Any]) -> Found:
    """`found` without the failing cases that prove nothing; those go from the record's `refused` to its notes, too.

    Such are cases in which the source has an empty value where the typical one has none, and small pictures that the target
    refuses though it takes pictures of other sizes and, at the typical size, everything else of that case.
    """
    refused = {each["case"] for each in record.get("refused", [])}
    if ran[0].label in refused or _fails(ran[0], found):
        return found
    taken = [case for case in ran if case.label not in refused and not _fails(case, found)]
    reasons = {case.label: _small(case, ran[0], taken, axes) for case in ran[1:] if case.label in refused}
    left = [case for case in ran[1:] if case not in taken and not reasons.get(case.label) and case.sizes != ran[0].sizes]
    reasons |= _empty_ones(source, ran[0], left) if left else {}
    excused = {label for label, reason in reasons.items() if reason}
    record["notes"] += [f"{label} says nothing: {reason}" for label, reason in reasons.items() if reason]
    if refused:
        record["refused"] = [each for each in record["refused"] if each["case"] not in excused]
    return {name: [(case, metrics) for case, metrics in each if case.label not in excused] for name, each in found.items()}


def _small(case: Case, usual: Case, taken: Iterable[Case], axes: Sequence[Axis]) -> str:
    """Why the target may refuse a case: its picture is small, and nothing else is new about it."""
    taken = list(taken)
    space = [axis.name for axis in axes if axis.kind == "space" and case.sizes[axis.name] < usual.sizes[axis.name]]
    others = [name for name in case.sizes if name not in space]
    free = all(any(other.sizes[name] != usual.sizes[name] for other in taken) for name in space)
    elsewhere = any(all(other.sizes[name] == case.sizes[name] for name in others) for other in taken)
    return "the target takes larger pictures of any size, this small one it refuses" if space and free and elsewhere else ""


def _empty_ones(source: Model, usual: Case, suspects: Sequence[Case]) -> dict[str, str]:
    """Case → the value that is empty in the source there, and not usually."""
    session = open_graph(source)
    try:
        known = _empty(session, usual)
        names = {case.label: min(_empty(session, case) - known, default="") for case in suspects}
    finally:
        session.close()
    return {label: f"`{name}` is empty in the source" for label, name in names.items() if name}


def _fails(case: Case, found: Found) -> bool:
    return any(at is case and not metrics.passed for measured in found.values() for at, metrics in measured)


def _empty(session: Any, case: Case) -> set[str]:
    marks = trace(session, case.feeds).marks.values()
    return {mark.name for mark in marks if mark.sketch is not None and mark.sketch.floats and not mark.sketch.size}
