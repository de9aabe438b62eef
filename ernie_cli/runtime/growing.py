"""Rows over a growing KV cache: each row keeps the `present` tensors of its last step as the `past` of its next.

Rows of one length could run as one batch, but rarely have one: they run one by one. The static cache is made for batches, and for
GPUs: here every step on one makes new buffers there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import SessionInfo
from .cache_types import ARRAYS, content, shared
from .place import HOST, Place
from .step import PLAIN, Captures


class GrowingRows:
    """Keeps `past.<i>.key|value` of every row: arrays where the CPU computes, OrtValues in its memory where a GPU does."""

    def __init__(self, session: Any, info: SessionInfo, place: Place = HOST) -> None:
        self.session, self.place = session, place
        caches = [value for value in session.get_inputs() if value.name.startswith("past.")]
        self.names = [value.name for value in caches]
        self.outputs = [name.replace("past.", "present.", 1) for name in self.names]
        self.type = caches[0].type
        self.empty = [np.zeros((1, value.shape[1], 0, value.shape[3]), ARRAYS[self.type]) for value in caches]
        self.past: list[list[Any]] = [self.empty for _ in range(info.batch)]
        self.options = Captures(session, place.capture).options(PLAIN)  # buffers that move make no CUDA graph

    def step(self, tokens: np.ndarray, rows: list[int], lengths: list[int]) -> np.ndarray:
        """tokens int64 [n, S] → logits float32 [n, V]; `lengths` is how much of each row's past still counts."""
        run = self._on_cpu if self.place.kind == "cpu" else self._on_gpu
        return np.concatenate([run(ids[None], row, length) for row, length, ids in zip(rows, lengths, tokens, strict=True)])

    def _on_cpu(self, ids: np.ndarray, row: int, length: int) -> np.ndarray:
        kept = [np.ascontiguousarray(tensor[:, :, :length]) for tensor in self.past[row]]  # shorter after a truncate
        past = [shared(tensor, self.type) for tensor in kept]
        feeds = dict(zip(self.names, past, strict=True))
        logits: np.ndarray
        logits, *self.past[row] = self.session.run(["logits", *self.outputs], {"input_ids": ids, **feeds})
        return logits

    def _on_gpu(self, ids: np.ndarray, row: int, length: int) -> np.ndarray:
        """The same, the past staying where it is. Only what a truncate leaves goes through main memory."""
        binding = self.session.io_binding()
        binding.bind_cpu_input("input_ids", np.ascontiguousarray(ids))
        for name, value in zip(self.names, self.past[row], strict=True):
            if length == 0:
                binding.bind_ortvalue_input(name, shared(self.empty[0], self.type))
            elif value.shape()[2] == length:
                binding.bind_ortvalue_input(name, value)
            else:
                binding.bind_ortvalue_input(name, shared(np.ascontiguousarray(content(value, self.type)[:, :, :length]), self.type))
        for name in self.outputs:
            binding.bind_output(name, self.place.kind, self.place.number)
        binding.bind_output("logits", "cpu")
        self.session.run_with_iobinding(binding, self.options)
        *self.past[row], logits = binding.get_outputs()
        return np.array(logits.numpy())

    def close(self) -> None:
        del self.session, self.past
