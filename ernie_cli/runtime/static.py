"""Rows over a static KV cache: one buffer per layer, bound as input and output, written in place by the graph.

Rows stand at positions of their own. Buffers start small and grow by half as rows lengthen, up to the context: attention looks
at every slot, so slots nobody needs would cost time. Steps of some rows run on those rows' part of the buffers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import SessionInfo
from .cache_types import ARRAYS, shared

#: Slots at the start, and what buffers are sized in multiples of.
SLOTS = 64


class StaticRows:
    """Keeps `cache.<i>.key|value` [batch, g, T, d] for all rows."""

    def __init__(self, session: Any, info: SessionInfo) -> None:
        self.session, self.info = session, info
        caches = [value for value in session.get_inputs() if value.name.startswith("cache.")]
        self.names = [value.name for value in caches]
        self.type = caches[0].type
        self.heads, self.head_dim = int(caches[0].shape[1]), int(caches[0].shape[3])
        self.buffers: list[np.ndarray] = []
        self._resize(min(SLOTS, info.context))

    def step(self, tokens: np.ndarray, rows: list[int], lengths: list[int]) -> np.ndarray:
        """tokens int64 [n, S] → logits float32 [n, V]; each row's tokens go to slots from its length on."""
        needed = max(lengths) + tokens.shape[1]
        if needed > self.slots:
            slots = max(needed, self.slots * 3 // 2)
            self._resize(min(-(-slots // SLOTS) * SLOTS, self.info.context))
        pieces = []
        for first, last in runs(rows):  # buffers can be bound for neighbouring rows only
            part = slice(rows.index(first), rows.index(last) + 1)
            pieces.append(self._run(tokens[part], slice(first, last + 1), np.array(lengths[part], np.int64)))
        return np.concatenate(pieces)

    def _run(self, tokens: np.ndarray, rows: slice, positions: np.ndarray) -> np.ndarray:
        binding = self.session.io_binding()
        binding.bind_cpu_input("input_ids", np.ascontiguousarray(tokens))
        binding.bind_cpu_input("positions", positions)
        for name, buffer in zip(self.names, self.buffers, strict=True):
            value = shared(buffer[rows], self.type)  # rows are contiguous
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(name.replace("cache.", "cache_out.", 1), value)
        binding.bind_output("logits", "cpu")
        self.session.run_with_iobinding(binding)
        return binding.get_outputs()[-1].numpy()

    def _resize(self, slots: int) -> None:
        shape = (self.info.batch, self.heads, slots, self.head_dim)
        old, self.slots = self.buffers, slots
        self.buffers = [np.zeros(shape, ARRAYS[self.type]) for _ in self.names]
        for new, kept in zip(self.buffers, old, strict=False):
            new[:, :, : kept.shape[2]] = kept

    def close(self) -> None:
        del self.session, self.buffers


def runs(rows: list[int]) -> list[tuple[int, int]]:
    """[0, 1, 3] → [(0, 1), (3, 3)]: the runs of neighbours in an ascending list."""
    found: list[tuple[int, int]] = []
    for row in rows:
        found[-1:] = [(found[-1][0], row)] if found and found[-1][1] == row - 1 else [*found[-1:], (row, row)]
    return found
