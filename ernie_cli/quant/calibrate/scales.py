"""Scales of activations: measured once per graph, data and method, kept as JSON that people can read, edit and give back.

How they are measured is observers.py's and collect.py's.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from ... import __version__, console
from ...errors import InputError, UsageError
from ...model import Model, read_json
from ...need import need
from ...runtime.open import cache_folder
from ...staging import write_file
from ..options import Options
from ..scheme import TYPES
from .collect import collect
from .data import Data
from .observers import Observer, observer

_EXAMPLE = '{"kind": "int8", "scales": {"NAME": 0.0123}}, as ernie writes it'
#: What a scale cannot be below: the smallest normal number of the value's own type, in which the graph keeps it.
_LEAST = {ir.DataType.FLOAT16: float(np.finfo(np.float16).tiny)}


@dataclass(frozen=True)
class Scales:
    """scales: value's name → scale. kind: int8 or fp8. graph, data: digests of what they were measured on, "" where by hand."""

    scales: Mapping[str, float]
    kind: str = ""
    observer: str = ""
    graph: str = ""
    data: str = ""
    said: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


def activation_scales(model: Model, names: Sequence[str], kind: str, data: Data | None, options: Options) -> dict[str, float]:
    """Value's name → scale: threshold / largest code of `kind`.

    Taken from the file `options.scales` where one is given, which needs no data; else from the cache; else measured with
    `options.observer`. Raises UsageError where the file lacks a name, InputError where it is broken or a value is not finite.
    """
    names = list(dict.fromkeys(names))
    if options.scales:
        return given_scales(Path(options.scales), names, kind, model)
    if data is None:
        raise UsageError("neither scales nor data to measure them on", "give --data, or --scales FILE.json")
    about = Scales({}, kind, options.observer, graph_digest(model), data.digest, data.said, _versions())
    file = cache_folder() / "scales" / f"{_key(about)}.json"
    known = _cached(file, about)
    missing = [name for name in names if name not in known]
    if missing:
        known |= _measured(model, missing, kind, data, options.observer)
        _keep(file, Scales(**{**asdict(about), "scales": known}))
    else:
        console.detail(f"scales of {len(names)} activations are in {file}")
    return {name: known[name] for name in names}


def given_scales(path: Path, names: Sequence[str], kind: str, model: Model) -> dict[str, float]:
    """The named scales of a file that a person gives. Raises UsageError where it lacks one or is for other codes."""
    found = read_scales(path)
    if found.kind not in ("", kind):
        raise UsageError(
            f"{path}: these scales are for {found.kind}, not {kind}", f"make others, or remove `kind` if they were made for {kind}"
        )
    missing = [name for name in names if name not in found.scales]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        what = f"{path}: no scale for {', '.join(f'`{name}`' for name in missing[:5])}{more}"
        raise UsageError(what, "add them, or leave out --scales to measure all")
    if found.graph and found.graph != graph_digest(model):
        console.warn(f"{path}: these scales were measured on another graph, or on other weights")
    return {name: found.scales[name] for name in names}


def read_scales(path: Path) -> Scales:
    """Scales from JSON: what `write_scales` wrote, the report of a quantisation, or a plain {name: number}.

    Raises InputError naming what is wrong.
    """
    content = read_json(path)
    within = content.get("scales")
    if isinstance(within, dict) and isinstance(within.get("values"), dict):  # as reports have them, see work.py
        content = {"kind": within.get("type"), "observer": within.get("observer"), "scales": within["values"]}
    listed = content.get("scales", None if "kind" in content else content)
    if not isinstance(listed, dict) or not listed:
        raise InputError(f"{path}: it holds no scales", _EXAMPLE)
    for name, scale in listed.items():
        if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 < scale < math.inf:
            raise InputError(f"{path}: the scale of `{name}` is {scale!r:.40}: a number above 0 is needed", _EXAMPLE)
    told = content if listed is not content else {}
    words = {name: told[name] for name in ("kind", "observer", "graph", "data", "said") if isinstance(told.get(name), str)}
    versions = told.get("versions")
    return Scales({name: float(scale) for name, scale in listed.items()}, **words, versions=versions if isinstance(versions, dict) else {})


def write_scales(path: Path, scales: Scales) -> None:
    """Write JSON with a line per scale, whole or not at all."""
    content = asdict(scales)
    listed = content.pop("scales")
    write_file(path, json.dumps({**content, "scales": listed}, ensure_ascii=False, indent=2) + "\n")


def graph_digest(model: Model) -> str:
    """Of the graph and all its weights: the content alone, so that a copy, or the same model made again, has the same."""
    file = model.main_file()
    digest = hashlib.sha256()
    for part in [file, *(file.parent / name for name in _beside(file))]:
        with part.open("rb") as handle:
            while piece := handle.read(1 << 22):
                digest.update(piece)
    return digest.hexdigest()


def _beside(file: Path) -> list[str]:
    values = ir.load(file).graph.initializers.values()
    return sorted({tensor.location for value in values if isinstance(tensor := value.const_value, ir.ExternalTensor)})  # type: ignore[misc]


def _key(about: Scales) -> str:
    words = [about.kind, about.observer, about.graph, about.data, *sorted(about.versions.items())]
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:32]


def _cached(file: Path, about: Scales) -> dict[str, float]:
    if not file.is_file():
        return {}
    try:
        found = read_scales(file)
    except (InputError, OSError) as err:
        console.detail(f"measuring again: {err}")
        return {}
    same = (found.kind, found.graph, found.data) == (about.kind, about.graph, about.data)
    return dict(found.scales) if same else {}


def _keep(file: Path, scales: Scales) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_scales(file, scales)
    except OSError as err:
        console.detail(f"the scales are not kept for another time: {err}")


def _measured(model: Model, names: Sequence[str], kind: str, data: Data, method: str) -> dict[str, float]:
    watching = {name: observer(method) for name in names}
    collect(model, watching, data)
    least = _least(model)
    return {name: max(_scale(name, found, kind), least.get(name, float(np.finfo(np.float32).tiny))) for name, found in watching.items()}


def _scale(name: str, found: Observer, kind: str) -> float:
    if found.histogram.bad:
        what = f"`{name}` is NaN or infinite in {found.histogram.bad} places when the model runs on the data"
        raise InputError(what, "look at the data; --exclude the layers that it goes into leaves it in float")
    return found.threshold(kind) / TYPES[kind][0]


def _least(model: Model) -> dict[str, float]:
    """What scales may not be below, by value, where that is not float32's own smallest number."""
    graph = ir.load(model.main_file()).graph
    values = (value for node in graph for value in node.outputs)
    return {str(value.name): _LEAST[value.dtype] for value in (*graph.inputs, *values) if value.dtype in _LEAST}


def _versions() -> dict[str, Any]:
    return {"ernie": __version__, "onnxruntime": need("onnxruntime").__version__, "numpy": np.__version__}
