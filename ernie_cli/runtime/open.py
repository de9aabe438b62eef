"""From what a person typed to an opened session: which backend, and a conversion into the cache where the model needs one.

A backend is a module in this folder with a function `open`; nothing else lists them.
"""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
from pathlib import Path
from types import ModuleType

from .. import console
from ..errors import InputError, UnsupportedError, UsageError
from ..model import Model, fingerprint, read_manifest
from ..named import resolve
from ..staging import Busy, wait_for
from . import Session, __path__

#: What checkpoints are converted to, so that a backend can open them.
_GRAPH = "onnx"


def backends() -> dict[str, ModuleType]:
    """Every backend on disk by name. Importing one loads no inference library: that happens when it opens something."""
    modules = {found.name: importlib.import_module(f"{__package__}.{found.name}") for found in pkgutil.iter_modules(__path__)}
    return {name: module for name, module in modules.items() if callable(getattr(module, "open", None))}


def formats(backend: ModuleType) -> tuple[str, ...]:
    """The formats that a backend opens as they are."""
    return tuple(backend.FORMATS)


def open_session(
    path: str | Path,
    backend: str = "auto",
    device: str = "auto",
    *,
    batch: int = 1,
    context: int | None = None,
    threads: int | None = None,
) -> tuple[Session, Model, str]:
    """Open a model for generation: the session, the model it runs (the converted one), and why this backend and this device.

    path: a folder, a file, or `ernie-4.5-nano`. backend: a file's name in this folder, or auto: engines run in TensorRT, ONNX in
    ONNX Runtime, on a GPU where it reaches one. batch: rows. context: most tokens per row, None: the backend's choice.
    Raises InputError, UsageError, UnsupportedError and what the backend raises.
    """
    if context is not None and context < 1:
        raise UsageError(f"--context {context} makes no sense", "give at least 1, or leave it out")
    known = backends()
    if backend not in ("auto", *known):
        near = difflib.get_close_matches(backend, known, 1)
        hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(sorted(known))}"
        raise UsageError(f"no backend named `{backend}`", hint)
    place = resolve(str(path))
    if backend == "fake" and place.is_dir():
        model, name, reason = Model(place, "any", read_manifest(place)), backend, "asked for"
    else:
        model, name, reason = _openable(Model.open(place), backend, known)
    session: Session = known[name].open(model, device, batch=batch, context=context, threads=threads)
    return session, model, "; ".join(part for part in (reason, session.info.why) if part)


def runnable(model: Model) -> tuple[Model, ModuleType]:
    """`model` in a format that a backend opens, converted into the cache where it is a checkpoint, and that backend.

    Raises UnsupportedError where none runs the format, and what converting raises.
    """
    known = backends()
    found, name, _ = _openable(model, "auto", known)
    return found, known[name]


def _openable(model: Model, backend: str, known: dict[str, ModuleType]) -> tuple[Model, str, str]:
    """The model in a format that the backend opens, the backend's name, and why it was chosen."""
    able = [name for name, module in known.items() if _comes_by_itself(module, model)] if backend == "auto" else [backend]
    if able and model.format in formats(known[able[0]]):
        return model, able[0], "asked for" if backend != "auto" else f"it opens {model.format}"
    if model.format not in ("hf", "paddle") or (able and _GRAPH not in formats(known[able[0]])):
        taken = sorted({name for module in known.values() for name in formats(module)} | {"hf", "paddle"})
        raise UnsupportedError(f"{model.path}: no backend here runs {model.format}", f"`ernie run` takes {', '.join(taken)}")
    return _openable(_converted(model), backend, known)


def _comes_by_itself(module: ModuleType, model: Model) -> bool:
    """Whether `auto` may take a backend for a model. ONLY_ASKED: it is never chosen unless named."""
    return model.format in formats(module) and not getattr(module, "ONLY_ASKED", False)


def _converted(model: Model) -> Model:
    """The model as ONNX, from the cache or converted into it now, by us or by another process that is at it."""
    from .. import route

    out = cache_folder() / _GRAPH / f"{model.path.resolve().name}-{fingerprint(model.path)[:16]}"
    while True:
        plan = route.plan(model.path, to=_GRAPH, out=out)
        if plan.up_to_date:
            console.detail(f"using the ONNX form of {model.path} in {out}")
            return Model.open(plan.out)
        console.info(f"converting {model.path} to ONNX for its first run; kept in {out}")
        try:
            return route.run(plan)
        except Busy:
            console.info("another ernie is at it: waiting")
            wait_for(out)
        except PermissionError as err:
            if not str(err.filename).startswith(str(cache_folder())):
                raise
            hint = f"set ERNIE_CACHE to a folder that may be, or run what `ernie convert {model.path} --to onnx` makes"
            raise InputError(f"{err.filename}: the cache may not be written", hint) from err


def cache_folder() -> Path:
    """$ERNIE_CACHE, else ernie/ in the user's cache folder (https://specifications.freedesktop.org/basedir-spec)."""
    if os.environ.get("ERNIE_CACHE"):
        return Path(os.environ["ERNIE_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ernie"
