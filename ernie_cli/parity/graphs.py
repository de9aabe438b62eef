"""A converted graph against its source: the same inputs through both, every output compared, and who parted first.

Knows sessions, no backends. Raises ParityError, which holds the whole record, where the two are not the same model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .. import console
from ..console import Meter
from ..errors import InputError, QualityError, UnsupportedError
from ..model import Model
from ..runtime.graphs import GraphSession, TensorSpec, open_graph
from ..runtime.specs import asked
from . import cases, degenerate, pairing
from .arrays import feeds_from
from .axes import Axis
from .cases import Case, Found
from .hints import Facts, facts_of
from .metrics import compare
from .tolerance import LIMITS, PRECISIONS, Tolerance, tolerances

if TYPE_CHECKING:
    from ..route import Options


T = TypeVar("T")


class ParityError(QualityError):
    """The converted model is not the same model. record: as `check` returns it, with `passed` False and `first_difference`."""

    def __init__(self, message: str, hint: str, record: dict[str, Any]) -> None:
        super().__init__(message, hint)
        self.record = record


def check(source: Model, made: Model, options: Options, *, name: str) -> dict[str, Any]:
    """Compare `made` with `source` at several sizes, or on options.inputs_file. The two are opened one after the other.

    Returns the record for the manifest. Raises ParityError (exit 6) with it where an output leaves its limits or the target
    refuses what the source takes; UsageError for tolerances and inputs that make no sense.
    """
    start = time.perf_counter()
    record: dict[str, Any] = {"name": "parity", "edge": name, "passed": True, "notes": []}
    with console.progress(f"checking {name}", None) as meter:
        facts = (facts_of(source), _told(lambda: facts_of(made), record))
        ran, axes, limits = _run_source(source, made, options, facts, record, meter)
        found = _run_made(made, ran, limits, record, meter)
        found = degenerate.excuse(source, ran, found, axes, record)
    _conclude(record, found, start)
    if not record["passed"]:
        raise _failed(source, made, ran, found, record)
    return record


def precision_of(source: Model, made: Model, facts: Sequence[Facts], outputs: Sequence[np.ndarray]) -> str:
    """The coarsest type among the two models' papers, weights and outputs: no comparison can be finer."""
    order = list(LIMITS)
    said = [*(model.precision for model in (source, made)), *(fact.precision for fact in facts)]
    said += [PRECISIONS[array.dtype.name] for array in outputs if array.dtype.name in PRECISIONS] if not any(said) else []
    return max((each for each in said if each in order), key=order.index, default="fp32")


class _Limits:
    """What each output may differ by."""

    def __init__(self, precision: str, own: Mapping[str, Tolerance]) -> None:
        self.precision, self.own = precision, own

    def as_dict(self) -> dict[str, Any]:
        own = {name: {key: value for key, value in asdict(tolerance).items() if value is not None} for name, tolerance in self.own.items()}
        return {"precision": self.precision, **asdict(LIMITS[self.precision]), **({"own": own} if own else {})}


def _run_source(
    source: Model, made: Model, options: Options, facts: Sequence[Facts], record: dict[str, Any], meter: Meter
) -> tuple[list[Case], tuple[Axis, ...], _Limits]:
    notes: list[str] = record["notes"]
    session = open_graph(source)
    try:
        own = tolerances(options.rtol, options.atol, [spec.name for spec in session.outputs])
        specs = pairing.completed(asked(session, options.input_specs), options.input_specs, _declared(made, session.inputs))
        if options.inputs_file:
            ran, axes = cases.given(session, feeds_from(options.inputs_file, specs))
        else:
            rows = {**pairing.renamed(facts[1].rows, made, specs), **facts[0].rows, **getattr(session, "rows", {})}
            ran, axes = cases.several(session, specs, rows, notes, meter)
        record["against"] = [f"{session.backend} ({session.device})"]
    finally:
        session.close()
    precision = precision_of(source, made, facts, list(ran[0].outputs.values()))
    limits = _Limits(precision, own)
    record |= {"cases": [case.as_dict() for case in ran], "limits": limits.as_dict()}
    return ran, axes, limits


def _declared(made: Model, told: Sequence[TensorSpec]) -> Sequence[TensorSpec]:
    """What is known of the target's inputs, where the source's need it: what the converter wrote down, else what the file says."""
    if all(spec.shape is not None and spec.dtype for spec in told):
        return ()
    if written := made.manifest.get("inputs"):
        return [TensorSpec.from_dict(entry) for entry in written]
    session = _told(lambda: open_graph(made), {})
    try:
        return session.inputs
    finally:
        session.close()


def _told(read: Callable[[], T], record: dict[str, Any]) -> T:
    """What `read` finds in the target's files. Raises ParityError where they do not even open."""
    try:
        return read()
    except (InputError, UnsupportedError) as err:
        raise _refused(f"it does not open: {err.message}", record) from err


