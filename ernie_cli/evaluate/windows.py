"""Texts cut into windows that fit a model, windows put side by side, and what a model predicts in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from . import likelihood
from .rows import BATCH_TOKENS, Opened, Rows
from .texts import Text

#: Texts without an answer are read in windows of at most so many tokens, half of each new: the customary way.
WINDOW = 2048


@dataclass(frozen=True)
class Window:
    """Tokens start … stop of a text, of which those from `new` on are scored."""

    text: int
    start: int
    stop: int
    new: int

    @property
    def length(self) -> int:
        return self.stop - self.start


def cut(texts: Sequence[Text], context: int) -> list[Window]:
    """Every text's windows, in order. Texts with an answer are cut only where the context makes it needful."""
    lengths = [context if text.answer else min(WINDOW, context) for text in texts]
    return [window for number, text in enumerate(texts) for window in _windows(number, len(text.ids), lengths[number])]


def _windows(number: int, length: int, most: int) -> Iterator[Window]:
    """Windows that overlap by half. The first token of all is predicted by nothing."""
    new, stride = 1, max(1, most // 2)
    for start in range(0, length, stride):
        stop = min(start + most, length)
        if stop > new:
            yield Window(number, start, stop, new)
        if stop == length:
            return
        new = stop


def groups(windows: Sequence[Window], rows: int) -> Iterator[list[Window]]:
    """Windows of like length side by side, the longest first: what does not fit memory fails at once."""
    waiting = sorted(windows, key=lambda each: each.length, reverse=True)
    while waiting:
        count = max(1, min(rows, BATCH_TOKENS // waiting[0].length))
        yield waiting[:count]
        del waiting[:count]


@dataclass(frozen=True)
class Read:
    """figures: of each window, likelihood.FIELDS of every token behind its first. rows: each model's, which hold the windows now."""

    figures: list[np.ndarray]
    rows: list[Rows]


def read(opened: Sequence[Opened], texts: Sequence[Text], group: Sequence[Window]) -> Read:
    """Read a group through the model, and the reference where there is a second one, in pieces whose logits memory holds.

    Shorter rows are filled up at their end with tokens that nothing before them sees, and that nobody counts.
    """
    ids = [texts[each.text].ids[each.start : each.stop] for each in group]
    tokens = np.zeros((len(ids), max(map(len, ids))), np.int64)
    for place, each in enumerate(ids):
        tokens[place, : len(each)] = each
    sessions = [each.fresh(len(ids)) for each in opened]
    chunk = min(each.chunk(len(ids)) for each in opened)
    figures: list[list[np.ndarray]] = [[np.zeros(0, likelihood.FIELDS)] for _ in ids]
    for start in range(0, tokens.shape[1], chunk):
        piece = tokens[:, start : start + chunk]
        logits = [rows.step(piece, list(range(len(ids))), [start] * len(ids)) for rows in sessions]
        for place, each in enumerate(ids):
            count = min(len(each) - 1 - start, piece.shape[1])
            if count > 0:
                targets = tokens[place, start + 1 : start + 1 + count]
                figures[place].append(likelihood.measure(targets, *(given[place, :count] for given in logits)))
    return Read([np.concatenate(each) for each in figures], sessions)
