"""A queue of work for the GPU: copies, and whatever others put there by its `handle`."""

from __future__ import annotations

from .binding import call, constant, load


class Stream:
    """Work is done in order and in the background: `wait` returns when all of it is done.

    handle: its address, as other libraries take it. native: as cuda-python takes it.
    """

    def __init__(self) -> None:
        # Non-blocking: the legacy default stream, which libraries use, would stop this one's captures.
        self.native = call("cudaStreamCreateWithFlags", getattr(load(), "cudaStreamNonBlocking", 1))
        self.handle = int(self.native)
        self._to_device = constant("cudaMemcpyKind", "cudaMemcpyHostToDevice")
        self._to_host = constant("cudaMemcpyKind", "cudaMemcpyDeviceToHost")

    def upload(self, device: int, host: int, n_bytes: int) -> None:
        """Copy from an address of pinned memory to one of the GPU's."""
        if n_bytes:
            call("cudaMemcpyAsync", device, host, n_bytes, self._to_device, self.native)

    def download(self, host: int, device: int, n_bytes: int) -> None:
        """Copy from an address of the GPU's memory to one of pinned memory."""
        if n_bytes:
            call("cudaMemcpyAsync", host, device, n_bytes, self._to_host, self.native)

    def zero(self, device: int, n_bytes: int) -> None:
        """Make bytes of the GPU's memory 0."""
        if n_bytes:
            call("cudaMemsetAsync", device, 0, n_bytes, self.native)

    def wait(self) -> None:
        """Return when all work is done. Raises what went wrong with any of it."""
        call("cudaStreamSynchronize", self.native)

    def close(self) -> None:
        """Give it back; done twice, once."""
        native, self.native = self.native, None
        if native is not None:
            call("cudaStreamDestroy", native)
