"""The graph an engine was built from, found again or made again, and proven by its digests. Comparing the two is verify.py's."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from .. import console, named
from ..digest import sha256_of
from ..errors import ErnieError, InputError
from ..model import Model, fingerprint
from ..staging import safe_join
from . import precision
from .command import rebuild
from .options import Options
from .papers import engine_facts


@contextmanager
def graph_of(engine: Model) -> Iterator[Model]:
    """The ONNX model that holds the engine's weights. What has to be made for it is gone when the block is left.

    Raises InputError (3) where the source is not where the papers say, or not the same any more.
    """
    facts = engine_facts(engine)
    refitted = engine.told("engine").get("weights")
    if refitted is not None:  # by `ernie build --refit-from`
        yield _refitted(engine, refitted)
        return
    source = _source(engine, facts["source"])
    with tempfile.TemporaryDirectory(prefix="ernie-verify-") as folder:
        graph = precision.prepare(source, _options(engine, facts["options"]), Path(folder))
        wrong = "" if graph.path == source.path else different(graph, facts["graph"]["files"])
        if wrong:
            what = f"{source.path} does not become the graph that {engine.path} was built from any more: {wrong}"
            raise InputError(what, f"build it again with what is installed now: {rebuild(engine)}")
        yield graph


def different(model: Model, files: Mapping[str, Any]) -> str:
    """What of a model's files is not as `files` (name → {"size", "sha256"}) says, "" where all is. Raises InputError for bad names."""
    if not files:
        return "the papers hold no digests of it"
    here = {name: safe_join(model.folder, name) for name in files}
    for name, file in here.items():
        if not file.is_file():
            return f"there is no {name}"
        if file.stat().st_size != files[name]["size"]:
            return f"{name} has another size"
    if model.format == "onnx" and model.main_file() not in here.values():
        return f"its graph is {model.main_file().name}, not one of {', '.join(here)}"
    with console.progress("hashing", sum(file.stat().st_size for file in here.values()), unit="bytes") as meter:
        return next((f"{name} is another" for name, file in here.items() if sha256_of(file, meter.advance) != files[name]["sha256"]), "")


def _source(engine: Model, told: Mapping[str, Any]) -> Model:
    """What was asked to be built: where the papers say, beside the engine, or the embedded model."""
    recorded = Path(told["path"])
    reasons = []
    for place in dict.fromkeys((recorded, engine.folder.resolve().parent / recorded.name, named.resolve(named.EMBEDDED))):
        try:
            source = Model.open(place)
            wrong = different(source, told["files"])
        except (ErnieError, OSError) as err:
            wrong = str(err)
        if not wrong:
            return source
        reasons.append(f"{place}: {wrong}")
    first = reasons[0] if recorded.name else "the papers do not say what it was built from"
    raise InputError(f"{engine.path}: what it was built from is not here: {first}", f"copy it to {recorded}, or beside {engine.folder}")


def _refitted(engine: Model, told: Any) -> Model:
    path = Path(str(told.get("path", ""))) if isinstance(told, dict) else Path()
    graph = Model.open(path)
    if fingerprint(graph.path) != told.get("fingerprint"):
        raise InputError(f"{path} is not the model any more whose weights {engine.path} holds", f"ernie build {engine.path} --refit-from")
    return graph


def _options(engine: Model, told: Mapping[str, Any]) -> Options:
    known = {field.name for field in fields(Options)}
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in told.items() if name in known}
    try:
        return Options(**values)
    except TypeError as err:
        raise InputError(f"{engine.path}: its papers do not say how it was built: {err}", rebuild(engine)) from err
