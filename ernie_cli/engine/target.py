"""Which GPUs an engine is compiled for, and whether they run its precision. What number formats a GPU has is quant/targets.py's table."""

from __future__ import annotations

from .. import console
from .. import device as devices
from ..device import Device
from ..errors import UnsupportedError, UsageError
from ..quant import targets
from ..quant.scheme import schemes
from .library import Library
from .options import Options

#: What TensorRT-RTX 1.7 compiles for without seeing the GPU: the members of its ComputeCapability.
RTX = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
#: The oldest that TensorRT builds for since 10.5, and ernie needs 10.12:
#: https://docs.nvidia.com/deeplearning/tensorrt/latest/getting-started/release-notes-10/10.5.0.html
OLDEST = (7, 5)
#: The first that its portable engines are for (NVIDIA's support matrix: Ampere and later).
PORTABLE = (8, 0)


def capabilities(device: Device, library: Library, options: Options) -> tuple[str, ...]:
    """Compute capabilities to build for, () for all that the library's portable engines cover.

    Raises UsageError where `device` is no GPU, UnsupportedError for one that the library does not compile for, saying what does.
    """
    if device.kind != "cuda" or device.compute_capability is None:
        every = [each for each in map(devices.load, devices.names()) if each.kind == "cuda"]
        known = ", ".join(each.name for each in every if library.name == "tensorrt" or options.portable or each.compute_capability in RTX)
        raise UsageError(f"engines are for NVIDIA GPUs, and `{device.name}` is none", f"name what will run it: --device {known}")
    if library.name == "tensorrt":
        return _own(device)
    if options.portable:
        _check_portable(device)
        return ()
    if device.compute_capability in RTX:
        return (device.compute_capability,)
    what = f"{device.title} has compute capability {device.compute_capability}; TensorRT-RTX builds for {', '.join(RTX)}"
    raise UnsupportedError(what, _way_out(device))


def _check_portable(device: Device) -> None:
    """Portable engines begin with Ampere."""
    known = ", ".join(each for each in RTX if _version(each) >= PORTABLE)
    if _version(str(device.compute_capability)) < PORTABLE:
        what = f"--portable engines are for {known}; {device.title} has {device.compute_capability}"
        raise UnsupportedError(what, "leave --portable out" if device.compute_capability in RTX else _way_out(device))
    if device.compute_capability not in RTX:
        console.warn(f"portable engines are made for {known}: whether one runs on {device.compute_capability} is for you to try")


def _version(capability: str) -> tuple[int, ...]:
    return tuple(map(int, capability.split(".")))


def _own(device: Device) -> tuple[str, ...]:
    """TensorRT measures kernels on the GPU that it builds for."""
    here, why = devices.detect()
    if here.compute_capability != device.compute_capability:
        have = f"here is {here.title} ({here.compute_capability})" if here.kind == "cuda" else f"here is none: {why}"
        what = f"TensorRT builds on a GPU of compute capability {device.compute_capability}, and {have}"
        raise UnsupportedError(what, "build there, or with --engine-library tensorrt-rtx here")
    return (str(device.compute_capability),)


def _way_out(device: Device) -> str:
    if _version(str(device.compute_capability)) < OLDEST:
        return "no release of TensorRT that ernie drives builds for it, but ONNX Runtime runs there: ernie run MODEL --backend onnxruntime"
    there = "run this command there with --engine-library tensorrt (pip install 'ernie-cli[gpu]')"
    if device.board:
        there = "run this command on the board with --engine-library tensorrt: JetPack brings it"
    if _version(str(device.compute_capability)) >= PORTABLE:
        return f"{there}; --portable engines may run on {device.compute_capability}, which nobody promises"
    return there


def check(device: Device, precision: str, scheme: str = "", floats: str = "") -> None:
    """Raise UnsupportedError (exit 4) where `device` cannot run `precision` (fp32, fp16, bf16 or a scheme), naming the nearest.

    scheme: of a graph that is quantised already, which no --precision changes. floats: the type of all that is not narrow.
    """
    name = scheme or precision
    if name in schemes():
        option = "build what it was quantised from with --precision" if scheme else "--precision"
        targets.check(schemes()[name], device, option=option)
    hint = "build what it was made from with --precision fp16" if scheme else "--precision fp16"
    targets.check_type(floats or precision, device, hint)
