"""The first tensor that differs between two models of any formats, and what is wrong with the weights that made it.

Converters fuse, split and rename steps, so steps are matched by value (trace.py). The culprit is the first source step
that the target has nowhere, that nothing after it redeems, and whose own inputs are all right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import console
from ..errors import ErnieError
from ..model import Model
from ..runtime.graphs import open_graph
from . import pairing
from .cases import Case
from .tolerance import LIMITS
from .trace import NEAR, Mark, Match, Trace, match, partner, rearranged, trace
from .weights import verdicts

#: Shares of the limit at which steps are called different, finest first: an error may be small where it begins.
_SHARES = (0.03, 0.1, 0.3, 1.0, 10.0)
#: A step is to blame where its error is this many times its inputs'; less is rounding that adds up. A value after it that is
#: right within as many times the bound shows that the step was only fused.
_JUMP = 10.0


def find(source: Model, made: Model, case: Case, paired: Mapping[str, Any], failing: Sequence[str], precision: str) -> dict[str, Any]:
    """Run both on the failing inputs and name the first tensor that differs.

    Returns {"tensor", "operator", "inputs", "weights", "error", "source", "target_tensor", "target", "findings"}, or {"unknown": why}:
    whatever goes wrong here must not hide the failure that is being looked into.
    """
    try:
        return _find(source, made, case, paired, failing, precision)
    except ErnieError as err:
        return {"unknown": err.message}
    except Exception as err:  # noqa: BLE001 — a bug here must not hide the failure that is being looked into
        console.detail(f"bisecting failed: {type(err).__name__}: {err}")
        return {"unknown": f"{type(err).__name__}: {err}"}


def said(found: Mapping[str, Any]) -> str:
    """A finding in one line."""
    if "unknown" in found:
        return f"the first tensor that differs could not be found: {found['unknown']}"
    weights = f" of {', '.join(f'`{name}`' for name in found['weights'][:4])}" if found["weights"] else ""
    line = f"the first tensor that differs is `{found['tensor']}` ({found['operator']}{weights}): source {_numbers(found['source'])}"
    line += f", target {_numbers(found['target'])}" if found["target"] else ", the target has nothing like it"
    return "; ".join([line, *found["findings"]])


def _numbers(stats: Mapping[str, Any]) -> str:
    text = " ".join(f"{name} {stats[name]:.4g}" for name in ("min", "mean", "max", "std"))
    return text + "".join(f" {stats[name]} {label}" for name, label in (("nans", "NaN"), ("infs", "inf")) if stats[name])


def _find(source: Model, made: Model, case: Case, paired: Mapping[str, Any], failing: Sequence[str], precision: str) -> dict[str, Any]:
    limit = LIMITS[precision].max_rel
    session = open_graph(made)
    try:
        theirs = trace(session, pairing.translated(case.feeds, paired["inputs"], session.inputs, []))
    finally:
        session.close()
    session = open_graph(source)
    try:
        mine = trace(session, case.feeds)
        if not mine.marks:
            return {"unknown": "the source's backend shows no values in between"}
        if not theirs.marks:
            return {"unknown": "the target's backend shows no values in between"}
        found = match(mine, theirs)
        rearranged(session, case.feeds, found, mine, theirs, limit)
    finally:
        session.close()
    guilty = culprit(mine, found, failing, limit)
    if guilty is None:
        return {"unknown": "every value in between is the same; only the outputs differ"}
    return _report(source, made, mine, theirs, guilty, found, paired["inputs"])


def culprit(mine: Trace, found: Mapping[str, Match], failing: Sequence[str], limit: float) -> Mark | None:
    """The source step to blame; `failing`: the source's outputs that differ, whose past alone is looked at."""
    past = _past(mine, failing)
    following: dict[str, list[str]] = {}
    for mark in mine.marks.values():
        for name in dict.fromkeys(mark.inputs):
            following.setdefault(name, []).append(mark.name)
    last: Mark | None = None
    for share in _SHARES:
        bound = share * limit
        for floats in (True, False):  # integers in between are mostly shapes, which the target may have folded
            last = _first(mine, found, past, following, bound, floats)
            if last is not None and found[last.name].error >= _JUMP * max([bound / _JUMP, *_before(mine, found, last)]):
                return last
            if last is not None:
                break
    return last or next((mine.marks[name] for name in failing if name in mine.marks), None)


def _past(mine: Trace, failing: Sequence[str]) -> set[str]:
    """The steps that lead to the failing outputs; all of them where the outputs are no steps."""
    pending = [name for name in failing if name in mine.marks]
    seen = set(pending)
    while pending:
        fresh = [name for name in mine.marks[pending.pop()].inputs if name in mine.marks and name not in seen]
        seen.update(fresh)
        pending += fresh
    return seen or set(mine.marks)


def _before(mine: Trace, found: Mapping[str, Match], mark: Mark) -> list[float]:
    """Errors of a step's inputs that were matched."""
    errors = [found[value.name].error for value in mine.values(mark) if value.name in found]
    return [error for error in errors if error <= NEAR]


def _first(
    mine: Trace, found: Mapping[str, Match], past: set[str], following: Mapping[str, Sequence[str]], bound: float, floats: bool
) -> Mark | None:
    redeemed = _redeemed(mine, found, following, bound * _JUMP)

    def wrong(mark: Mark) -> bool:
        values = mark.sketch
        if values is None or mark.name in mine.fixed or mark.name in redeemed or (floats and not values.floats):
            return False
        return found[mark.name].error > bound and (values.telling or not following.get(mark.name))

    suspects = (mark for mark in mine.marks.values() if mark.name in past and wrong(mark))
    return next((mark for mark in suspects if not any(map(wrong, mine.values(mark)))), None)


def _redeemed(mine: Trace, found: Mapping[str, Match], following: Mapping[str, Sequence[str]], bound: float) -> set[str]:
    """Steps after which something telling is right: the target fused them, or lays them out otherwise."""
    good: set[str] = set()
    for mark in reversed(mine.marks.values()):
        for name in following.get(mark.name, ()):
            after = mine.marks[name]
            right = after.sketch is not None and after.sketch.telling and after.sketch.floats and found[name].error <= bound
            if right or name in good:
                good.add(mark.name)
                break
    return good


def _report(
    source: Model, made: Model, mine: Trace, theirs: Trace, guilty: Mark, found: Mapping[str, Match], inputs: Mapping[str, str]
) -> dict[str, Any]:
    matched = found[guilty.name]
    other = partner(mine, theirs, found, inputs, guilty)
    weights = mine.weights(guilty)
    try:
        findings = verdicts(source, made, weights, None if other is None else theirs.weights_near(other, len(weights)))
    except Exception as err:  # noqa: BLE001 — the tensor is found; that its weights cannot be read is a detail
        findings = [f"its weights could not be compared: {err}"]
    turned = [value.name for value in mine.values(guilty) if value.name in found and found[value.name].rearranged]
    findings += [f"its input `{name}` has its axes in another order in the target" for name in turned]
    return {
        "tensor": guilty.name,
        "operator": guilty.operator,
        "inputs": list(guilty.inputs),
        "weights": weights,
        "error": matched.error,
        "source": guilty.sketch.as_dict() if guilty.sketch is not None else {},
        "target_tensor": None if other is None else other.name,
        "target": None if other is None or other.sketch is None else other.sketch.as_dict(),
        "findings": findings,
    }
