"""What an archive's pickles say: its tensors with where they lie, and the inputs it was traced with. Loads no tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import InputError
from ..runtime.graphs import TensorSpec
from .archive import Archive
from .pickled import Object, Tensor, read, tensors

_PICKLES = {"data.pkl": "data", "constants.pkl": "constants"}


@dataclass(frozen=True)
class Stored:
    """A weight (by its attribute path) or a constant of the code (`CONSTANTS.c0`)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    record: str
    n_bytes: int
    problem: str


@dataclass(frozen=True)
class Contents:
    """root_class: the module's qualified class name. traced: of the arguments of `forward`, None where it was not traced
    (or by a torch before 2.3, which kept no record); an argument that is no tensor is None."""

    root_class: str
    tensors: tuple[Stored, ...]
    traced: tuple[TensorSpec | None, ...] | None


def contents(archive: Archive) -> Contents:
    """Read the pickles. Raises InputError where they are not torch's; tensors without their data have a `problem`."""
    found: list[Stored] = []
    root = ""
    for name, folder in _PICKLES.items():
        if not archive.has(name):
            raise InputError(f"{archive.file}: it has no {name}", "save it again: torch.jit.script(module).save('model.pt')")
        value = read(archive.read(name), f"{archive.file}: {name}")
        root = value.kind if isinstance(value, Object) else root
        named = ((f"CONSTANTS.c{path}" if folder == "constants" else path, tensor) for path, tensor in tensors(value))
        found += [_stored(archive, folder, path, tensor) for path, tensor in named]
    return Contents(root, tuple(found), _traced(archive))


def _stored(archive: Archive, folder: str, name: str, tensor: Tensor) -> Stored:
    record, needed = f"{folder}/{tensor.key}", tensor.stored * tensor.itemsize
    has = archive.size(record) if archive.has(record) else None
    problem = ""
    if has is None:
        problem = f"the data of `{name}`, {record}, is missing"
    elif has < needed:
        problem = f"{record} holds {has} bytes where `{name}` takes {needed}"
    return Stored(name, tensor.dtype, tensor.shape, record, math.prod(tensor.shape) * tensor.itemsize, problem)


def _traced(archive: Archive) -> tuple[TensorSpec | None, ...] | None:
    """torch.jit.trace keeps its example inputs' types and shapes (their data is emptied)."""
    if not archive.has("traced_inputs.pkl"):
        return None
    calls = read(archive.read("traced_inputs.pkl"), f"{archive.file}: traced_inputs.pkl")
    arguments = calls.get("forward") if isinstance(calls, dict) else None
    if not isinstance(arguments, list | tuple):
        return None
    return tuple(TensorSpec("", value.dtype, value.shape) if isinstance(value, Tensor) else None for value in arguments)
