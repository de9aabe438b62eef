"""An engine, admitted, deserialised and on a GPU, with a stream, scratch memory and contexts to run it in.

What its inputs mean is tensorrt_decoder.py's and tensorrt_graph.py's. Whether it may be opened here at all was decided before any
native code saw it, see tensorrt_admission.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import console
from ..engine import admit
from ..errors import ErnieError, InputError, MissingError, ResourceError, UnsupportedError
from ..model import Model
from ..need import need
from . import tensorrt_cache
from .cuda import gpu
from .cuda.memory import DeviceMemory
from .cuda.stream import Stream
from .tensorrt_admission import admitted, place
from .tensorrt_io import FREE, Port, Range, Shape

#: TensorRT's name of a type → numpy's, or ml_dtypes'.
DTYPES = {
    "FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT8": "int8", "INT32": "int32", "INT64": "int64", "BOOL": "bool",
    "UINT8": "uint8", "FP8": "float8_e4m3fn",
}  # fmt: skip
#: Words in the library's log → what went wrong, and what helps.
_WORDS = {
    ("out of memory", "outofmemory", "memory allocation fail"): (
        ResourceError, "the GPU's memory is full", "close what else uses it, or build with a smaller --context or --batch",
    ),
    ("driver version is insufficient",): (
        MissingError, "the NVIDIA driver is too old for this library", "update the driver, or install the library for an older CUDA",
    ),
}  # fmt: skip


class Engine:
    """ports: its inputs and outputs. gpu: what runs it, why: that one. stream: everything is put there.

    Raises InputError for a damaged engine, MissingError where library, driver, GPU or a fitting one is missing, ResourceError where
    it does not fit the GPU's memory.
    """

    def __init__(self, model: Model, device: str = "auto") -> None:
        device, self.why = place(device)
        index = gpu.number(device)
        self.file = model.main_file()
        self._contexts: list[Context] = []
        self._scratch: DeviceMemory | None = None
        self._native: Any = None
        self._cache: _Cache | None = None
        told, found = admitted(model, index)
        self.gpu = gpu.take(device)
        admit.check_capability(model, told, self.gpu.capability)  # CUDA and NVML may count GPUs in different orders
        self.trt = need(found.module)
        self.log = _log(self.trt)
        self._runtime = self.trt.Runtime(self.log)
        if told.version_compatible:  # such plans bring the code that runs them; their digest was checked
            self._runtime.engine_host_code_allowed = True
        self.stream = Stream()
        try:
            self._native = self._deserialised()
            self._stream_weights()
            self.ports = tuple(self._port(self._native.get_tensor_name(number)) for number in range(self._native.num_io_tensors))
            if hasattr(self.trt, "IRuntimeCache"):
                self._cache = _Cache(self, found.version)
        except BaseException:
            self.close()
            raise

    def context(self, profile: int, *, specialise: bool = False) -> Context:
        """What runs one profile. All contexts share their scratch memory: they run one after the other, on one stream.

        specialise: TensorRT-RTX compiles kernels for each shape before it runs it, else in the background while general ones run.
        """
        made = Context(self, *self._created(specialise), profile)
        self._contexts.append(made)
        return made

    @property
    def scratch(self) -> DeviceMemory:
        """Memory for what lies between a run's inputs and outputs, enough for every profile."""
        if self._scratch is None:
            profiles = range(self._native.num_optimization_profiles)
            self._scratch = DeviceMemory(max(self._native.get_device_memory_size_for_profile_v2(each) for each in profiles))
        return self._scratch

    def shares(self, output: str, source: str) -> bool:
        """Whether the engine writes `output` where the input `source` lies. Before TensorRT 11 nobody can tell: taken for granted."""
        ask = getattr(self._native, "get_aliased_input_tensor", None)
        return ask is None or ask(output) == source

    def failed(self, what: str) -> ErnieError:
        """The error for a call that only said that it failed: the library's words come from its log."""
        said = self.log.errors[0] if self.log.errors else "the library does not say why"  # those after it are about the first
        self.log.errors.clear()
        for words, (kind, reason, hint) in _WORDS.items():
            if any(word in said.lower() for word in words):
                return kind(f"{self.file}: {what}: {reason}: {said}", hint)
        return ErnieError(f"{self.file}: {what}: {said}", "run it again with -v; if it stays, please report these lines")

    def close(self) -> None:
        """Keep what was compiled, then give back memory: contexts before the engine, that before its runtime."""
        if self._contexts and self._cache is not None:
            self._cache.keep()
        for context in self._contexts:
            context.native = None
        self._contexts.clear()
        self._cache = self._native = self._runtime = None
        if self._scratch is not None:
            self._scratch.free()
        self.stream.close()

    def _deserialised(self) -> Any:
        plan = np.memmap(self.file, np.uint8, "r")
        native = self._runtime.deserialize_cuda_engine(plan)
        if native is not None:
            return native
        error = self.failed("the library does not open it")
        if type(error) is not ErnieError:
            raise error
        # Digest, version, system and GPU are right: what is left is a plan that was broken before its digest was taken, or a bug.
        raise InputError(error.message, "build it again, with --force")

    def _stream_weights(self) -> None:
        """Of an engine built with --weight-streaming: keep as many weights on the GPU as fit."""
        if self._native.streamable_weights_size > 0:
            self._native.weight_streaming_budget_v2 = budget = self._native.get_weight_streaming_automatic_budget()
            console.detail(f"keeping {console.size(budget)} of {console.size(self._native.streamable_weights_size)} weights on the GPU")

    def _created(self, specialise: bool) -> tuple[Any, Any]:
        """The library's context and what configured it, which has to live as long."""
        strategy, config = self.trt.ExecutionContextAllocationStrategy.USER_MANAGED, None
        if self._cache is None:
            native = self._native.create_execution_context(strategy)
        else:
            config = self._native.create_runtime_config()
            config.set_execution_context_allocation_strategy(strategy)
            kinds = self.trt.DynamicShapesKernelSpecializationStrategy
            config.dynamic_shapes_kernel_specialization_strategy = kinds.EAGER if specialise else kinds.LAZY
            self._cache.use(config)
            native = self._native.create_execution_context(config)
        if native is None:
            raise self.failed("it cannot be made ready to run")
        return native, config

    def _port(self, name: str) -> Port:
        native, trt = self._native, self.trt
        dtype = native.get_tensor_dtype(name).name
        if dtype not in DTYPES:
            raise UnsupportedError(f"{self.file}: `{name}` is {dtype}, which no array here can hold", "give the graph other ends")
        shape, is_input = tuple(native.get_tensor_shape(name)), native.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        ranges = tuple(self._range(name, shape, number) for number in range(native.num_optimization_profiles)) if is_input else ()
        return Port(name, DTYPES[dtype], shape, is_input, native.get_tensor_location(name) == trt.TensorLocation.HOST, ranges)

    def _range(self, name: str, shape: Shape, profile: int) -> Range:
        if FREE not in shape:
            return Range(shape, shape, shape)
        least, best, most = (tuple(each) for each in self._native.get_tensor_profile_shape(name, profile))
        return Range(least, best, most)


