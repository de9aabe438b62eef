"""Lays an engine's papers out for people. Reads what engine.py found; what a hand-edited ernie.json has in odd types is left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from .. import console
from ..engine import layer_table, record
from ..engine.options import Options
from ..tables import facts, table

#: Names shown of many, and digits of a digest.
_FEW, _DIGITS = 3, 12
_TITLES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}


def lines(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What it is, for which GPU, by which library: pairs for the head of the page."""
    told, plan = record.conform(found["engine"])[0], found["plan"]
    if not found["engine"]:
        return _bare(plan)
    library, target, seconds = told["library"], told["target"], told["seconds"]
    peak = f", with {console.size(told['actual']['host_peak_bytes'])} of memory at most" if told["actual"]["host_peak_bytes"] else ""
    return [
        ("for", _join(_named(target["title"], target["device"]), _capabilities(target), target["system"])),
        ("library", _join(_library(library), f"CUDA {library['cuda']}" if library["cuda"] else "", library["why"])),
        ("plan", _join(_size(plan["bytes"]), f"sha256 {str(plan['sha256'])[:_DIGITS]}…" if plan["sha256"] else "")),
        ("graph", _graph(told)),
        ("weights", f"put in later, from {told['weights']['path']}" if told["weights"]["path"] else ""),
        ("quantised", _quantised(told["quantization"])),
        ("KV cache", told["kv_cache"]),
        ("fixed axes", ", ".join(f"{name} {length}" for name, length in told["fixed"].items())),
        ("built in", f"{seconds['build']:.1f} s, parsed in {seconds['parse']:.1f} s{peak}" if seconds["build"] else ""),
        ("builder", _builder(told)),
        ("tokenizer", _tokenizer(told["tokenizer"])),
    ]


def parts(found: Mapping[str, Any]) -> list[tuple[str, RenderableType | None]]:
    """Sections: profiles, memory, precision, files it was made of."""
    if not found["engine"]:
        return []
    told = record.conform(found["engine"])[0]
    return [("Profiles", _profiles(told["profiles"])), ("Memory", memory(told)), ("Precision", _precision(told)), ("Source", _source(told))]


def layers(found: Mapping[str, Any]) -> RenderableType:
    """Every layer with the ONNX nodes in it, and the nodes that have none."""
    told = record.conform(found["engine"])[0]
    return layer_table.table(told["layers"], [each["name"] for each in told["profiles"]])


def memory(told: Mapping[str, Any]) -> RenderableType:
    """A conformed record's predicted and reported bytes, and how far the prediction was off."""
    predicted, actual = told["predicted"], told["actual"]
    names = list(predicted["activation_bytes"]) or [each["name"] for each in told["profiles"]]
    real = dict(zip(names, actual["activation_bytes"], strict=False))
    rows = [
        ("plan file", predicted["plan_bytes"], actual["plan_bytes"]),
        ("weights", predicted["weight_bytes"], actual["weight_bytes"]),
        *((f"activations, {name}", predicted["activation_bytes"].get(name, 0), real.get(name, 0)) for name in names),
        ("KV cache", predicted["cache_bytes"], 0),
        ("inputs and outputs", predicted["io_bytes"], 0),
        ("device in all", predicted["device_total"], 0),
        ("host, while building", predicted["host_peak_bytes"], actual["host_peak_bytes"]),
    ]
    return table(("", "predicted", "reported", "off by"), [_compared(*row) for row in rows if row[1] or row[2]])


def _compared(name: str, predicted: int, actual: int) -> tuple[str, str, str, str]:
    ratio = predicted / actual if predicted and actual else 1
    off = "" if not (predicted and actual) else f"{ratio - 1:+.0%}" if ratio < 10 else f"{ratio:.3g} times"
    return name, console.size(predicted) if predicted else "", console.size(actual) if actual else "–", off


