"""Engines of any model on named arrays: each profile has a context of its own, buffers grow as inputs do.

An engine's values in between are fused away: `steps` has none to show.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..model import Model
from .cuda.memory import ALIGNMENT, DeviceMemory, PinnedArray
from .graphs import Step, TensorSpec, check_feeds
from .tensorrt_decoder import array_type
from .tensorrt_engine import Context, Engine
from .tensorrt_io import FREE, Port, Shape, profile_for


class EngineGraph:
    """A GraphSession over an engine."""

    backend = "tensorrt"

    def __init__(self, model: Model, device: str = "auto") -> None:
        self._engine = Engine(model, device)
        self.device = str(self._engine.gpu)
        self._in = [port for port in self._engine.ports if port.is_input]
        self._out = [port for port in self._engine.ports if not port.is_input]
        self.inputs: tuple[TensorSpec, ...] = tuple(port.spec() for port in self._in)
        self.outputs: tuple[TensorSpec, ...] = tuple(port.spec() for port in self._out)
        self._contexts: dict[int, Context] = {}
        self._buffers: dict[str, Buffer] = {}

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See GraphSession.run. Raises UsageError with the range where a shape is none that the engine was built for."""
        check_feeds(self.inputs, feeds)
        profile = profile_for(self._engine.ports, {name: array.shape for name, array in feeds.items()})
        context = self._contexts.get(profile)
        if context is None:
            context = self._contexts[profile] = self._engine.context(profile)
        for port in self._in:
            self._feed(context, port, feeds[port.name])
        context.settle()
        shapes = {port.name: context.shape_of(port.name) for port in self._out}
        late = {name: _Late(self._engine.trt, context, name) for name, shape in shapes.items() if FREE in shape}
        for port in self._out:
            if port.name not in late:
                context.bind(port.name, self._buffer(port, shapes[port.name]).address)
        context.run()
        return self._fetched({**shapes, **{name: each.settled(self._engine) for name, each in late.items()}}, late)

    def steps(self, feeds: Mapping[str, np.ndarray]) -> Iterator[Step]:
        """See GraphSession.steps: none."""
        check_feeds(self.inputs, feeds)
        return iter(())

    def close(self) -> None:
        """See GraphSession.close."""
        for buffer in self._buffers.values():
            buffer.free()
        self._buffers.clear()
        self._contexts.clear()
        self._engine.close()

    def _feed(self, context: Context, port: Port, array: np.ndarray) -> None:
        buffer = self._buffer(port, array.shape)
        buffer.host.array[: array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        context.shape(port.name, array.shape)
        context.bind(port.name, buffer.address)
        if buffer.device is not None:
            self._engine.stream.upload(buffer.address, buffer.host.address, array.nbytes)

    def _fetched(self, shapes: Mapping[str, Shape], late: Mapping[str, Any]) -> dict[str, np.ndarray]:
        found, stream = {}, self._engine.stream
        for port in self._out:
            shape, kind = shapes[port.name], array_type(port.dtype)
            buffer = self._buffer(port, shape)
            at = late[port.name].address if port.name in late else buffer.address
            if buffer.device is not None or port.name in late:
                stream.download(buffer.host.address, at, math.prod(shape) * kind.itemsize)
            found[port.name] = (buffer, shape, kind)
        stream.wait()
        for each in late.values():
            each.free()
        return {
            name: buffer.host.array[: math.prod(shape) * kind.itemsize].view(kind).reshape(shape).copy()
            for name, (buffer, shape, kind) in found.items()
        }

    def _buffer(self, port: Port, shape: Sequence[int]) -> Buffer:
        """Room for an input or output of this shape, kept for the next run."""
        n_bytes = math.prod(shape) * array_type(port.dtype).itemsize
        held = self._buffers.get(port.name)
        if held is None or held.host.n_bytes < n_bytes:
            if held is not None:
                held.free()
                del self._buffers[port.name]
            held = self._buffers[port.name] = Buffer(n_bytes, on_host=port.on_host)
        return held


class Buffer:
    """Pinned bytes, and as many on the GPU unless only the host reads them."""

    def __init__(self, n_bytes: int, *, on_host: bool) -> None:
        self.host = PinnedArray((n_bytes,), np.uint8)
        try:
            self.device = None if on_host else DeviceMemory(n_bytes)
        except BaseException:
            self.host.free()
            raise

    @property
    def address(self) -> int:
        """Where the engine reads or writes."""
        return self.host.address if self.device is None else self.device.address

    def free(self) -> None:
        """Give it back."""
        self.host.free()
        if self.device is not None:
            self.device.free()


class _Late:
    """An output whose size only the run tells (what NonZero or NMS found): the library asks for memory when it knows."""

    def __init__(self, trt: Any, context: Context, name: str) -> None:
        self.memory: DeviceMemory | None = None
        self.shape: Shape | None = None
        self.problem: Exception | None = None
        self._allocator = _allocator(trt, self)  # the library keeps a bare pointer to it
        self._context, self.name = context, name
        context.native.set_output_allocator(name, self._allocator)

    @property
    def address(self) -> int:
        """Where it lies."""
        return self.memory.address if self.memory is not None else 0

    def settled(self, engine: Engine) -> Shape:
        """Its shape, after the run."""
        engine.stream.wait()
        if self.problem is not None:
            raise self.problem
        if self.shape is None:
            raise engine.failed(f"the shape of `{self.name}` did not become known")
        return self.shape

    def room(self, size: int) -> int:
        """Memory for `size` bytes; 0 tells the library that there is none."""
        try:
            if self.memory is None or self.memory.n_bytes < size:
                self.free_memory()
                self.memory = DeviceMemory(max(size, ALIGNMENT))
            return self.memory.address
        except Exception as err:  # noqa: BLE001 — native code calls this: what is raised here would end the process
            self.problem = err
            return 0

    def free_memory(self) -> None:
        """Give back what it holds."""
        if self.memory is not None:
            self.memory.free()
            self.memory = None

    def free(self) -> None:
        """Give back memory and let the library forget the allocator."""
        self._context.native.set_output_allocator(self.name, None)
        self.free_memory()


def _allocator(trt: Any, late: _Late) -> Any:
    class Allocator(trt.IOutputAllocator):  # type: ignore[misc]  # the wheel has no types
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)

        def reallocate_output(self, name: str, memory: int, size: int, alignment: int) -> int:
            return late.room(size)

        def reallocate_output_async(self, name: str, memory: int, size: int, alignment: int, stream: int) -> int:
            return late.room(size)

        def notify_shape(self, name: str, shape: Any) -> None:
            late.shape = tuple(shape)

    return Allocator()
