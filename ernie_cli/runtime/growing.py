"""Rows over a growing KV cache: each row keeps the `present` tensors of its last step as the `past` of its next.

Rows of one length could run as one batch, but rarely have one: they run one by one. The static cache is made for batches.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import SessionInfo
from .cache_types import ARRAYS, shared


class GrowingRows:
    """Keeps `past.<i>.key|value` of every row."""

    def __init__(self, session: Any, info: SessionInfo) -> None:
        self.session = session
        caches = [value for value in session.get_inputs() if value.name.startswith("past.")]
        self.names = [value.name for value in caches]
        self.outputs = ["logits"] + [name.replace("past.", "present.", 1) for name in self.names]
        self.type = caches[0].type
        self.empty = [np.zeros((1, value.shape[1], 0, value.shape[3]), ARRAYS[self.type]) for value in caches]
        self.past: list[list[np.ndarray]] = [self.empty for _ in range(info.batch)]

    def step(self, tokens: np.ndarray, rows: list[int], lengths: list[int]) -> np.ndarray:
        """tokens int64 [n, S] → logits float32 [n, V]; `lengths` is how much of each row's past still counts."""
        logits = []
        for row, length, ids in zip(rows, lengths, tokens, strict=True):
            kept = [np.ascontiguousarray(tensor[:, :, :length]) for tensor in self.past[row]]  # shorter after a truncate
            past = [shared(tensor, self.type) for tensor in kept]
            feeds = dict(zip(self.names, past, strict=True))
            result, *self.past[row] = self.session.run(self.outputs, {"input_ids": ids[None], **feeds})
            logits.append(result)
        return np.concatenate(logits)

    def close(self) -> None:
        del self.session, self.past
