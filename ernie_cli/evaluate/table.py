"""A record of `ernie eval` laid out for people. Measures nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import tables
from .evaluate import chosen

if TYPE_CHECKING:
    from rich.console import RenderableType

#: Wrong answers that are shown.
_SHOWN_MISSES = 5


def render(record: Mapping[str, Any], metrics: Sequence[str]) -> RenderableType:
    """The record's figures, of the metrics that were asked for."""
    names = chosen(record, metrics)
    beside = f" against {record['against']}" if record["against"] else ""
    body = _language(record, names) if record["kind"] == "language" else _graph(record, names)
    return tables.sections((f"{record['model']}{beside}, {_amount(record)}", body), *_misses(record, names))


def _amount(record: Mapping[str, Any]) -> str:
    if record["kind"] == "graph":
        return f"{record['samples']} samples of {record['data']}"
    cut = f", the long ones in {record['windows']} windows" if record["windows"] else ""
    return f"{record['texts']} texts of {record['data']}{cut}"


def _language(record: Mapping[str, Any], names: Sequence[str]) -> RenderableType:
    header = ["", "tokens", *(column for name in names for column in _COLUMNS.get(name, ()) if record["against"] or column == "perplexity")]
    rows = [
        (said, f"{scores['tokens']:,}", *(_cell(column, scores) for column in header[2:]))
        for said, scores in (("answers", record["answer"]), ("all tokens", record["full"]))
        if scores
    ]
    if "exact-match" not in names or record["exact_match"] is None:
        return tables.table(header, rows)
    from rich.console import Group

    left = f"; {record['unasked']} do not fit the context" if record["unasked"] else ""
    right = round(record["exact_match"] * record["asked"])
    beside = f", against {record['reference_exact_match']:.2%}" if record["against"] else ""
    exact = [("exact match", f"{record['exact_match']:.2%}, {right} of {record['asked']} answers{beside}{left}")]
    return Group(*([tables.table(header, rows)] if len(header) > 2 else []), tables.facts(exact))


_COLUMNS = {"perplexity": ("perplexity", "against", "ratio"), "kl": ("KL, nats",), "top1": ("top-1",)}
_FIELDS = {"against": "reference_perplexity", "KL, nats": "kl", "top-1": "top1"}


def _cell(column: str, scores: Mapping[str, Any]) -> str:
    value = scores[_FIELDS.get(column, column)]
    form = {"perplexity": ".4f", "against": ".4f", "ratio": ".5f", "KL, nats": ".2e", "top-1": ".2%"}[column]
    return format(value, form)


def _misses(record: Mapping[str, Any], names: Sequence[str]) -> list[tuple[str, RenderableType | None]]:
    found = record.get("misses") or []
    if "exact-match" not in names or not found:
        return []
    rows = [(_short(each["prompt"]), _short(each["answer"]), _short(each["given"])) for each in found[:_SHOWN_MISSES]]
    title = "Wrong answers" if len(found) <= _SHOWN_MISSES else f"Wrong answers, {_SHOWN_MISSES} of {len(found)} (--json has all)"
    return [(title, tables.table(("prompt", "right", "given"), rows))]


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"


def _graph(record: Mapping[str, Any], names: Sequence[str]) -> RenderableType:
    rows = [(output, *(_figure(name, found) for name in names)) for output, found in record["outputs"].items()]
    strange = any(found["not_finite"] for found in record["outputs"].values())
    header = ("output", *(_HEADS.get(name, name) for name in names), *(["NaN, inf"] if strange else []))
    if strange:
        rows = [(*row, str(found["not_finite"])) for row, found in zip(rows, record["outputs"].values(), strict=True)]
    return tables.table(header, rows)


_HEADS = {"snr": "SNR dB", "top1": "top-1", "max-abs": "max abs"}


def _figure(name: str, found: Mapping[str, Any]) -> str:
    if name == "snr":
        return "equal" if found["snr_db"] is None else f"{found['snr_db']:.1f}"
    value = found[name.replace("-", "_")]
    return "-" if value is None else format(value, {"cosine": ".6f", "top1": ".2%", "max-abs": ".2e"}[name])
