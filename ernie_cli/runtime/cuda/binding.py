"""cuda-python's runtime API as plain calls: what a function returns comes back bare, its error code becomes one of our errors."""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType
from typing import Any

from ...errors import MissingError
from . import errors

#: Where the module is since cuda-python 12.6, and where it was before (13 has the first alone).
MODULES = ("cuda.bindings.runtime", "cuda.cudart")


@cache
def load() -> ModuleType:
    """cuda-python's runtime module. Raises MissingError (exit 5) where it is not installed or does not load."""
    said = []
    for name in MODULES:
        try:
            return importlib.import_module(name)
        except (ImportError, RuntimeError, OSError) as err:  # a broken driver library surfaces as any of these
            said.append(f"{name}: {err}")
    raise MissingError(f"engines run through cuda-python, which does not load ({said[0]})", "pip install cuda-python")


def call(function: str, *arguments: Any) -> Any:
    """Call `function` of the runtime API: its value, a tuple of several, None where there is none.

    Raises MissingError without driver or GPU, ResourceError out of memory, CaptureError where a capture refuses the call.
    """
    try:
        code, *values = getattr(load(), function)(*arguments)
    except RuntimeError as err:  # the binding finds no driver library to call into
        raise MissingError(f"the NVIDIA driver does not answer: {err}", "`ernie doctor` says what is here") from err
    if int(code):
        raise errors.translated(function, str(getattr(code, "name", code)), _text(code))
    return values[0] if len(values) == 1 else tuple(values) or None


def constant(group: str, name: str) -> Any:
    """A member of one of its enumerations."""
    return getattr(getattr(load(), group), name)


def _text(code: Any) -> str:
    """What CUDA says to an error code."""
    _, said = load().cudaGetErrorString(code)
    return said.decode(errors="replace") if isinstance(said, bytes) else str(said)
