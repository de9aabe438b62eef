"""The fake: a deterministic session without a model, so that every command runs end to end in milliseconds, anywhere.

It keeps the whole contract (rows, truncate, limits); only its logits mean nothing: a hash of the row's history picks the
likeliest token, and its successors follow, each a little less likely. Any folder is a model to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import UsageError
from ..model import Model
from . import SessionInfo, count

#: Opens whatever it is given, but is never chosen unless named.
FORMATS: tuple[str, ...] = ()
#: Where config.json names none: one token per byte.
_VOCABULARY = 256
_CONTEXT = 2048


def open(model: Model, device: str = "auto", *, batch: int = 1, context: int | None = None, threads: int | None = None) -> FakeSession:
    """vocab_size and max_position_embeddings come from config.json where there is one; `context` may be any number."""
    vocabulary = count(model, "vocab_size", _VOCABULARY)
    limit = count(model, "max_position_embeddings", _CONTEXT)
    return FakeSession(SessionInfo("fake", "cpu", vocabulary, context or limit, batch))


class FakeSession:
    """See runtime.Session."""

    def __init__(self, info: SessionInfo) -> None:
        self.info = info
        self._history: list[list[int]] = [[0] for _ in range(info.batch)]  # the hash after 0, 1, 2 … tokens of each row
        self._falling = -0.05 * np.arange(info.vocab_size, dtype=np.float32)

    def step(self, tokens: np.ndarray, rows: Sequence[int] | None = None) -> np.ndarray:
        """See runtime.Session.step."""
        chosen = list(range(self.info.batch)) if rows is None else list(rows)
        self._check(tokens, chosen)
        for row, ids in zip(chosen, tokens.tolist(), strict=True):
            history = self._history[row]
            for token in ids:
                history.append((history[-1] * 31 + token + 7) % self.info.vocab_size)
        return np.stack([np.roll(self._falling, self._history[row][-1]) for row in chosen])

    def length(self, row: int = 0) -> int:
        return len(self._history[row]) - 1

    def truncate(self, row: int = 0, length: int = 0) -> None:
        if not 0 <= length <= self.length(row):
            raise UsageError(f"row {row} holds {self.length(row)} tokens: cannot keep {length}")
        del self._history[row][length + 1 :]

    def close(self) -> None:
        self._history.clear()

    def _check(self, tokens: np.ndarray, rows: list[int]) -> None:
        if tokens.ndim != 2 or len(tokens) != len(rows) or tokens.shape[1] < 1:
            raise UsageError(f"tokens of shape {list(tokens.shape)} for {len(rows)} rows: [rows, 1 or more] is needed")
        if tokens.min() < 0 or tokens.max() >= self.info.vocab_size:
            raise UsageError(f"a token id is outside the vocabulary of {self.info.vocab_size}", "is it the right tokenizer?")
        longest = max(self.length(row) for row in rows) + tokens.shape[1]
        if longest > self.info.context:
            hint = "a larger --context, or a shorter prompt"
            raise UsageError(f"{longest} tokens do not fit the context of {self.info.context}", hint)
