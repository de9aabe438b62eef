"""Describes a TensorRT engine from its papers. Neither TensorRT nor a GPU is asked: a plan itself is opaque without them.

Of a plan without papers its size, its digest and what its first bytes give away is all there is. Layout for people is engine_text.py's.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import console
from ..digest import sha256_of
from ..engine import header, record
from ..engine.command import rebuild
from ..model import Model
from ..staging import MANIFEST, safe_join

if TYPE_CHECKING:
    from rich.console import RenderableType


def describe(model: Model) -> dict[str, Any]:
    """`plan` (file, bytes, sha256, header), `engine` (the record as it stands in ernie.json, {} without one), inputs, outputs, notes;
    `again`: the command that makes it again; `graph_checks`: those of the graph, which is gone where it was made for this build.

    Raises InputError where it is not even clear which file the plan is.
    """
    if not model.manifest:
        return _bare(model)
    told, problems = record.conform(model.manifest.get(record.NAME))
    name = model.manifest.get("main")
    plan = safe_join(model.folder, name) if isinstance(name, str) and name else model.main_file()
    files = model.manifest.get("files")
    known = files.get(plan.relative_to(model.folder).as_posix()) if isinstance(files, dict) else None
    if not isinstance(known, dict) or not isinstance(known.get("sha256"), str):
        problems.append(f"{MANIFEST} has no sha256 of {plan.name}: it will not be opened")
    ends = told["layers"]["io"]
    return {
        "plan": {"file": plan.name, **_facts(known), "header": _header(plan)},
        "engine": model.manifest.get(record.NAME) or {},
        "again": rebuild(model),
        "inputs": [_value(each) for each in ends if each["mode"] == "input"],
        "outputs": [_value(each) for each in ends if each["mode"] == "output"],
        "graph_checks": told["graph"]["checks"],
        "problems": problems,
    }


def summary(model: Model) -> RenderableType:
    """What a build foresaw and what it got, as a table: for the end of `ernie build`."""
    from . import engine_text

    return engine_text.memory(record.conform(model.manifest.get(record.NAME))[0])


def _bare(model: Model) -> dict[str, Any]:
    """What can be known of a plan that nothing vouches for."""
    plan = model.main_file()
    beside = plan.parent / MANIFEST
    note = f"no papers: without {MANIFEST} beside it nobody knows what it was built from and for, and ernie does not open it"
    if model.path.is_file() and beside.is_file():
        note = f"its papers are in {beside}: `ernie inspect {plan.parent}` shows them"
    size, start = plan.stat().st_size, _header(plan)
    with console.progress("hashing", size, unit="bytes") as meter:
        digest = sha256_of(plan, meter.advance)
    short = start is not None and start["n_bytes"] > size
    return {
        "plan": {"file": plan.name, "bytes": size, "sha256": digest, "header": start},
        "engine": {},
        "notes": [note],
        "problems": [f"{plan.name}: truncated: {size} bytes, its header says {start['n_bytes']}"] if short and start else [],
    }


def _header(plan: Path) -> dict[str, Any] | None:
    found = header.read(plan) if plan.is_file() else None
    return found.as_dict() if found else None


def _facts(known: Any) -> dict[str, Any]:
    """What the papers say of the plan; whether it still holds is provenance.py's question."""
    size, digest = (known.get(name) for name in ("size", "sha256")) if isinstance(known, dict) else (None, None)
    return {"bytes": size if type(size) is int else None, "sha256": digest if isinstance(digest, str) else None}


def _value(end: dict[str, Any]) -> dict[str, Any]:
    shape = [axis if type(axis) is int and axis >= 0 else "?" for axis in end["shape"]]
    return {"name": end["name"], "dtype": end["dtype"], "shape": shape}
