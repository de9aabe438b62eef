"""What a model answers by itself, greedily, found with as few steps as there can be.

The right answer has been read behind its prompt already, and the likeliest token after each of its tokens is known: as far as
those are the right ones, that is what the model would have written. Only where it parts from them does it write on, a token
at a time, all such rows side by side. (The idea of speculative decoding, with the expected answer as the draft.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .rows import Opened, Rows
from .texts import Encoder, Text

#: A wrong answer is followed for so many tokens, or as many as the right one has where that is more.
FOLLOWED_TOKENS = 24


@dataclass(frozen=True)
class Answer:
    """text: what the model wrote, up to its end token, without white space around it. right: whether that is the expected answer."""

    text: str
    right: bool


class Asker:
    """Finishes the answers of texts that `opened` has just read, on the rows where it read them. answers: by the text's number."""

    def __init__(self, opened: Opened, texts: Sequence[Text], encoder: Encoder) -> None:
        self._context, self._texts = opened.info.context, texts
        self._tokenizer, self._ends = encoder.tokenizer, encoder.ends
        self.answers: dict[int, Answer] = {}

    def finish(self, rows: Rows, read: Sequence[tuple[int, int, np.ndarray]]) -> None:
        """read: (row, number of the text, likeliest token after each of its tokens but the last)."""
        written = {number: self._agreed(number, best) for _, number, best in read}
        going = dict(sorted((row, number) for row, number, _ in read))
        while going := {row: number for row, number in going.items() if not self._finished(number, written[number])}:
            last = np.array([[written[number][-1]] for number in going.values()], np.int64)
            lengths = [self._prompt(number) + len(written[number]) - 1 for number in going.values()]
            for number, logits in zip(going.values(), rows.step(last, list(going), lengths), strict=True):
                written[number].append(int(logits[-1].argmax()))
        self.answers |= {number: self._judged(number, ids) for number, ids in written.items()}

    def _prompt(self, number: int) -> int:
        return len(self._texts[number].ids) - self._texts[number].answer

    def _agreed(self, number: int, best: np.ndarray) -> list[int]:
        """The right tokens as far as the model agrees, and its own first other one."""
        begins = self._prompt(number)
        right, own = self._texts[number].ids[begins:], [int(token) for token in best[begins - 1 :]]
        parted = next((place for place, token in enumerate(own) if token != right[place]), len(right))
        return own[: parted + 1]

    def _finished(self, number: int, ids: Sequence[int]) -> bool:
        most = max(FOLLOWED_TOKENS, self._texts[number].answer)
        room = self._context - self._prompt(number)
        return ids[-1] in self._ends or len(ids) >= min(most, room)

    def _judged(self, number: int, ids: Sequence[int]) -> Answer:
        stop = next((place for place, token in enumerate(ids) if token in self._ends), len(ids))
        text = self._tokenizer.decode(ids[:stop]).strip()
        return Answer(text, text == self._texts[number].expected.strip())
