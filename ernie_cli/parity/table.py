"""A parity record laid out for people. Measures nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .. import tables

if TYPE_CHECKING:
    from rich.console import RenderableType

_STATISTICS = ("shape", "dtype", "min", "mean", "max", "std", "nans", "infs")


def render(record: Mapping[str, Any]) -> RenderableType:
    """The outputs of a record of `graphs.check` as a table, with the first tensor that differs, refusals and notes where there are."""
    what = f"{record.get('edge', 'parity')}: {_verdict(record)}"
    return tables.sections(
        (what, outputs(record.get("outputs", {}))),
        ("First tensor that differs", first(record["first_difference"]) if "first_difference" in record else None),
        ("Refused by the target", _lines([f"{each['case']}: {each['why']}" for each in record.get("refused", [])])),
        ("Notes", _lines(record.get("notes", []))),
    )


def outputs(measured: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    """One row per output: its worst case's figures."""
    header = ("output", "max abs", "max rel", "mean abs", "cosine", "SNR dB", "top-1", "equal", "worst at", "")
    rows = [
        (
            name, f"{each['max_abs']:.2e}", f"{each['max_rel']:.2e}", f"{each['mean_abs']:.2e}", f"{each['cosine']:.6f}",
            "exact" if each["snr_db"] is None else f"{each['snr_db']:.0f}", "-" if each["top1"] is None else f"{each['top1']:.0%}",
            f"{each['equal']:.0%}", str(each.get("case", "")), "failed" if each["problems"] else "ok",
        )
        for name, each in measured.items()
    ]  # fmt: skip
    return tables.table(header, rows)


def first(found: Mapping[str, Any]) -> RenderableType:
    """The statistics of both sides, and what was found out about the weights."""
    if "unknown" in found:
        return tables.paragraph(f"could not be found: {found['unknown']}")
    sides = [("source", found["tensor"], found["source"]), ("target", found["target_tensor"] or "", found["target"])]
    rows = [(side, name, *(_cell(stats[key]) for key in _STATISTICS)) for side, name, stats in sides if stats]
    from rich.console import Group

    return Group(
        tables.facts([("operator", found["operator"]), ("inputs", ", ".join(found["inputs"])), ("weights", ", ".join(found["weights"]))]),
        tables.table(("", "tensor", *_STATISTICS), rows),
        *(tables.paragraph(each) for each in found["findings"]),
    )


def _verdict(record: Mapping[str, Any]) -> str:
    verdict = {True: "passed", False: "FAILED", None: "not verified"}[record.get("passed")]
    against = " against ".join(record.get("against", []))
    cost = f", {record['seconds']:.1f} s" if "seconds" in record else ""
    return f"{verdict} ({len(record.get('cases', []))} runs, {against}{cost})"


def _lines(texts: list[str]) -> RenderableType | None:
    return tables.table(("",), [(text,) for text in texts]) if texts else None


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
