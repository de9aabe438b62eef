"""Memory on the GPU, and memory of the host that the GPU reads by itself (pinned). Moving bytes between them is stream.py's."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .binding import call

#: TensorRT wants tensors at multiples of it (NvInferRuntime.h, IExecutionContext::setTensorAddress). cudaMalloc gives no others.
ALIGNMENT = 256


class DeviceMemory:
    """`n_bytes` of the GPU's memory at `address`. Raises ResourceError (exit 7) where there are not as many."""

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes
        self.address = int(call("cudaMalloc", max(n_bytes, ALIGNMENT)))  # of nothing there would be no address

    def free(self) -> None:
        """Give it back; done twice, once."""
        address, self.address = self.address, 0
        if address:
            call("cudaFree", address)


class PinnedArray:
    """A numpy array that never leaves the host's physical memory, so that copies to and from the GPU need no detour.

    array: of `shape` and `dtype`, content as it comes. It must not be used after `free`.
    """

    def __init__(self, shape: Sequence[int], dtype: Any) -> None:
        self.n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        size = max(self.n_bytes, 1)
        self.address = int(call("cudaMallocHost", size))
        raw = np.frombuffer((ctypes.c_byte * size).from_address(self.address), np.uint8)
        self.array: np.ndarray = raw[: self.n_bytes].view(dtype).reshape(shape)

    def free(self) -> None:
        """Give it back; done twice, once."""
        address, self.address = self.address, 0
        if address:
            call("cudaFreeHost", address)
