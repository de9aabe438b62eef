"""What ernie.json says of an engine: the shape of that record, and how it is read from a file that anybody may have edited.

What goes into it is papers.py's affair, what follows from it admit.py's and inspect/engine.py's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Name of the record in ernie.json.
NAME = "engine"
#: No count of anything is larger: a file that says so was not written by us, and larger numbers do not go through floats.
_LARGEST = 1 << 62
#: Characters of any one text.
_LONGEST = 100_000

#: Problems named; a file with more is not worth reading.
_MOST = 20

#: Stands for any name in a table of things that are all of one shape.
EACH = "*"
FILES = {EACH: {"size": int, "sha256": str}}
#: Keys and the types below them. `dict` and `list` are taken as they are: others know what is in them.
#: `weights` is there once other weights were put in (refit.py), and says of which model.
SHAPE: Mapping[str, Any] = {
    "library": {"name": str, "version": str, "module": str, "abi": str, "cuda": str, "onnx_parser": str, "why": str},
    "target": {
        "device": str, "title": str, "capabilities": [str], "system": str, "version_compatible": bool, "hardware_compatible": str,
    },
    "source": {"path": str, "format": str, "fingerprint": str, "files": FILES},
    "graph": {"opsets": {EACH: int}, "ir_version": int, "producer": str, "nodes": int, "files": FILES, "checks": [dict]},
    "precision": {"types": {EACH: {"tensors": int, "bytes": int}}, "layers": {EACH: [str]}},
    "quantization": dict,
    "kv_cache": str,
    "fixed": {EACH: int},
    "profiles": [{"name": str, "inputs": {EACH: [[int]]}}],
    "options": dict,
    "flags": [str],
    "seconds": {"parse": float, "build": float},
    "predicted": {
        "weight_bytes": int, "cache_bytes": int, "io_bytes": int, "plan_bytes": int, "disk_bytes": int, "host_peak_bytes": int,
        "device_total": int, "activation_bytes": {EACH: int}, "unknown": int,
    },
    "weights": {"path": str, "format": str, "fingerprint": str},
    "actual": {"plan_bytes": int, "weight_bytes": int, "activation_bytes": [int], "host_peak_bytes": int},
    "tokenizer": {"files": [str], "chat_template": str},
    "layers": {
        "nodes": int, "weight_bytes": int, "peak_host_bytes": int,
        "profiles": [{
            "activation_bytes": int, "removed": {EACH: [str]},
            "layers": [{"name": str, "type": str, "nodes": [str], "precision": str, "tactic": str, "reads": str}],
        }],
        "io": [{"name": str, "mode": str, "dtype": str, "shape": list, "ranges": list}],
    },
}  # fmt: skip


def conform(told: Any) -> tuple[dict[str, Any], list[str]]:
    """(the record with every key of SHAPE and nothing of another type, what was wrong with it).

    What is missing is "" or 0, an empty list or table; what is of another type, too, and named. Raises nothing.
    """
    problems: list[str] = []
    if told is None:
        problems.append(f"ernie.json has no `{NAME}`: what the engine was built for is not known")
    record: dict[str, Any] = _conform(told, SHAPE, NAME, problems)
    return record, problems[:_MOST]


def _conform(value: Any, shape: Any, where: str, problems: list[str]) -> Any:
    """`value` where it is of the shape, else what stands for nothing in its place."""
    kind = type(shape) if isinstance(shape, (Mapping, list)) else shape
    if value is None:
        value = {} if kind is dict else [] if kind is list else kind()
    if not _fits(value, kind):
        problems.append(f"ernie.json: `{where}` is {_short(value)}, {_NAMES[kind]} expected")
        value = kind()
    if isinstance(shape, list):
        return [_conform(each, shape[0], f"{where}[{place}]", problems) for place, each in enumerate(value)]
    if not isinstance(shape, Mapping):
        return float(value) if kind is float else value
    if EACH in shape:
        return {name: _conform(each, shape[EACH], f"{where}.{name}", problems) for name, each in value.items()}
    return {name: _conform(value.get(name), inner, f"{where}.{name}", problems) for name, inner in shape.items()}


_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", dict: "an object", list: "a list"}


def _fits(value: Any, kind: type) -> bool:
    if kind is str:
        return isinstance(value, str) and len(value) <= _LONGEST
    if kind in (int, float) and isinstance(value, (int, float)) and not isinstance(value, bool):
        return isinstance(value, (int, kind)) and 0 <= value < _LARGEST  # NaN is neither
    return isinstance(value, kind) and kind not in (int, float)


def _short(value: Any) -> str:
    said = f"{value!r:.200}" if not isinstance(value, (dict, list)) else f"a {type(value).__name__}"
    return said if len(said) <= 40 else f"{said[:37]}…"
