"""Many prompts on the rows of one session: a row that finishes takes the next prompt while the others go on.

Each prompt is prefilled on its own row; then all busy rows step together. What the prompts are is batch_file.py's business.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from ..runtime import Session
from .loop import Row, never
from .reply import Reply


def run(session: Session, replies: Sequence[Reply], done: Callable[[Reply], None], stop: Callable[[], bool] = never) -> bool:
    """Generate all replies, calling `done` for each as it ends. False if `stop` ended the work early."""
    waiting = deque(replies)
    free = list(range(session.info.batch))
    busy: dict[int, Reply] = {}
    while waiting or busy:
        while waiting and free:
            row, reply = free.pop(), waiting.popleft()
            busy[row] = reply
            if not _start(session, row, reply, stop):
                return False
        _retire(busy, free, done)
        if stop():
            return False
        _step(session, busy)
        _retire(busy, free, done)
    return True


def _start(session: Session, row: int, reply: Reply, stop: Callable[[], bool]) -> bool:
    """Prefill a row from nothing, so that a reply does not depend on what the row held before."""
    reply.begin()
    logits, reply.timing.computed = Row(session, row).feed(reply.prompt, stop)
    if logits is not None:
        reply.take(logits)
    return logits is not None


def _step(session: Session, busy: dict[int, Reply]) -> None:
    """One token more on every busy row."""
    rows = sorted(busy)
    if not rows:
        return
    tokens = np.array([[busy[row].token_ids[-1]] for row in rows], np.int64)
    for row, logits in zip(rows, session.step(tokens, rows), strict=True):
        busy[row].take(logits)


def _retire(busy: dict[int, Reply], free: list[int], done: Callable[[Reply], None]) -> None:
    """Hand over the finished replies and free their rows."""
    for row in [row for row, reply in busy.items() if reply.finish_reason]:
        done(busy.pop(row))
        free.append(row)
