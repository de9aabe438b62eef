"""Cast and CastLike, also to types that torch holds in wider ones: 4-bit integers in bytes, the 4-bit float in float32."""

from __future__ import annotations

import torch

from ..node import Node, Unmapped
from ..types import HELD, dtype_text
from . import Rule

#: Largest finite value: beyond it, saturating casts stay there.
LARGEST = {"float8_e4m3fn": 448.0, "float8_e4m3fnuz": 240.0, "float8_e5m2": 57344.0, "float8_e5m2fnuz": 57344.0}
#: Bits of the integers that are narrower than what holds them.
BITS = {"int4": 4, "uint4": 4, "int2": 2, "uint2": 2}


def to_signed(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Keep the lowest bits, as two's complement in an int8."""
    half = 1 << (bits - 1)
    return (torch.remainder(x.to(torch.int64) + half, 2 * half) - half).to(torch.int8)


def to_unsigned(x: torch.Tensor, bits: int) -> torch.Tensor:
    return torch.remainder(x.to(torch.int64), 1 << bits).to(torch.uint8)


def to_float4(x: torch.Tensor) -> torch.Tensor:
    """The nearest of ±{0, ½, 1, 1½, 2, 3, 4, 6}, ties to even, as float32."""
    x = x.to(torch.float32)
    size = torch.clamp(torch.abs(x), 0.0, 6.0)
    size = torch.where(torch.isnan(size), 0.0, size)  # NaN has no place among them: -0, as ml_dtypes has it
    step = torch.where(size < 2.0, 0.5, torch.where(size < 4.0, 1.0, 2.0)).to(torch.float32)
    return torch.copysign(torch.round(size / step) * step, torch.where(torch.isnan(x), -1.0, x))


def unsaturated(x: torch.Tensor) -> torch.Tensor:
    """float8_e4m3fn with NaN for what rounds beyond 448."""
    x = x.to(torch.float32)
    return torch.where(torch.abs(x) > 464.0, float("nan"), x).to(torch.float8_e4m3fn)


def to_exponent(x: torch.Tensor, mode: str, saturate: bool) -> torch.Tensor:
    """float8_e8m0: powers of two from 2**-127 to 2**127, by their exponent alone; NaN is byte 255."""
    x = x.to(torch.float32)
    bits = torch.view_copy(x, dtype=torch.int32).to(torch.int64)
    exponent = torch.bitwise_and(torch.bitwise_right_shift(bits, 23), 255)
    fraction = torch.bitwise_and(bits, 0x7FFFFF)
    if mode == "up":
        exponent = exponent + torch.logical_and(fraction > 0, torch.logical_or(exponent > 0, fraction > 0x400000)).to(torch.int64)
    elif mode == "nearest":
        exponent = exponent + torch.logical_and(fraction >= 0x400000, torch.logical_or(exponent > 0, fraction > 0x400000)).to(torch.int64)
    special = torch.logical_or(torch.isnan(x), torch.logical_and(torch.isinf(x), torch.tensor(not saturate, device=x.device)))
    if saturate:
        exponent = torch.clamp(exponent, 0, 254)
    exponent = torch.where(special, 255, exponent)
    return torch.view_copy(exponent.to(torch.uint8), dtype=torch.float8_e8m0fnu)


def cast(node: Node, to: str | None) -> str:
    """Input 0 as type `to`."""
    x, source = node.x(0), node.dtype(0)
    if to not in HELD or source == "string":
        raise Unmapped("strings: torch has no tensors of them" if "string" in (to, source) else f"the type {to}")
    if to == source:
        return x
    if to in BITS:
        return node.call(to_unsigned if to.startswith("u") else to_signed, x, BITS[to])
    if to == "float4_e2m1fn":
        return node.call(to_float4, x)
    if to == "float8_e8m0fnu":
        return node.call(to_exponent, x, f'"{node.attr("round_mode", "up")}"', bool(node.attr("saturate", 1)))
    if to in LARGEST and node.attr("saturate", 1):
        return f"torch.clamp({x}.to(torch.float32), {-LARGEST[to]}, {LARGEST[to]}).to({dtype_text(to)})"
    if to == "float8_e4m3fn":  # has no infinity, and torch saturates by itself
        return node.call(unsaturated, x)
    if to in LARGEST and source not in ("float32", None):
        return f"{x}.to(torch.float32).to({dtype_text(to)})"
    return f"{x}.to({dtype_text(to)})"


def _cast(node: Node) -> str:
    import onnx_ir as ir

    kind = ir.DataType(node.attr("to"))
    return cast(node, "string" if kind.name == "STRING" else kind.numpy().name)


def _cast_like(node: Node) -> str:
    return cast(node, node.dtype(1)) if node.dtype(1) else f"{node.x(0)}.to({node.x(1)}.dtype)"


RULES: dict[str, Rule] = {"Cast": _cast, "CastLike": _cast_like}
