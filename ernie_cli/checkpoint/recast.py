"""Rewrites a checkpoint in the other layout: bit for bit, one tensor at a time, checked before anything is written.

The table of `layout` says what goes where; `writer` makes the files. Renaming into place is the caller's matter.
"""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from .finite import all_finite
from .layout import Layout, Part, Tensor
from .reader import Checkpoint
from .stream import HashedFile
from .turn import COLUMNS, Turner
from .writer import Spec

_BAND_BYTES = 2 << 20
_KIND: dict[Layout, str] = {"hf": "pt", "paddle": "np"}  # what transformers and PaddleFormers expect in a header's `format`
_TOKENIZER = "tokenizer_config.json"


class Recast:
    """One checkpoint on its way into another layout."""

    def __init__(self, source: Checkpoint, target: Layout) -> None:
        self._source, self._target = source, target
        self._turner = Turner()
        self._jobs: dict[str, tuple[Tensor, Part | None]] = {}
        for tensor in source.table:
            if target == "paddle":
                self._jobs[tensor.paddle] = (tensor, None)
            else:
                self._jobs |= {part.name: (tensor, part) for part in tensor.parts}

    def specs(self) -> list[Spec]:
        """Name, dtype and shape of every tensor to be written.

        Raises InputError where tensors that paddle joins into one are of different types.
        """
        return [Spec(name, self._dtype(tensor), part.shape if part else tensor.shape) for name, (tensor, part) in self._jobs.items()]

    def _dtype(self, tensor: Tensor) -> str:
        found = {name: self._source.entries[name].dtype for name in tensor.names(self._source.layout)}
        if len(set(found.values())) > 1:
            said = ", ".join(f"`{name}` is {dtype}" for name, dtype in found.items())
            raise InputError(
                f"{self._source.folder}: {said}: joined into `{tensor.paddle}` they must be of one type", "cast them to one type first"
            )
        return next(iter(found.values()))

    def _sources(self, tensor: Tensor, part: Part | None) -> list[np.ndarray]:
        """The arrays whose concatenation (or, where `tensor.turned`, transposed side by side) is the output."""
        if part is None:
            return [self._source.map(piece.name) for piece in tensor.parts]
        rows = slice(part.first_row, part.first_row + part.shape[0])
        return [self._source.map(tensor.paddle)[..., rows] if tensor.turned else self._source.map(tensor.paddle)[rows]]

    def fill(self, name: str, file: HashedFile) -> None:
        """Write one tensor's bytes, a few megabytes at a time. Raises InputError at the first NaN or infinite weight."""
        tensor, part = self._jobs[name]
        sources = self._sources(tensor, part)
        if tensor.turned and sources[0].ndim == 2:
            self._turned(name, sources, file)
            return
        for array in sources:
            flat = np.ascontiguousarray(array).reshape(-1)
            step = _BAND_BYTES // flat.itemsize
            for start in range(0, flat.size, step):
                self._write(name, flat[start : start + step], file)

    def _turned(self, name: str, sources: list[np.ndarray], file: HashedFile) -> None:
        width = sum(len(array) for array in sources)
        dtype = sources[0].dtype
        height = sources[0].shape[1]
        step = max(_BAND_BYTES // max(width * dtype.itemsize, 1) // COLUMNS, 1) * COLUMNS
        for row in range(0, height, step):
            rows = min(step, height - row)
            band = file.buffer(rows * width * dtype.itemsize).view(dtype).reshape(rows, width)
            column = 0
            for array in sources:
                self._turner.turn(array[:, row : row + rows], band[:, column : column + len(array)])
                column += len(array)
            self._write(name, band, file)

    def _write(self, name: str, array: np.ndarray, file: HashedFile) -> None:
        if not all_finite(array):
            stored = " or ".join(f"`{found}`" for found in self._jobs[name][0].names(self._source.layout))
            raise InputError(
                f"{self._source.folder}: tensor {stored} holds NaN or infinite weights", "fetch the model again: `ernie download --force`"
            )
        file.write(array.reshape(-1).view(np.uint8))
