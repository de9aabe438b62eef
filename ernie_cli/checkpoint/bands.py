"""Produces the bytes of a checkpoint's tensors in another layout, a few megabytes at a time, from maps of the source."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import InputError
from .finite import all_finite
from .layout import Layout, Part, Tensor
from .reader import Checkpoint
from .stream import HashedFile
from .turn import COLUMNS, Turner
from .writer import Spec

#: Bytes made at a time: as much as a second-level cache holds, so that check, hash and write find them there.
_BAND_BYTES = 2 << 20


class Bands:
    """One checkpoint on its way into the layout `target`. `advance(n_bytes)` is called as bytes are written."""

    def __init__(self, source: Checkpoint, target: Layout) -> None:
        self.advance: Callable[[float], None] = lambda amount: None
        self._source = source
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

    def fill(self, name: str, file: HashedFile) -> None:
        """Write the bytes of one tensor. Raises InputError at the first NaN or infinite weight."""
        tensor, part = self._jobs[name]
        sources = self._sources(tensor, part)
        if tensor.turned and sources[0].ndim == 2:
            self._fill_turned(name, sources, file)
            return
        for array in sources:
            flat = array.reshape(-1)
            step = _BAND_BYTES // flat.itemsize
            for start in range(0, flat.size, step):
                self._write(name, flat[start : start + step], file)

    def _fill_turned(self, name: str, sources: list[np.ndarray], file: HashedFile) -> None:
        """The transposes of `sources` ([n, height] each), side by side: [height, sum of n]."""
        dtype, height = sources[0].dtype, sources[0].shape[1]
        width = sum(len(array) for array in sources)
        step = max(_BAND_BYTES // (width * dtype.itemsize) // COLUMNS, 1) * COLUMNS
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
            stored = " or ".join(f"`{found}`" for found in self._stored(name))
            raise InputError(
                f"{self._source.folder}: tensor {stored} holds NaN or infinite weights", "fetch it again: `ernie download --force`"
            )
        file.write(array.reshape(-1).view(np.uint8))
        self.advance(array.nbytes)

    def _stored(self, name: str) -> tuple[str, ...]:
        return self._jobs[name][0].names(self._source.layout)

    def _dtype(self, tensor: Tensor) -> str:
        found = {name: self._source.entries[name].dtype for name in tensor.names(self._source.layout)}
        if len(set(found.values())) > 1:
            said = ", ".join(f"`{name}` is {dtype}" for name, dtype in found.items())
            raise InputError(f"{self._source.folder}: {said}: `{tensor.paddle}` joins them", "cast them to one type first")
        return next(iter(found.values()))

    def _sources(self, tensor: Tensor, part: Part | None) -> list[np.ndarray]:
        """Maps of what the output is made of: all parts of a paddle tensor, or the slice of one that is a transformers tensor.

        Slices run along the axis that turning brings to the front.
        """
        if part is None:
            return [self._source.map(piece.name) for piece in tensor.parts]
        whole = self._source.map(tensor.paddle)
        rows = slice(part.first_row, part.first_row + part.shape[0])
        return [whole[:, rows] if tensor.turned and whole.ndim == 2 else whole[rows]]
