"""Quantisation: QuantizeLinear, DequantizeLinear, and products of quantised values. torch's own quantised tensors are not used: they
know fewer types, and every operation would need them."""

import torch
from torch import Tensor

from ..node import Node, Unmapped
from ..types import HELD, dtype_text
from . import Rule
from .casts import BITS, LARGEST, to_float4
from .convolution import conv_integer, window_of


def spread(value: Tensor, x: Tensor, axis: int, block: int) -> Tensor:
    """A scale or zero point so that it broadcasts to x: one for all, one per index of `axis`, or one per `block` elements along it."""
    if value.numel() == 1:
        return value.reshape([])
    if block > 0:
        return value.repeat_interleave(block, axis).narrow(axis, 0, x.size(axis))
    shape = [1] * x.dim()
    shape[axis] = -1
    return value.view(shape)


def scaled(x: Tensor, scale: Tensor, axis: int, block: int, precision: int | None) -> Tensor:
    """x / scale, divided in the precision that is asked for (else the scale's), as float32 or float64."""
    wanted = scale.dtype if precision is None else precision
    y = x.to(wanted) / spread(scale.to(wanted), x, axis, block)
    return y if y.dtype == torch.float64 else y.to(torch.float32)


def quantize(
    x: Tensor, scale: Tensor, zero: Tensor | None, axis: int, block: int, low: int, high: int, precision: int | None, dtype: int
) -> Tensor:
    """Rounded half to even, moved by the zero point, kept in [low, high]."""
    y = torch.round(scaled(x, scale, axis, block, precision))
    if zero is not None:
        y = y + spread(zero.to(torch.int32), x, axis, block)
    return y.clamp(low, high).to(torch.int32).to(dtype)


def dequantize(x: Tensor, scale: Tensor, zero: Tensor | None, axis: int, block: int, dtype: int | None) -> Tensor:
    """(x - zero) * scale in float32, given in the scale's type unless another is asked for."""
    y = x.to(torch.float32)
    if zero is not None:
        y = y - spread(zero.to(torch.float32), x, axis, block)
    return (y * spread(scale.to(torch.float32), x, axis, block)).to(scale.dtype if dtype is None else dtype)


def dynamic_quantize(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(uint8, scale, zero point) that cover x and 0."""
    low, high = x.amin().clamp_max(0.0), x.amax().clamp_min(0.0)
    scale = torch.where(high == low, torch.ones_like(high), high - low) / 255.0
    zero = torch.round((-low / scale).clamp(0.0, 255.0))
    return (torch.round(x / scale) + zero).clamp(0.0, 255.0).to(torch.uint8), scale, zero.to(torch.uint8)


def by_row(value: Tensor) -> Tensor:
    """A vector with one element per row of a matrix, as a column; anything else as it is."""
    return value.unsqueeze(-1) if value.dim() == 1 and value.numel() > 1 else value


def matmul_integer(a: Tensor, b: Tensor, a_zero: Tensor | None, b_zero: Tensor | None) -> Tensor:
    """int32. Sums of products of bytes are exact in float64, for which torch has fast kernels on every device."""
    left, right = a.to(torch.float64), b.to(torch.float64)
    if a_zero is not None:
        left = left - by_row(a_zero.to(torch.float64))
    if b_zero is not None:
        right = right - b_zero.to(torch.float64)
    return torch.matmul(left, right).to(torch.int32)


def requantized(sums: Tensor, factor: Tensor, zero: Tensor, low: int, high: int) -> Tensor:
    """Whole-number sums to the output's scale: float32 as in ONNX Runtime."""
    y = torch.round(sums.to(torch.float32) * factor) + zero.to(torch.float32)
    return y.clamp(low, high).to(zero.dtype)


def qlinear_matmul(
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    low: int,
    high: int,
) -> Tensor:
    sums = matmul_integer(a, b, a_zero, b_zero)
    factor = by_row(a_scale.float()) * b_scale.float() / by_row(y_scale.float())
    return requantized(sums, factor, by_row(y_zero), low, high)


def qlinear_conv(
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    w: Tensor,
    w_scale: Tensor,
    w_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    b: Tensor | None,
    stride: list[int],
    pads: list[int],
    dilation: list[int],
    group: int,
    same: int,
    low: int,
    high: int,
) -> Tensor:
    sums = conv_integer(x, w, x_zero, w_zero, stride, pads, dilation, group, same)
    channels = [-1] + [1] * (w.dim() - 2)
    if b is not None:
        sums = sums + b.view(channels)
    factor = (x_scale.float() * w_scale.float() / y_scale.float()).reshape(channels)
    return requantized(sums, factor, y_zero.reshape([]), low, high)


def bounds(dtype: str) -> tuple[int, int]:
    """Smallest and largest value of an integer type: "int4" → (-8, 7)."""
    bits = BITS.get(dtype) or int(dtype.removeprefix("u").removeprefix("int"))
    return (0, 2**bits - 1) if dtype.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _named(number: int) -> str | None:
    """ONNX's number of a type as its name; None for 0, which means that it is not given."""
    import onnx_ir as ir

    return str(ir.DataType(number).numpy().name) if number else None


def _text(dtype: str | None) -> str:
    return dtype_text(dtype) if dtype else "None"


def _quantize(node: Node) -> str:
    to = _named(node.attr("output_dtype", 0)) or (node.dtype(2) if node.has(2) else "uint8") or node.out_dtype(0)
    if to not in HELD:
        raise Unmapped(f"the quantised type {to}")
    where = (node.attr("axis", 1), node.attr("block_size", 0))
    precision = _text(_named(node.attr("precision", 0)))
    if to in LARGEST or to == "float4_e2m1fn":
        ratio = node.call(scaled, node.x(0), node.x(1), *where, precision)
        if to == "float4_e2m1fn":
            return node.call(to_float4, ratio)
        if node.attr("saturate", 1):
            ratio = f"torch.clamp({ratio}, {-LARGEST[to]}, {LARGEST[to]})"
        return f"{ratio}.to({dtype_text(to)})"
    return node.call(quantize, node.x(0), node.x(1), node.x(2), *where, *bounds(to), precision, dtype_text(to))


def _dequantize(node: Node) -> str:
    zero = "None" if node.dtype(0) in LARGEST else node.x(2)  # float8's zero point is 0
    where = (node.attr("axis", 1), node.attr("block_size", 0))
    return node.call(dequantize, node.x(0), node.x(1), zero, *where, _text(_named(node.attr("output_dtype", 0))))


def _output_bounds(node: Node) -> tuple[int, int]:
    """The range of a product's output, whose type is that of its zero point, input 7."""
    dtype = node.dtype(7) or node.out_dtype(0)
    if dtype is None:
        raise Unmapped("the type of the output's zero point is not known")
    return bounds(dtype)


def _qlinear_conv(node: Node) -> str:
    window = window_of(node, 3)
    inputs = [node.x(i) for i in range(9)]
    geometry = (window.stride, window.pads, window.dilation, node.attr("group", 1), window.same)
    return node.call(qlinear_conv, *inputs, *geometry, *_output_bounds(node))


RULES: dict[str, Rule] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": lambda node: node.call(dynamic_quantize, node.x(0)),
    "MatMulInteger": lambda node: node.call(matmul_integer, *(node.x(i) for i in range(4))),
    "QLinearMatMul": lambda node: node.call(qlinear_matmul, *(node.x(i) for i in range(8)), *_output_bounds(node)),
    "QLinearConv": _qlinear_conv,
}