def _bare(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    header = plan["header"] or {}
    written = _library({"name": header["library"], "version": header["version"]}) if header else "its first bytes do not tell"
    gpus = f"for compute capability {', '.join(header['capabilities'])}" if header.get("capabilities") else ""
    return [
        ("plan", _join(str(plan["file"]), _size(plan["bytes"]))),
        ("sha256", str(plan["sha256"] or "")),
        ("written by", _join(written, gpus)),
    ]


def _library(library: Mapping[str, Any]) -> str:
    return f"{_TITLES.get(library['name'], library['name'])} {library['version']}".strip()


def _capabilities(target: Mapping[str, Any]) -> str:
    if target["hardware_compatible"] == "ampere-plus" or not target["capabilities"]:
        return "compute capability 8.0 and later"
    return f"compute capability {' and '.join(target['capabilities'])}"


def _graph(told: Mapping[str, Any]) -> str:
    graph, profiles = told["graph"], told["layers"]["profiles"]
    opsets = ", ".join(str(version) if name == "ai.onnx" else f"{name} {version}" for name, version in graph["opsets"].items())
    counts = " and ".join(str(len(each["layers"])) for each in profiles)
    fused = f"{graph['nodes']} nodes in {counts} layers{f' of {len(profiles)} profiles' if len(profiles) > 1 else ''}" if counts else ""
    return _join(f"opset {opsets}" if opsets else "", fused, f"made by {graph['producer']}" if graph["producer"] else "")


def _quantised(entry: Mapping[str, Any]) -> str:
    data = entry.get("data")
    said = data.get("said") if isinstance(data, dict) else None
    words = [entry.get("scheme"), entry.get("says"), entry.get("method"), f"calibrated on {said}" if isinstance(said, str) else ""]
    return _join(*(word for word in words if isinstance(word, str)))


def _builder(told: Mapping[str, Any]) -> str:
    """Options of the builder that differ from what is meant where nothing is said."""
    usual = vars(Options())
    kept = (
        "workspace",
        "effort",
        "timing_cache",
        "version_compatible",
        "hardware_compatible",
        "refit",
        "strip_weights",
        "weight_streaming",
    )
    chosen = {name: told["options"][name] for name in kept if told["options"].get(name) not in (None, "", usual[name])}
    options = [name.replace("_", " ") if value is True else f"{name.replace('_', ' ')} {value}" for name, value in chosen.items()]
    return _join("strongly typed", *options)


def _tokenizer(entry: Mapping[str, Any]) -> str:
    template = f"chat template in {entry['chat_template']}" if entry["chat_template"] else "no chat template"
    return f"{' and '.join(entry['files'])}, {template}" if entry["files"] else ""


def _profiles(profiles: Sequence[Mapping[str, Any]]) -> RenderableType | None:
    """One line per input and profile; inputs that differ in a number alone (caches of layers) are one."""
    rows: list[tuple[str, ...]] = []
    for each in profiles:
        kinds: dict[tuple[str, ...], list[str]] = {}
        for name, ranges in each["inputs"].items():
            pattern = ".".join("*" if part.isdecimal() else part for part in name.split("."))
            shapes = tuple("x".join(map(str, shape)) or "scalar" for shape in ranges)
            kinds.setdefault((pattern, *shapes), []).append(name)
        for (pattern, *ranges), names in kinds.items():
            rows.append((each["name"], names[0] if len(names) == 1 else f"{pattern} ({len(names)})", *(*ranges, "", "", "")[:3]))
        if not kinds:
            rows.append((each["name"], "every shape is fixed", "", "", ""))
    return table(("profile", "input", "shortest", "best", "longest"), rows) if rows else None


def _precision(told: Mapping[str, Any]) -> RenderableType | None:
    entry = told["precision"]
    constants = ", ".join(f"{name} {console.size(each['bytes'])}" for name, each in entry["types"].items() if each["bytes"])
    rows = [(name, f"{len(names)} layers: {_few(names)}" if len(names) > 1 else _few(names)) for name, names in entry["layers"].items()]
    return facts([*rows, ("constants", constants)]) if rows or constants else None


def _source(told: Mapping[str, Any]) -> RenderableType | None:
    """The files that were read, each with size and digest."""
    source, graph = told["source"], told["graph"]
    rows = [(_join(source["path"], source["format"]), name, each) for name, each in source["files"].items()]
    rows += [("the graph", name, each) for name, each in graph["files"].items() if graph["files"] != source["files"]]
    shown = [(of, name, _size(each["size"]), each["sha256"][:_DIGITS]) for of, name, each in rows]
    return table(("of", "file", "size", "sha256"), shown) if shown else None


def _few(names: Sequence[str]) -> str:
    more = len(names) - _FEW
    return ", ".join(names[:_FEW]) + (f", … {more} more" if more > 0 else "")


def _named(title: str, name: str) -> str:
    return f"{title} ({name})" if title and name else title or name


def _size(n_bytes: Any) -> str:
    return console.size(n_bytes) if isinstance(n_bytes, int) and 0 <= n_bytes < 1 << 62 else ""


def _join(*words: str | Iterable[str]) -> str:
    return "; ".join(str(word) for word in words if word)