class Context:
    """One profile of an engine, ready to run. native: the library's own object."""

    def __init__(self, engine: Engine, native: Any, config: Any, profile: int) -> None:
        self.engine, self.native, self._config = engine, native, config
        native.set_device_memory(engine.scratch.address, engine.scratch.n_bytes)
        if not native.set_optimization_profile_async(profile, engine.stream.handle):
            raise engine.failed(f"its profile {profile} cannot be chosen")
        engine.stream.wait()

    def shape(self, name: str, shape: Sequence[int]) -> None:
        """Say how large an input is."""
        if not self.native.set_input_shape(name, tuple(shape)):
            raise self.engine.failed(f"`{name}` cannot be {list(shape)}")

    def bind(self, name: str, address: int) -> None:
        """Say where an input or output lies: a multiple of ALIGNMENT on the GPU, or pinned memory for what the host reads."""
        if not self.native.set_tensor_address(name, address):
            raise self.engine.failed(f"`{name}` cannot be bound")

    def settle(self) -> None:
        """Work out the outputs' shapes from the inputs'."""
        try:
            missing = self.native.infer_shapes()
        except RuntimeError as err:
            raise self.engine.failed(f"it does not run with these inputs ({err})") from err
        if missing:
            raise self.engine.failed(f"the shapes of {', '.join(missing)} are not known")

    def shape_of(self, name: str) -> Shape:
        """An output's shape, -1 where only the run itself tells."""
        return tuple(self.native.get_tensor_shape(name))

    def run(self) -> None:
        """Put the whole engine on the stream."""
        if not self.native.execute_async_v3(self.engine.stream.handle):
            raise self.engine.failed("it does not run")

    def not_capturable(self) -> str:
        """Why its work cannot be captured in a CUDA graph, "" where nothing speaks against it."""
        ask = getattr(self.native, "is_stream_capturable", None)
        return "" if ask is None or ask(self.engine.stream.handle) else "the engine allocates memory while it runs"


class _Cache:
    """The runtime cache that an engine's contexts share."""

    def __init__(self, engine: Engine, version: str) -> None:
        self._native: Any = None
        self._file = tensorrt_cache.place(engine.file.parent, version, engine.gpu.capability)
        self._known = b""

    def use(self, config: Any) -> None:
        """Attach it to a context's configuration; the first time it is filled from its file."""
        if self._native is None:
            self._native = config.create_runtime_cache()
            blob = tensorrt_cache.read(self._file)
            if blob is not None and self._native.deserialize(blob):
                self._known = hashlib.sha256(self._blob()).digest()
                console.detail(f"kernels come from {self._file}")
        config.set_runtime_cache(self._native)

    def keep(self) -> None:
        """Write it where it holds something new."""
        blob = self._blob()
        if blob and hashlib.sha256(blob).digest() != self._known:
            tensorrt_cache.write(self._file, blob)

    def _blob(self) -> bytes:
        told = self._native.serialize() if self._native is not None else None
        return bytes(memoryview(told)) if told is not None and told.nbytes else b""


def _log(trt: Any) -> Any:
    """A logger that keeps errors, so that they can be part of ours, and shows warnings with -v."""

    class Log(trt.ILogger):  # type: ignore[misc]  # the wheel has no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, text: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(text.strip())
            elif severity == trt.ILogger.Severity.WARNING:
                console.detail(f"{trt.__name__.split('_bindings')[0]}: {text.strip()}")

    return Log()
