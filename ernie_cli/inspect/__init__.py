"""Says what a model on disk is: headers, configs and manifests, never a runtime and never the weights themselves.

Each file here describes one kind of thing as a dict of plain JSON types; how it is shown is `render.py`'s affair.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..model import Model
from . import checkpoint, engine, onnx_graph, pdmodel, provenance, torchscript

#: format → what describes it; each takes the model and returns facts, `tensors` among them.
_DESCRIBE: dict[str, Callable[[Model], dict[str, Any]]] = {
    "hf": checkpoint.describe,
    "paddle": checkpoint.describe,
    "onnx": onnx_graph.describe,
    "torchscript": torchscript.describe,
    "pdmodel": pdmodel.describe,
    "engine": engine.describe,
}


def look(path: Path, *, verify: bool = False) -> dict[str, Any]:
    """Everything known about the model at `path`, as plain JSON types.

    `problems` lists what is not as the model's own files say it is; with `verify` the sha256 of every file that the
    manifest names is computed. Raises InputError where the model cannot be read at all.
    """
    model = Model.open(path)
    if model.format not in _DESCRIBE:
        known = ", ".join(_DESCRIBE)
        raise InputError(f"{path}/ernie.json names the format {model.format!r}", f"ernie knows {known}: make the folder again")
    files = _files(model)
    found: dict[str, Any] = {
        "path": str(path),
        "format": model.format,
        "architecture": model.architecture,
        "precision": model.precision,
        "bytes": sum(files.values()),
        "files": files,
        "problems": [],
    }
    facts = _DESCRIBE[model.format](model)
    origin = provenance.describe(model, verify=verify)
    problems = [*facts.pop("problems", []), *origin.pop("problems")]
    return {**found, **facts, **origin, "problems": problems}


def _files(model: Model) -> dict[str, int]:
    """Name → bytes of every file of the model (of the file alone, where a file was named)."""
    if model.path.is_file():
        return {model.path.name: model.path.stat().st_size}
    listed = (file for file in sorted(model.path.rglob("*")) if file.is_file())
    return {file.relative_to(model.path).as_posix(): file.stat().st_size for file in listed}
