"""The command line that makes an engine again, from what its papers say of the one that made it. Runs nothing."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from .. import device as devices
from ..model import Model
from . import record
from .options import Options

#: Fields of Options → how the command line says them; a flag stands alone where its field is true.
_WORDS = {
    "precision": "--precision", "data": "--data", "shapes": "--shape", "context": "--context", "batch": "--batch",
    "library": "--engine-library", "portable": "--portable", "workspace": "--workspace", "effort": "--opt-level",
    "timing_cache": "--timing-cache", "version_compatible": "--version-compatible", "hardware_compatible": "--hardware-compatible",
    "refit": "--refit", "strip_weights": "--strip-weights", "weight_streaming": "--weight-streaming",
}  # fmt: skip
#: Longer words were not typed by anyone.
_LONGEST = 4096


def rebuild(model: Model, device: str | None = None) -> str:
    """`ernie build SOURCE --device DEVICE … -o OUT --force`, as far as the papers tell; MODEL where they do not name the source.

    device: another than it was built for ("auto": the GPU of the machine where this is typed). Raises nothing.
    """
    engine = _object(model.manifest.get(record.NAME))
    source, target = (_object(engine.get(name)) for name in ("source", "target"))
    built_for = _text(target.get("device"))
    words = ["ernie", "build", _text(source.get("path")) or "MODEL"]
    words += [
        "--device",
        device or (built_for if built_for in devices.names() else devices.AUTO),
        *_options(_object(engine.get("options"))),
    ]
    return shlex.join([*words, "-o", *([str(model.folder), "--force"] if model.manifest else ["OUT"])])


def _options(told: Mapping[str, Any]) -> Iterator[str]:
    """Those that differ from what is meant where nothing is said."""
    usual = vars(Options())
    for name, word in _WORDS.items():
        value = told.get(name)
        if value in (None, "", [], usual[name]):
            continue
        if value is True:
            yield word
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, (str, int)) and not isinstance(each, bool) and (text := _text(str(each))):
                yield from (word, text)


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) and len(value) <= _LONGEST and value.isprintable() else ""
