"""Generate one reply on one row of a session. Knows neither text nor terminal; many rows at once are batch.py's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ..runtime import Session
from .reply import Reply

#: Prompt tokens per step. Bounds the memory that attention takes over long prompts, and the time until Ctrl-C is heard.
CHUNK = 512


def never() -> bool:
    """Nobody asks to stop."""
    return False


class Row:
    """A row of a session that remembers its tokens, so that a prompt which begins like the last one costs only its new part."""

    def __init__(self, session: Session, number: int = 0) -> None:
        self.session = session
        self.number = number
        self.tokens: list[int] = []

    def feed(self, prompt: Sequence[int], stop: Callable[[], bool] = never) -> tuple[np.ndarray | None, int]:
        """Make the row hold exactly `prompt`: the logits [vocab_size] after it (None if stopped), and how many tokens were run."""
        common = _common_prefix(self.tokens, prompt[:-1])  # the last token always runs: its logits are wanted
        self.session.truncate(self.number, common)
        del self.tokens[common:]
        logits = None
        for start in range(common, len(prompt), CHUNK):
            if stop():
                return None, start - common
            chunk = prompt[start : start + CHUNK]
            logits = self.session.step(np.array([chunk], np.int64), [self.number])[0]
            self.tokens.extend(chunk)
        return logits, len(prompt) - common

    def push(self, token: int) -> np.ndarray:
        """Append one token; the logits [vocab_size] after it."""
        logits: np.ndarray = self.session.step(np.array([[token]], np.int64), [self.number])[0]
        self.tokens.append(token)
        return logits


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def generate(row: Row, reply: Reply, stop: Callable[[], bool] = never) -> Iterator[str]:
    """Run the model until `reply` is finished, yielding text as it becomes certain. `stop` is asked before every step."""
    reply.begin()
    logits, reply.timing.computed = row.feed(reply.prompt, stop)
    while logits is not None:
        text = reply.take(logits)
        if text:
            yield text
        if reply.finish_reason:
            return
        logits = None if stop() else row.push(reply.token_ids[-1])
    rest = reply.end("interrupted")
    if rest:
        yield rest
