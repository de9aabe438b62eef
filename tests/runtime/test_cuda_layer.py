"""The layer over cuda-python: its errors in words, its calls as that package has them, and on a GPU what they do."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ernie_cli import nvml
from ernie_cli.errors import ErnieError, MissingError, ResourceError, UsageError
from ernie_cli.runtime import cuda
from ernie_cli.runtime.cuda import binding, errors, gpu
from ernie_cli.runtime.cuda.graph import capture
from ernie_cli.runtime.cuda.memory import ALIGNMENT, DeviceMemory, PinnedArray
from ernie_cli.runtime.cuda.stream import Stream

HAS_BINDING = importlib.util.find_spec("cuda") is not None
HAS_GPU = bool(nvml.read().gpus)
with_binding = pytest.mark.skipif(not HAS_BINDING, reason="cuda-python is not installed")


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("cudaErrorMemoryAllocation", ResourceError, "memory is full"),
        ("cudaErrorNoDevice", MissingError, "no NVIDIA GPU"),
        ("cudaErrorInsufficientDriver", MissingError, "no NVIDIA driver"),
        ("cudaErrorNoKernelImageForDevice", MissingError, "no code for this GPU"),
        ("cudaErrorStreamCaptureUnsupported", errors.CaptureError, "words"),
        ("cudaErrorIllegalAddress", ErnieError, "cudaErrorIllegalAddress"),
    ],
)
def test_codes_in_words(name: str, kind: type[ErnieError], said: str) -> None:
    found = errors.translated("cudaMalloc", name, "words of CUDA")
    assert type(found) is kind and said in found.message and (found.hint or kind is errors.CaptureError)


@pytest.mark.parametrize(("device", "number"), [("auto", 0), ("cuda", 0), ("cuda:0", 0), ("cuda:3", 3)])
def test_devices(device: str, number: int) -> None:
    assert gpu.number(device) == number


@pytest.mark.parametrize("device", ["cpu", "cuda:", "cuda:-1", "cuda:x", "cuda:1 ", "gpu", ""])
def test_what_is_no_gpu(device: str) -> None:
    with pytest.raises(UsageError, match="runs on a GPU"):
        gpu.number(device)


@pytest.mark.skipif(HAS_BINDING, reason="cuda-python is installed")
def test_without_cuda_python() -> None:
    with pytest.raises(MissingError, match="cuda-python") as raised:
        gpu.take()
    assert raised.value.hint == "pip install cuda-python"


# --- the package as it is ---------------------------------------------------------------------------------------------


def used(function: str) -> Iterator[ast.Call]:
    """Every call of `function` in the layer's own files."""
    for file in sorted(Path(cuda.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function:
                yield node


@with_binding
def test_every_call_exists_with_as_many_arguments() -> None:
    seen = set()
    for node in used("call"):
        assert isinstance(node.args[0], ast.Constant)
        name = str(node.args[0].value)
        said = getattr(binding.load(), name).__doc__.splitlines()[0]
        wanted = re.fullmatch(rf"{name}\((.*)\)", said)
        assert wanted, said
        assert len([each for each in wanted[1].split(",") if each.strip()]) == len(node.args) - 1, said
        seen.add(name)
    assert {"cudaMalloc", "cudaMemcpyAsync", "cudaGraphInstantiate", "cudaStreamEndCapture"} <= seen


@with_binding
def test_every_constant_exists() -> None:
    for group, name in (
        ("cudaMemcpyKind", "cudaMemcpyHostToDevice"),
        ("cudaMemcpyKind", "cudaMemcpyDeviceToHost"),
        ("cudaDeviceAttr", "cudaDevAttrComputeCapabilityMajor"),
        ("cudaDeviceAttr", "cudaDevAttrComputeCapabilityMinor"),
        ("cudaStreamCaptureMode", "cudaStreamCaptureModeThreadLocal"),
    ):
        assert int(binding.constant(group, name)) >= 0
    known = dir(binding.load().cudaError_t)
    assert {*errors.NO_GPU, *errors.OTHER_GPU, "cudaErrorMemoryAllocation"} <= set(known)
    assert binding.load().cudaStreamNonBlocking == 1


@with_binding
@pytest.mark.skipif(HAS_GPU, reason="there is a GPU here")
@pytest.mark.parametrize("ask", [gpu.take, gpu.memory, Stream, lambda: DeviceMemory(1 << 20), lambda: PinnedArray((4,), np.float32)])
def test_without_a_driver_all_of_it_says_so(ask: Callable[[], Any]) -> None:
    with pytest.raises(MissingError, match=r"driver|GPU"):
        ask()


# --- on a GPU ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def stream() -> Iterator[Stream]:
    if not (HAS_BINDING and HAS_GPU):
        pytest.skip("no GPU here" if HAS_BINDING else "cuda-python is not installed")
    found = gpu.take()
    assert found.name and re.fullmatch(r"\d+\.\d", found.capability) and str(found).startswith("cuda:0 ")
    made = Stream()
    yield made
    made.close()
    made.close()


@pytest.mark.gpu
@pytest.mark.parametrize(("shape", "dtype"), [((3, 5), np.float32), ((0,), np.int64), ((7,), np.bool_), ((2, 2, 2), np.float16)])
def test_there_and_back(stream: Stream, shape: tuple[int, ...], dtype: type) -> None:
    there, back, device = PinnedArray(shape, dtype), PinnedArray(shape, dtype), DeviceMemory(1024)
    assert device.address % ALIGNMENT == 0
    there.array[...] = np.random.default_rng(0).integers(0, 2, shape)
    stream.zero(device.address, 1024)
    stream.upload(device.address, there.address, there.n_bytes)
    stream.download(back.address, device.address, back.n_bytes)
    stream.wait()
    np.testing.assert_array_equal(back.array, there.array)
    for held in (there, back, device):
        held.free()
        held.free()


@pytest.mark.gpu
def test_more_than_there_is(stream: Stream) -> None:
    with pytest.raises(ResourceError, match="memory is full"):
        DeviceMemory(1 << 50)
    free, total = gpu.memory()
    assert 0 < free <= total


@pytest.mark.gpu
def test_a_graph_does_its_work_when_it_is_launched(stream: Stream) -> None:
    there, back, device = PinnedArray((4,), np.int64), PinnedArray((4,), np.int64), DeviceMemory(32)
    there.array[...], back.array[...] = 1, 0

    def work() -> None:
        stream.upload(device.address, there.address, 32)
        stream.download(back.address, device.address, 32)

    graph = capture(stream, work)
    stream.wait()
    assert not back.array.any()
    for value in (5, 6):  # what lies at the addresses counts when it runs, not when it was captured
        there.array[...] = value
        graph.launch()
        stream.wait()
        assert (back.array == value).all()
    graph.free()
    graph.free()


@pytest.mark.gpu
def test_what_cannot_be_captured_leaves_the_stream_usable(stream: Stream) -> None:
    with pytest.raises(errors.CaptureError):
        capture(stream, stream.wait)
    test_a_graph_does_its_work_when_it_is_launched(stream)
