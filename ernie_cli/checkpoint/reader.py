"""A checkpoint in either layout, read as transformers tensors one at a time. Writes nothing, holds nothing."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .config import Config, read_config
from .finite import all_finite
from .layout import Layout, Part, Tensor, layout_of_names, tensors
from .match import match
from .safetensors_file import DTYPES, Entry
from .shards import read_folder
from .turn import Turner


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint: every tensor the config asks for is there, in its shape, in files whose headers were checked.

    `entries` maps the names of those tensors *as stored* to where they lie, `table` lists the model's tensors, `skipped`
    names what the files hold beyond them.
    """

    folder: Path
    config: Config
    layout: Layout
    entries: dict[str, Entry]
    table: tuple[Tensor, ...]
    skipped: tuple[str, ...]

    @classmethod
    def open(cls, folder: str | Path) -> Checkpoint:
        """Read the headers and compare every name, shape and type with config.json. `folder` may also be one safetensors file.

        Raises InputError with everything that is wrong, UnsupportedError for other architectures and quantised weights.
        """
        path = Path(folder)
        found = read_folder(path)
        folder = path if path.is_dir() else path.parent
        config = read_config(folder)
        layout = layout_of_names(found, str(folder))
        config, entries, skipped = match(folder, config, layout, found)
        return cls(folder, config, layout, entries, tuple(tensors(config)), skipped)

    def names(self) -> list[str]:
        """The transformers names of all tensors, in the order in which the model uses them."""
        return list(self._parts)

    def info(self, name: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """(dtype, shape) of a tensor in the transformers layout. Raises KeyError for names not in `names()`."""
        tensor, part = self._parts[name]
        stored = self.entries[tensor.paddle if self.layout == "paddle" else name]
        return DTYPES[stored.dtype], part.shape

    def read(self, name: str) -> np.ndarray:
        """A tensor in the transformers layout ([out, in]), of the dtype it is stored in.

        A read-only map of the file where the layouts agree, else a copy; either gives its memory back when dropped.
        Raises InputError where it holds NaN or infinite values, KeyError for names not in `names()`.
        """
        array = self.view(name)
        if not array.flags.c_contiguous:
            turned = np.empty(array.shape, array.dtype)
            Turner().turn(array.T, turned)
            array = turned
        if not all_finite(array):
            raise InputError(
                f"{self.folder}: tensor `{name}` holds NaN or infinite weights", "fetch the model again: `ernie download --force`"
            )
        return array

    def view(self, name: str) -> np.ndarray:
        """The same without a copy and unchecked: where layouts differ, a strided view of the map. For a look at few elements."""
        tensor, part = self._parts[name]
        if self.layout == "hf":
            return self.map(name)
        whole = self.map(tensor.paddle)
        return (whole.T if tensor.turned else whole)[part.first_row : part.first_row + part.shape[0]]

    def map(self, stored_name: str) -> np.ndarray:
        """A stored tensor as a read-only map of its own bytes, so that dropping the array unmaps them."""
        entry = self.entries[stored_name]
        dtype = DTYPES[entry.dtype]
        before = entry.start % mmap.ALLOCATIONGRANULARITY  # where a map may start
        with entry.file.open("rb") as file:
            if os.fstat(file.fileno()).st_size < entry.start + entry.n_bytes:
                raise InputError(f"{entry.file}: it became shorter while it was read", "let its writer finish first")
            mapped = mmap.mmap(file.fileno(), before + entry.n_bytes, access=mmap.ACCESS_READ, offset=entry.start - before)
        return np.frombuffer(mapped, np.uint8, entry.n_bytes, before).view(dtype).reshape(entry.shape)

    @cached_property
    def _parts(self) -> dict[str, tuple[Tensor, Part]]:
        return {part.name: (tensor, part) for tensor in self.table for part in tensor.parts}
