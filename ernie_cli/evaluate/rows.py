"""Models opened for the logits after every token, rows of a batch side by side. What is made of the logits lies elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from .. import console
from ..errors import InputError
from ..model import Model
from ..runtime import Session, SessionInfo, count
from ..runtime import onnxruntime as ort_backend
from ..runtime.growing import GrowingRows
from ..runtime.onnxruntime_session import translated
from ..runtime.open import runnable
from ..runtime.static import StaticRows
from .all_logits import give_all

#: Bytes of float32 logits that one step may give: 81 tokens of a vocabulary of 103,424. On the way three copies are made of them.
LOGITS_BYTES = 32 << 20


class Rows(Protocol):
    """What a decoder is asked here; see runtime/onnxruntime.py, whose Rows may give the last token's logits alone."""

    def step(self, tokens: np.ndarray, rows: list[int], lengths: list[int]) -> np.ndarray:
        """tokens int64 [n, S] go behind the first `lengths` tokens of each row → float32 [n, S, V], the logits after each."""
        ...


@dataclass(frozen=True)
class Opened:
    """A decoder. model: what runs (converted, where it was a checkpoint). info: of its session; `info.batch` rows at most.
    fresh: a number of rows → these, empty. Only the last ones made may be used. close: gives back memory."""

    model: Model
    info: SessionInfo
    fresh: Callable[[int], Rows]
    close: Callable[[], None]

    def chunk(self, rows: int) -> int:
        """Tokens per row and step, so that the logits of so many rows stay within LOGITS_BYTES."""
        return max(1, min(ort_backend.PREFILL_CHUNK, LOGITS_BYTES // (rows * self.info.vocab_size * 4)))


def open_rows(model: Model, *, batch: int, longest: int) -> Opened:
    """Open a decoder of any format that `ernie run` takes, for texts of up to `longest` tokens.

    batch: most rows side by side. Raises what opening raises: InputError, UnsupportedError, MissingError.
    """
    found, backend = runnable(model)
    if backend.__name__ == ort_backend.__name__:
        opened = _every_token(found, batch)
        if opened is not None:
            return opened
    # Such a session takes the memory for all its rows' caches from the beginning.
    session = backend.open(found, batch=max(1, min(batch, BATCH_TOKENS // max(1, longest))))
    console.detail(f"{found.path} gives the logits of one token at a time: it takes a step for each")
    return Opened(found, session.info, lambda rows: _OneByOne(session), session.close)


#: Tokens of all rows together at most: bounds what their caches take.
BATCH_TOKENS = 4096


def _every_token(model: Model, batch: int) -> Opened | None:
    """On onnxruntime, by a graph changed in memory; None where the graph cannot be changed so."""
    from ..onnxgraph.load import load

    graph = load(model, known_operators=False)
    if not give_all(graph):
        return None
    file = model.main_file()
    session, where = ort_backend.create_session(file, graph=graph, exact=False)
    vocabulary = ort_backend._vocabulary(session, file)
    limit = count(model, "max_position_embeddings", ort_backend.DEFAULT_CONTEXT)
    info = SessionInfo("onnxruntime", where.title, vocabulary, min(limit, ort_backend.DEFAULT_CONTEXT), batch)
    kind = StaticRows if "positions" in [value.name for value in session.get_inputs()] else GrowingRows
    return Opened(model, info, lambda rows: _Shaped(kind(session, replace(info, batch=rows), where), file), lambda: None)


class _Shaped:
    """Rows whose graph gives [n·S, V]."""

    def __init__(self, rows: ort_backend.Rows, file: Path) -> None:
        self._rows, self._file = rows, file

    def step(self, tokens: np.ndarray, rows: list[int], lengths: list[int]) -> np.ndarray:
        try:
            logits = self._rows.step(np.ascontiguousarray(tokens), rows, lengths)
        except Exception as err:
            if not type(err).__module__.startswith("onnxruntime"):
                raise
            raise translated(self._file, err) from err
        if logits.size != tokens.size * logits.shape[-1]:
            raise InputError(f"{self._file}: {tokens.size} tokens gave logits of {list(logits.shape)}", "convert the model again")
        return logits.reshape(*tokens.shape, logits.shape[-1])


class _OneByOne:
    """Any session, a token at a time."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def step(self, tokens: np.ndarray, rows: list[int], lengths: Sequence[int]) -> np.ndarray:
        for row, length in zip(rows, lengths, strict=True):
            self._session.truncate(row, length)
        return np.stack([self._session.step(tokens[:, [place]], rows) for place in range(tokens.shape[1])], axis=1)
