"""A file written from front to back while two helpers follow: one hashes, one flushes to disk. Knows no file format.

The writer never waits for the disk until the end, and the end is near: what was written long ago is on disk already.
sha256, write and flush all release the interpreter's lock, so on two cores the hash costs no extra time.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

#: Chunks that may wait to be hashed; a buffer comes round again after all of them are done.
_WAITING = 4
#: The disk is set to work each time so many bytes have been written.
_FLUSH_BYTES = 32 << 20
_Outcome = queue.SimpleQueue["BaseException | None"]
_sync = getattr(os, "fdatasync", os.fsync)  # macOS has the latter only


class _Helper:
    """A thread that runs calls one after another; `call` returns where its outcome will come: None, or the exception.

    No executor: Ctrl-C can strike while one of its locks is taken, and then its thread, and whoever joins it, waits forever.
    The queues here are of one piece (written in C), and nobody waits for the thread without end.
    """

    def __init__(self) -> None:
        self._todo: queue.SimpleQueue[tuple[Callable[[], object], _Outcome] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def call(self, work: Callable[[], object]) -> _Outcome:
        outcome: _Outcome = queue.SimpleQueue()
        self._todo.put((work, outcome))
        return outcome

    def close(self) -> None:
        """Let the thread end after what it was given."""
        self._todo.put(None)
        self._thread.join(timeout=1)

    def _work(self) -> None:
        while (job := self._todo.get()) is not None:
            work, outcome = job
            try:
                work()
                outcome.put(None)
            except BaseException as err:  # noqa: BLE001 (raised again by the caller's thread)
                outcome.put(err)


def _wait(outcome: _Outcome) -> None:
    """Once for each outcome. Raises what the call raised."""
    err = outcome.get()
    if err is not None:
        raise err


class HashedFile:
    """`with HashedFile(path) as file:` then `file.write(chunk)`; afterwards `file.facts` has the size and sha256."""

    def __init__(self, path: Path) -> None:
        self.facts: dict[str, Any] = {}
        self._file = path.open("wb", buffering=0)
        self._digest = hashlib.sha256()
        self._hasher, self._flusher = _Helper(), _Helper()
        self._waiting: deque[_Outcome] = deque()
        self._flush: _Outcome | None = None
        self._written = self._flushed = 0
        self._buffers = [np.empty(0, np.uint8) for _ in range(_WAITING + 1)]
        self._turn = 0

    def buffer(self, n_bytes: int) -> np.ndarray:
        """uint8 [n_bytes] to fill and hand to `write`. Its content is lost when as many more chunks were written as may wait."""
        self._turn = (self._turn + 1) % len(self._buffers)
        if len(self._buffers[self._turn]) < n_bytes:
            self._buffers[self._turn] = np.empty(n_bytes, np.uint8)
        return self._buffers[self._turn][:n_bytes]

    def write(self, chunk: np.ndarray | bytes) -> None:
        """Append bytes. The caller leaves them unchanged until as many more chunks were written as may wait.

        Raises OSError where the disk is full.
        """
        view = memoryview(chunk)  # type: ignore[arg-type]
        self._waiting.append(self._hasher.call(lambda: self._digest.update(view)))
        if len(self._waiting) > _WAITING:
            _wait(self._waiting.popleft())
        done = 0
        while done < view.nbytes:
            done += self._file.write(view[done:])
        self._written += done
        if self._written - self._flushed >= _FLUSH_BYTES and (self._flush is None or not self._flush.empty()):
            self._end_flush()
            self._flushed = self._written
            self._flush = self._flusher.call(lambda: _sync(self._file.fileno()))

    def _end_flush(self) -> None:
        """A disk that reports an error late reports it here."""
        flush, self._flush = self._flush, None
        if flush is not None:
            _wait(flush)

    def __enter__(self) -> HashedFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._end_flush()
            if error is None:
                _sync(self._file.fileno())
                while self._waiting:
                    _wait(self._waiting.popleft())
        finally:
            self._hasher.close()
            self._flusher.close()
            self._file.close()
        if error is None:
            self.facts = {"size": self._written, "sha256": self._digest.hexdigest()}
