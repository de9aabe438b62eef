"""Rows over a static KV cache: one buffer per layer, bound as input and output, written in place by the graph.

Rows stand at positions of their own. Buffers start small and grow as rows lengthen, up to the context: attention looks at every
slot, so slots nobody needs would cost time. Steps of some rows run on those rows' part of the buffers. Where the buffers lie, in
main memory or on a GPU, is the place's to say; how one step is bound and run is step.py's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import SessionInfo
from .cache_types import ARRAYS
from .place import HOST, Place
from .step import Captures, Step

#: What buffers are sized in multiples of, and slots at the start.
SLOTS = 64
#: Slots at the start on a GPU. Growing there sends the cache through main memory and throws CUDA graphs away.
SLOTS_ON_GPU = 512


class StaticRows:
    """Keeps `cache.<i>.key|value` [batch, g, T, d] for all rows."""

    def __init__(self, session: Any, info: SessionInfo, place: Place = HOST) -> None:
        self.session, self.info, self.place = session, info, place
        caches = [value for value in session.get_inputs() if value.name.startswith("cache.")]
        self.names = [value.name for value in caches]
        self.type = caches[0].type
        self.heads, self.head_dim = int(caches[0].shape[1]), int(caches[0].shape[3])
        self.buffers: list[Any] = []  # OrtValues
        self.kept: dict[tuple[int, int], Step] = {}  # steps of one token, by first and last row
        self.captures = Captures(session, place.capture)
        first = info.context if place.tensorrt else SLOTS if place.kind == "cpu" else SLOTS_ON_GPU  # TensorRT builds anew for each size
        self._resize(min(first, info.context))

    def step(self, tokens: np.ndarray, rows: list[int], lengths: list[int]) -> np.ndarray:
        """tokens int64 [n, S] → logits float32 [n, V]; each row's tokens go to slots from its length on."""
        needed = max(lengths) + tokens.shape[1]
        if needed > self.slots:
            slots = max(needed, self.slots * 3 // 2 if self.place.kind == "cpu" else self.slots * 2)
            self._resize(min(-(-slots // SLOTS) * SLOTS, self.info.context))
        pieces = []
        for first, last in runs(rows):  # buffers can be bound for neighbouring rows only
            part = slice(rows.index(first), rows.index(last) + 1)
            step = self._step(first, last, tokens.shape[1])
            pieces.append(step.run(tokens[part], np.array(lengths[part], np.int64)))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _step(self, first: int, last: int, length: int) -> Step:
        """Inputs and outputs of a step, bound. Those of single tokens are kept: a reply takes hundreds of them."""
        found = self.kept.get((first, last)) if length == 1 else None
        if found is None:
            found = Step(self.session, self.place, self.captures, rows=last - first + 1, length=length)
            for name, buffer in zip(self.names, self.buffers, strict=True):
                found.bind_cache(name, name.replace("cache.", "cache_out.", 1), buffer, self.type, first)
        if length == 1:
            self.kept[first, last] = found
        return found

    def _resize(self, slots: int) -> None:
        shape = (self.info.batch, self.heads, slots, self.head_dim)
        self.kept.clear()
        self.captures.forget()
        old, self.slots = self.buffers, slots
        self.buffers = []
        for number in range(len(self.names)):
            content = np.zeros(shape, ARRAYS[self.type])  # zeros: what a mask hides must be finite all the same
            if old:
                content[:, :, : old[number].shape()[2]] = old[number].numpy()
            self.buffers.append(self.place.array(content))

    def close(self) -> None:
        self.kept.clear()
        del self.session, self.buffers


def runs(rows: list[int]) -> list[tuple[int, int]]:
    """[0, 1, 3] → [(0, 1), (3, 3)]: the runs of neighbours in an ascending list."""
    found: list[tuple[int, int]] = []
    for row in rows:
        found[-1:] = [(found[-1][0], row)] if found and found[-1][1] == row - 1 else [*found[-1:], (row, row)]
    return found
