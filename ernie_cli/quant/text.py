"""What people read of a quantisation: its plan, its result, the report file. Tables of the loss are report/table.py's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from .. import console
from ..model import Model
from ..staging import write_file

if TYPE_CHECKING:
    from .plan import Plan


def plan_text(plan: Plan) -> str:
    """One line: what becomes what, where, and what it will weigh."""
    state = "up to date: nothing to do" if plan.up_to_date else f"takes up to {console.size(plan.bytes_needed)} of disk"
    return f"{plan.source.path} ({plan.source.format}) → {plan.scheme.name} ({plan.scheme.says}) → {plan.out}: {state}"


def show(path: Path, made: Model, *, up_to_date: bool) -> None:
    """The report of a finished quantisation, and last where the result lies."""
    from .report import table

    if not console.settings.json:
        console.result(table.render(made.manifest["quantization"]))
    console.result(str(path), data={"path": str(made.path), "up_to_date": up_to_date, **made.manifest})


def write_report(path: Path | None, made: Model) -> None:
    """The full record as JSON in `path`; nothing where that is None."""
    if path is not None:
        write_file(path, json.dumps(console.finite(made.manifest["quantization"]), ensure_ascii=False, indent=2, default=str) + "\n")
        console.info(f"the full record is in {path}")
