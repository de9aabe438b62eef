"""Work that was recorded once and is started again as a whole: a step of many small kernels costs one call instead of hundreds."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ...errors import ErnieError
from .binding import call, constant
from .errors import CaptureError
from .stream import Stream


class CapturedGraph:
    """What `capture` recorded. Addresses and sizes are as they were then; what lies at the addresses may change."""

    def __init__(self, executable: Any, stream: Stream) -> None:
        self._executable, self._stream = executable, stream

    def launch(self) -> None:
        """Put all of it on its stream."""
        call("cudaGraphLaunch", self._executable, self._stream.native)

    def free(self) -> None:
        """Give it back; done twice, once."""
        executable, self._executable = self._executable, None
        if executable is not None:
            call("cudaGraphExecDestroy", executable)


def capture(stream: Stream, work: Callable[[], None]) -> CapturedGraph:
    """Record what `work` puts on `stream`; nothing of it runs now. Raises CaptureError where it cannot be recorded."""
    # Thread-local: other threads, such as a library's that compile kernels, may do meanwhile what a capture does not allow.
    call("cudaStreamBeginCapture", stream.native, constant("cudaStreamCaptureMode", "cudaStreamCaptureModeThreadLocal"))
    try:
        work()
    except BaseException as err:
        with suppress(ErnieError):  # the stream has to leave its capture; that it was a broken one is known
            call("cudaGraphDestroy", call("cudaStreamEndCapture", stream.native))
        if isinstance(err, ErnieError):
            raise CaptureError(err.message) from err
        raise
    graph = call("cudaStreamEndCapture", stream.native)
    try:
        return CapturedGraph(call("cudaGraphInstantiate", graph, 0), stream)
    finally:
        call("cudaGraphDestroy", graph)
