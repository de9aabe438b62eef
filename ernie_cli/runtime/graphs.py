"""The contract of graph models of any kind: named arrays in, named arrays out. Decoders with a KV cache have their own, see `Session`.

A backend that runs graphs has `open_graph(model, device="auto", *, threads=None, exact=True) -> GraphSession` beside (or
instead of) `open`. exact=False: what is quicker on this machine may be computed in its place, where its numbers are as fine as the file's.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from ..errors import InputError, UnsupportedError, UsageError
from ..model import Model
from . import __path__


@dataclass(frozen=True)
class TensorSpec:
    """An input or output. dtype: a numpy name ("float32", "int64", "bool", …; "bfloat16" is ml_dtypes'), "" where the format does
    not say. shape: one entry per axis, a number, a symbol's name ("batch") or None where unknown; None where even the rank is."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None

    def as_dict(self) -> dict[str, Any]:
        """As manifests keep it: {"name", "dtype", "shape"}."""
        return {"name": self.name, "dtype": self.dtype, "shape": None if self.shape is None else list(self.shape)}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> TensorSpec:
        """Back from `as_dict`. Raises InputError where the entry is none."""
        try:
            shape = entry["shape"]
            return cls(str(entry["name"]), str(entry["dtype"]), None if shape is None else tuple(shape))
        except (KeyError, TypeError) as err:
            raise InputError(f"ernie.json: {dict(entry)!r:.100} is no description of a tensor", "make the folder again") from err


@dataclass(frozen=True)
class Step:
    """One computed value of a graph: its name, what computed it ("Conv", "aten::conv2d", "pd_op.conv2d"), the names of what went
    in (values and weights), and the value, None where it is no tensor."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    value: np.ndarray | None


class GraphSession(Protocol):
    """An opened graph model."""

    backend: str
    device: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every input's array by name → every output's, in the order of `outputs`. Raises UsageError for wrong names, types or shapes."""
        ...

    def steps(self, feeds: Mapping[str, np.ndarray]) -> Iterator[Step]:
        """Run with nothing fused and yield every value of the main graph in the order of computation. For finding where two models part."""
        ...

    def close(self) -> None:
        """Give back memory."""
        ...


def graph_backends() -> dict[str, ModuleType]:
    """Every backend that runs graphs, by name. Importing one loads no inference library."""
    names = [found.name for found in pkgutil.iter_modules(__path__)]
    modules = {name: importlib.import_module(f"{__package__}.{name}") for name in names}
    able = (name for name, module in modules.items() if hasattr(module, "FORMATS") and callable(getattr(module, "open_graph", None)))
    return {name: modules[name] for name in able}


def open_graph(
    model: Model, backend: str = "auto", device: str = "auto", *, threads: int | None = None, exact: bool = True
) -> GraphSession:
    """Open a graph model on the backend that takes its format.

    Raises UsageError for an unknown backend, UnsupportedError where none takes the format, and what the backend raises.
    """
    known = graph_backends()
    if backend not in ("auto", *known):
        raise UsageError(f"no backend named `{backend}` runs graphs", f"there are {', '.join(sorted(known))}")
    asked = {name: module for name, module in known.items() if backend == name or (backend == "auto" and not hasattr(module, "ONLY_ASKED"))}
    able = [name for name, module in asked.items() if model.format in module.FORMATS]
    if not able:
        taken = ", ".join(f"{name} ({', '.join(module.FORMATS)})" for name, module in sorted(known.items()))
        raise UnsupportedError(
            f"{model.path}: {'no backend' if backend == 'auto' else backend} does not run {model.format}", f"there are {taken}"
        )
    session: GraphSession = known[able[0]].open_graph(model, device, threads=threads, exact=exact)
    return session


def check_feeds(inputs: tuple[TensorSpec, ...], feeds: Mapping[str, np.ndarray]) -> None:
    """Raise UsageError unless `feeds` holds exactly the inputs, each with the type, rank and fixed lengths that its spec tells."""
    missing = [spec.name for spec in inputs if spec.name not in feeds]
    unknown = sorted(set(feeds) - {spec.name for spec in inputs})
    if missing or unknown:
        said = [*(f"no array for `{name}`" for name in missing), *(f"`{name}` is no input" for name in unknown)]
        raise UsageError("; ".join(said[:6]), f"the inputs are {', '.join(spec.name for spec in inputs)}")
    for spec in inputs:
        array = feeds[spec.name]
        if spec.dtype and array.dtype.name != spec.dtype:
            raise UsageError(f"`{spec.name}` is {array.dtype.name}, {spec.dtype} expected", f"convert it: array.astype('{spec.dtype}')")
        if spec.shape is None:
            continue
        if array.ndim != len(spec.shape) or any(
            isinstance(want, int) and want != has for want, has in zip(spec.shape, array.shape, strict=True)
        ):
            what = f"`{spec.name}` has shape {list(array.shape)}, {list(spec.shape)} expected"
            raise UsageError(what, "`ernie inspect` shows the inputs")
