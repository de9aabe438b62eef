"""Bounds of time and memory for a program that came with a model: its chat template. What it may touch is Jinja's sandbox's matter."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any


class _Late(BaseException):
    """No Exception, so that nothing on the way takes it for a failure to be worked around."""


@contextmanager
def bounded(*, seconds: float, n_bytes: int) -> Iterator[None]:
    """Raise TimeoutError when the code inside runs longer, MemoryError when it takes more (Linux only) than before."""
    end = time.monotonic() + seconds

    def watch(frame: FrameType, event: str, arg: Any) -> Any:
        if time.monotonic() > end:
            raise _Late
        return watch

    before = sys.gettrace()
    with _memory(n_bytes):
        sys.settrace(watch)  # called at every line of what is called from here on
        try:
            yield
        except _Late:
            raise TimeoutError(f"it ran for more than {seconds:g} s") from None
        finally:
            sys.settrace(before)


@contextmanager
def _memory(n_bytes: int) -> Iterator[None]:
    if sys.platform != "linux":
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    here = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = min(limit for limit in (here + n_bytes, soft, hard) if limit != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
