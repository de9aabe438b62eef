"""What people read of a route: its plan, how it maps operators, how a conversion went, and the report file. Decides nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import console
from .errors import ErnieError, UsageError
from .staging import write_file

if TYPE_CHECKING:
    from rich.console import RenderableType

    from .coverage import OpUse
    from .route import Plan


def plan_text(plan: Plan) -> str:
    """One line: from where, through which edges, to where, and what it will weigh."""
    facts = plan.as_dict()
    state = "up to date: nothing to do" if facts["up_to_date"] else f"takes up to {console.size(facts['bytes_needed'])} of disk"
    return f"{facts['source']} ({facts['format']}) → {' → '.join(facts['route'])} → {facts['out']}: {state}"


def coverage_table(uses: Sequence[OpUse]) -> RenderableType:
    """One row per operator of the source, those without a mapping first."""
    from .tables import table

    rows = sorted(uses, key=lambda use: (bool(use.how), use.operator))
    said = [(use.operator, str(len(use.nodes)), use.how or "missing", use.why or _some(use.nodes if not use.how else ())) for use in rows]
    return table(("operator", "nodes", "becomes", ""), said)


def _some(nodes: Sequence[str]) -> str:
    return ", ".join(nodes[:3]) + (" …" if len(nodes) > 3 else "")


def coverage_data(uses: Sequence[OpUse]) -> dict[str, Any]:
    """The same for --json."""
    return {"operators": [use.as_dict() for use in uses], "unsupported": sum(not use.how for use in uses)}


def result_text(path: Path, checks: Sequence[Mapping[str, Any]]) -> str:
    """Where the result lies, and one line per check."""
    return "\n".join([str(path), *(f"  {_check(check)}" for check in checks)])


def _check(check: Mapping[str, Any]) -> str:
    verdict = {True: "passed", False: "FAILED", None: "not verified"}.get(check.get("passed"))
    edge = f" {check['edge']}" if "edge" in check else ""
    return f"{check['name']}{edge}: {verdict}{_figures(check)}"


def _figures(check: Mapping[str, Any]) -> str:
    """The worst figures of a record: of each phase of a decoder's, of all outputs of a graph's."""
    phases = {name: value for name, value in check.items() if isinstance(value, Mapping) and {"max_rel", "top1"} <= value.keys()}
    phases.pop("limits", None)
    if phases:
        said = [f"{name}: max rel {value['max_rel']:.1e}, top-1 {value['top1']:.0%}" for name, value in phases.items()]
        return f" ({'; '.join(said)})"
    outputs = check.get("outputs")
    worst = [value["max_rel"] for value in outputs.values() if value.get("max_rel") is not None] if isinstance(outputs, Mapping) else []
    count = f"{len(outputs)} output{'s' if len(outputs) > 1 else ''}" if outputs else ""
    return f" ({count}, max rel {max(worst):.1e} over {len(check.get('cases', []))} runs)" if worst else ""


def show_failure(error: ErnieError) -> None:
    """The table of outputs and the first tensor that differs, where the error brings a record of them."""
    record = getattr(error, "record", None)
    if record and "outputs" in record:
        from .parity.table import render

        console.show(render(record))


def check_report(path: Path | None) -> None:
    """Raise UsageError where the report could not be written: before the work it reports on."""
    if path and ((path.exists() and not path.is_file()) or not path.absolute().parent.is_dir()):
        raise UsageError(f"cannot write {path}: a file in an existing folder is needed", "--report report.json")


def write_report(path: Path | None, plan: Plan, checks: Sequence[Mapping[str, Any]], error: ErnieError | None = None) -> None:
    """The full record of a conversion, passed or failed, as JSON in `path`; nothing where that is None."""
    if path is None:
        return
    failed = [record] if (record := getattr(error, "record", None)) else []
    said = {"passed": error is None, "error": error.message if error else None, "plan": plan.as_dict(), "checks": [*checks, *failed]}
    write_file(path, json.dumps(console.finite(said), ensure_ascii=False, indent=2, default=str) + "\n")
    console.info(f"the full record is in {path}")
