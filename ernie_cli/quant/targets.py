"""Which device runs which scheme: facts about number formats. How fast it is there is not known here: reports measure it.

A CPU runs them all: what its instructions lack, ONNX Runtime computes another way.
"""

from __future__ import annotations

from ..device import Device
from ..errors import UnsupportedError
from .scheme import Scheme, find, schemes

#: Type → (lowest compute capability of GPUs that have it, what people call it).
#: int8: dot products of four bytes (DP4A), CUDA C++ Programming Guide, "Arithmetic Instructions"; tensor cores from 7.2 on.
#: bf16, fp8, int4: https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/getting-started/support-matrix.html, and TensorRT-RTX 1.7
#: itself, which was seen to refuse fp8 weights for 8.6 and int4 weights for 7.5 ("the model contains HW-specific datatypes").
TYPES: dict[str, tuple[tuple[int, int], str]] = {
    "int8": ((6, 1), "8-bit integers"),
    "bf16": ((8, 0), "bfloat16"),
    "int4": ((8, 0), "4-bit weights"),
    "fp8": ((8, 9), "8-bit floats"),
}


def able(device: Device) -> list[str]:
    """Names of the schemes that `device` runs, sorted."""
    return sorted(name for name, scheme in schemes().items() if not _lacking(_types(scheme), device))


def check(scheme: Scheme, device: Device, precision: str = "", *, option: str = "--to") -> None:
    """Raise UnsupportedError (exit 4) where `device` cannot run `scheme`, with the nearest one that it can.

    precision: of the rest of the graph ("fp32", "fp16", "bf16"), where it is known. option: what schemes are chosen with, for the hint.
    """
    if lacking := _lacking(_types(scheme), device):
        near = _nearest(scheme, device)
        others = ", ".join(able(device)) or "none"
        hint = f"{option} {near} (this device runs {others})" if near else "choose another --device: this one runs none"
        raise UnsupportedError(f"{device.name} cannot run {scheme.name}: {_why(lacking, device)}", hint)
    check_type(precision, device, "convert the checkpoint again with --dtype fp16")


def check_type(precision: str, device: Device, hint: str) -> None:
    """Raise UnsupportedError (exit 4) where `device` does not compute in "fp32", "fp16" or "bf16"; with `hint`."""
    if lacking := _lacking({precision}, device):
        raise UnsupportedError(f"{device.name} cannot run this model: {_why(lacking, device)}", hint)


def _types(scheme: Scheme) -> set[str]:
    weight = scheme.weight.type if scheme.weight else ""
    return {weight, scheme.activation, scheme.cache} - {""}


def _lacking(types: set[str], device: Device) -> str:
    """The type of these that the device does not have and that asks most, "" for none. Where nothing is known, nothing is refused."""
    if device.kind != "cuda" or device.compute_capability is None:
        return ""
    has = tuple(map(int, device.compute_capability.split(".")))
    return max((kind for kind in types if kind in TYPES and has < TYPES[kind][0]), key=lambda kind: TYPES[kind][0], default="")


def _why(kind: str, device: Device) -> str:
    lowest, called = TYPES[kind]
    return f"{called} need compute capability {lowest[0]}.{lowest[1]}, it has {device.compute_capability}"


def _nearest(scheme: Scheme, device: Device) -> str:
    """Of what the device runs, the scheme that makes most of the same parts narrow, 8 bits before 4."""

    def alike(name: str) -> tuple[int, bool]:
        other = find(name)
        same = sum(bool(getattr(scheme, part)) == bool(getattr(other, part)) for part in ("weight", "activation", "cache"))
        return same, "int4" not in _types(other)

    return max(able(device), key=alike, default="")