def _run_made(made: Model, ran: Sequence[Case], limits: _Limits, record: dict[str, Any], meter: Meter) -> Found:
    session = _told(lambda: open_graph(made), record)
    try:
        record["against"].append(f"{session.backend} ({session.device})")
        found: Found = {name: [] for name in ran[0].outputs}
        inputs = pairing.pair("input", list(ran[0].feeds), [spec.name for spec in session.inputs], record["notes"])
        outputs = pairing.pair("output", list(ran[0].outputs), [spec.name for spec in session.outputs], record["notes"])
        if inputs is None or outputs is None:
            raise _refused(f"its {'inputs' if inputs is None else 'outputs'} are not the source's", record)
        record["paired"] = {"inputs": inputs, "outputs": outputs}
        for case in ran:
            results = _run_case(session, case, inputs, record)
            for name, other in outputs.items() if results else ():
                want, got = case.outputs[name], _like(case.outputs[name], results[other], name, record["notes"])
                found[name].append((case, compare(want, got, precision=limits.precision, tolerance=limits.own.get(name))))
            meter.advance(1, case.label)
        return found
    finally:
        session.close()


def _run_case(session: GraphSession, case: Case, inputs: Mapping[str, str], record: dict[str, Any]) -> dict[str, np.ndarray]:
    """The target's outputs, none where it refuses what the source takes; that is written down."""
    feeds = pairing.translated(case.feeds, inputs, session.inputs, record["notes"])
    try:
        return session.run(feeds)
    except cases.REFUSED as err:
        record.setdefault("refused", []).append({"case": case.label, "why": err.message})
        return {}


def _like(want: np.ndarray, got: np.ndarray, name: str, notes: list[str]) -> np.ndarray:
    """`got` in the form of `want` where the difference is one of writing: a scalar as [1], another integer or float width."""
    if want.dtype != got.dtype:
        _once(notes, f"output `{name}` is {got.dtype.name} where the source's is {want.dtype.name}")
    if want.shape != got.shape and want.size == got.size == 1:
        _once(notes, f"output `{name}` is {list(got.shape)} where the source's is {list(want.shape)}")
        return got.reshape(want.shape)
    return got


def _once(notes: list[str], note: str) -> None:
    if note not in notes:
        notes.append(note)


def _conclude(record: dict[str, Any], found: Found, start: float) -> None:
    """Write the worst figures of each output into the record, and the verdict."""
    from ..graph.convert import peak_memory_mb

    record["outputs"] = {}
    for name, measured in found.items():
        if not measured:
            continue
        case, metrics = max(measured, key=lambda each: (len(each[1].problems) > 0, each[1].max_rel, each[1].slice_rel))
        record["outputs"][name] = {**metrics.as_dict(), "case": case.label}
        if metrics.nans or metrics.infs:
            _once(record["notes"], f"output `{name}` has {metrics.nans} NaN and {metrics.infs} infinite values in the source, too")
    same = all(metrics.passed for measured in found.values() for _, metrics in measured)
    record["passed"] = same and not record.get("refused")
    record["seconds"] = round(time.perf_counter() - start, 3)
    record["peak_memory_mb"] = peak_memory_mb()


def _refused(what: str, record: dict[str, Any]) -> ParityError:
    record |= {"passed": False, "why": what}
    return ParityError(
        f"{record.get('edge', 'parity')}: the converted model is not the same model: {what}",
        "nothing was kept; --keep-failed keeps it, --report FILE.json writes down all that was found",
        record,
    )


def _failed(source: Model, made: Model, ran: Sequence[Case], found: Found, record: dict[str, Any]) -> ParityError:
    """Look for the first tensor that differs and put everything in words."""
    from . import bisect

    wrong = [(name, case, metrics) for name, measured in found.items() for case, metrics in measured if not metrics.passed]
    if wrong:
        name, case, metrics = wrong[0]
        failing = [other for other, at, _ in wrong if at is case]
        more = len({other for other, _, _ in wrong}) - 1
        what = f"output `{name}`{f' and {more} more' if more else ''}: {', '.join(metrics.problems)} ({case.label})"
    else:
        refused = record["refused"][0]
        case = next(each for each in ran if each.label == refused["case"])
        failing = list(case.outputs)
        sizes = ", ".join(f"{name} {list(array.shape)}" for name, array in case.feeds.items())
        what = f"it does not take {sizes} ({case.label}), which the source takes: {refused['why']}"
    console.info("looking for the first tensor that differs")
    record["first_difference"] = bisect.find(source, made, case, record["paired"], failing, record["limits"]["precision"])
    return _refused(f"{what}; {bisect.said(record['first_difference'])}", record)
