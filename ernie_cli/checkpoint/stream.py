"""A file written from front to back while two helpers follow: one hashes, one flushes to disk. Knows no file format.

The writer never waits for the disk until the end, and the end is near: what was written long ago is on disk already.
sha256, write and flush all release the interpreter's lock, so on two cores the hash costs no extra time.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

#: Chunks that may wait to be hashed; a buffer comes round again after all of them are done.
_WAITING = 4
#: The disk is set to work each time so many bytes have been written.
_FLUSH_BYTES = 32 << 20
_sync = getattr(os, "fdatasync", os.fsync)  # macOS has the latter only


class HashedFile:
    """`with HashedFile(path) as file:` then `file.write(chunk)`; afterwards `file.facts` has the size and sha256."""

    def __init__(self, path: Path) -> None:
        self.facts: dict[str, Any] = {}
        self._file = path.open("wb", buffering=0)
        self._digest = hashlib.sha256()
        self._hasher = ThreadPoolExecutor(1, "hash")
        self._flusher = ThreadPoolExecutor(1, "flush")
        self._waiting: deque[Future[None]] = deque()
        self._flush: Future[None] | None = None
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
        self._waiting.append(self._hasher.submit(self._digest.update, view))
        if len(self._waiting) > _WAITING:
            self._waiting.popleft().result()
        done = 0
        while done < view.nbytes:
            done += self._file.write(view[done:])
        self._written += done
        if self._written - self._flushed >= _FLUSH_BYTES and (self._flush is None or self._flush.done()):
            self._start_flush()

    def _start_flush(self) -> Future[None]:
        if self._flush is not None:
            self._flush.result()  # a disk that reports an error late reports it here
        self._flushed = self._written
        self._flush = self._flusher.submit(_sync, self._file.fileno())
        return self._flush

    def __enter__(self) -> HashedFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self._start_flush().result()
        finally:
            self._hasher.shutdown()
            self._flusher.shutdown()
            self._file.close()
        if error is None:
            self.facts = {"size": self._written, "sha256": self._digest.hexdigest()}


def facts_of(path: Path) -> dict[str, Any]:
    """{size, sha256} of a small file, as the manifest lists it."""
    data = path.read_bytes()
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
