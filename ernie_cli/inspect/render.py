"""Lays the facts of `look` out for people. Leaves none out that were asked for, adds none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType

from .. import console
from ..tables import facts, paragraph, sections, table
from . import engine_text


def render(found: Mapping[str, Any], *, tensors: bool = False) -> RenderableType:
    """The facts as titled sections; with `tensors` every tensor on a line of its own."""
    kind = ", ".join(filter(None, (found["format"], found["architecture"], found["precision"])))
    engine = found["format"] == "engine"
    return sections(
        (f"{found['path']}: {kind}", facts([*(engine_text.lines(found) if engine else ()), *_summary(found)])),
        *(engine_text.parts(found) if engine else ()),
        ("Inputs", _values(found.get("inputs"))),
        ("Outputs", _values(found.get("outputs"))),
        ("Operators", paragraph(", ".join(f"{name} {count}" for name, count in found["ops"].items())) if found.get("ops") else None),
        ("Metadata", facts(found["metadata"].items()) if found.get("metadata") else None),
        ("Made", facts(_origin(found)) if found["made_by"] or found["made_from"] else None),
        *((_check_title(check), facts(_check(check))) for check in (*found.get("graph_checks", ()), *found["checks"])),
        (
            "Tensors",
            table(("name", "dtype", "shape", "bytes"), map(_tensor, found["tensors"])) if tensors and found.get("tensors") else None,
        ),
        ("Problems", Group(*map(paragraph, found["problems"])) if found["problems"] else None),
    )


def _summary(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    shards = f" in {found['shards']} shards" if found.get("shards", 1) > 1 else ""
    checked = found["files_checked"]
    return [
        ("parameters", f"{found['parameters']:,}" if "parameters" in found else ""),
        ("weights", _weights(found)),
        ("tensors", f"{found['tensor_count']}{shards}" if "tensor_count" in found else ""),
        ("skipped", ", ".join(found.get("skipped", []))),
        ("KV cache", f"{found['kv_bytes_per_token']:,} bytes per token" if found.get("kv_bytes_per_token") else ""),
        ("shape", ", ".join(f"{name} {_plain(value)}" for name, value in found.get("config", {}).items())),
        ("ONNX", _versions(found)),
        ("external data", _external(found.get("external_data") or {})),
        ("tokenizer", _tokenizer(found)),
        ("size", f"{console.size(found['bytes'])} in {_many(len(found['files']), 'file')}"),
        ("files", f"{checked['count']} named in ernie.json, compared by {checked['by']}" if checked else ""),
        ("licence", str(found["licence"] or "")),
        *(("note", note) for note in found.get("notes", [])),
    ]


def _weights(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {console.size(n_bytes)}" for name, n_bytes in found.get("bytes_by_dtype", {}).items())


def _versions(found: Mapping[str, Any]) -> str:
    if "opsets" not in found:
        return ""
    opsets = ", ".join(f"{domain} {version}" for domain, version in found["opsets"].items())
    producer = f", made by {found['producer']}" if found["producer"] else ""
    return f"opset {opsets}; IR version {found['ir_version']}{producer}"


def _external(files: Mapping[str, int | None]) -> str:
    return ", ".join(f"{name} {'missing' if n_bytes is None else console.size(n_bytes)}" for name, n_bytes in files.items())


def _tokenizer(found: Mapping[str, Any]) -> str:
    if "tokenizer" not in found:
        return ""
    template = "with a chat template" if found["chat_template"] else "no chat template"
    return f"{' and '.join(found['tokenizer']) or 'none'}, {template}"


def _values(values: Sequence[Mapping[str, Any]] | None) -> RenderableType | None:
    """Inputs or outputs; a row of layers' caches that differ in their number alone is one line."""
    if not values:
        return None
    lines: dict[tuple[str, str, str], list[str]] = {}
    for value in values:
        pattern = ".".join("*" if part.isdecimal() else part for part in value["name"].split("."))
        lines.setdefault((pattern, value["dtype"], _shape(value["shape"])), []).append(value["name"])
    rows = [
        (names[0], dtype, shape) if len(names) == 1 else (f"{pattern} ({len(names)})", dtype, shape)
        for (pattern, dtype, shape), names in lines.items()
    ]
    return table(("name", "dtype", "shape"), rows)


def _shape(shape: Sequence[Any] | None) -> str:
    return "unknown" if shape is None else f"[{', '.join(map(str, shape))}]"


def _origin(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Who made it of what; of an engine, whose sections tell the rest, the command line."""
    by = (
        {name: found["made_by"].get(name) for name in ("tool", "time")} | {"command": found["again"]}
        if found.get("again")
        else found["made_by"]
    )
    return [*_pairs(by), *(("from", ", ".join(_link(link))) for link in found["made_from"])]


def _link(link: Mapping[str, Any]) -> list[str]:
    """Path and format as they are, the rest by name; what has become of it last."""
    plain = [str(link[name]) for name in ("path", "format") if link.get(name)]
    named = [f"{name} {value}" for name, value in _pairs({name: link[name] for name in link if name not in ("path", "format", "now")})]
    now = {"same": ["unchanged since"], None: []}.get(link["now"], [str(link["now"])])
    return [*plain, *named, *now]


def _check_title(check: Mapping[str, Any]) -> str:
    return f"Check: {check.get('name', '?')}{f', {edge}' if (edge := check.get('edge')) else ''}"


#: Of an output's comparison, what tells most; ernie.json holds the rest.
_FIGURES = ("max_abs", "max_rel", "cosine", "snr_db", "top1", "problems")


def _check(check: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Everything the record says; of a graph's, its runs by name and its outputs by their main figures."""
    passed = check.get("passed")
    verdict = "passed" if passed else "failed" if passed is False else "not run"
    known = {name: value for name, value in check.items() if name not in ("name", "passed", "edge")}
    lines = []
    if isinstance(cases := known.pop("cases", None), list):
        known.pop("paired", None)
        lines += [("runs", "; ".join(str(case.get("case")) for case in cases if isinstance(case, dict)))]
    if isinstance(outputs := known.pop("outputs", None), dict):
        named = [(name, found) for name, found in outputs.items() if isinstance(found, dict)]
        lines += [
            (f"output {name}", _short({key: found[key] for key in _FIGURES if found.get(key) not in (None, [])})) for name, found in named
        ]
    return [("verdict", verdict), *lines, *_pairs(known)]


def _pairs(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(str(name), _short(value)) for name, value in values.items() if value not in (None, "", [], {})]


def _tensor(tensor: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return tensor["name"], tensor["dtype"], _shape(tensor["shape"]), f"{tensor['bytes']:,}"


def _short(value: Any) -> str:
    """Digests by their first twelve digits, errors by three figures, shares by six, objects as name value pairs."""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 0.5 else f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(_short, value))
    text = _plain(value)
    return text[:12] if len(text) == 64 and all(char in "0123456789abcdef" for char in text) else text


def _plain(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
