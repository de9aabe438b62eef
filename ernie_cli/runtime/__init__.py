"""The backend contract. One file per backend, each with the same face: FORMATS, the formats it takes as they are, and
`open(model, device="auto", *, batch=1, context=None, threads=None) -> Session`.

A session holds a model and a KV cache of `batch` rows that advance on their own. It knows token ids and logits; text,
sampling and the loop live in `ernie_cli.generation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..errors import InputError
from ..model import Model


@dataclass(frozen=True)
class SessionInfo:
    """backend: the file's name in this folder. device: what runs it, for people ("cpu", "cuda:0 NVIDIA L4").
    vocab_size: width of the logits. context: most tokens a row can hold. batch: number of rows. why: this device was taken."""

    backend: str
    device: str
    vocab_size: int
    context: int
    batch: int
    why: str = ""


def count(model: Model, name: str, default: int) -> int:
    """A whole number from config.json, `default` where it has none. Raises InputError where it is anything else."""
    value = model.config().get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 31:
        what = f"{model.folder / 'config.json'}: {name} is {value!r:.80}, a positive number expected"
        raise InputError(what, "compare it with the config.json of the published model")
    return value


class Session(Protocol):
    """An opened model with its KV cache."""

    info: SessionInfo

    def step(self, tokens: np.ndarray, rows: Sequence[int] | None = None) -> np.ndarray:
        """Append tokens to some rows and return what the model expects next.

        tokens: int64 [len(rows), S], S ≥ 1; rows: distinct row numbers in ascending order (None: all of them).
        Returns float32 [len(rows), vocab_size]: the logits after each row's last token; the caller may change it.
        Raises UsageError where a row would exceed `info.context` or a token id is outside the vocabulary.
        """
        ...

    def length(self, row: int = 0) -> int:
        """How many tokens the row holds."""
        ...

    def truncate(self, row: int = 0, length: int = 0) -> None:
        """Forget all but the row's first `length` tokens (0: start over). Costs no copying."""
        ...

    def close(self) -> None:
        """Give back memory. The session is of no use afterwards."""
        ...
