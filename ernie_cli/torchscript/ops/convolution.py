"""Convolutions: Conv, ConvTranspose, ConvInteger, and the padding that they share with pooling. DeformConv is sampling.py's."""

# ruff: noqa: RUF005 - TorchScript knows no [*list]

from typing import NamedTuple

import torch
from torch import Tensor

from ..node import Node, Unmapped
from . import Rule


def same_pads(size: list[int], kernel: list[int], stride: list[int], dilation: list[int], upper: bool) -> list[int]:
    """auto_pad: the padding [begin…, end…] with which the output has ceil(size / stride) elements; the odd one goes to the end
    (upper) or to the beginning."""
    begin: list[int] = []
    end: list[int] = []
    for i in range(len(kernel)):
        out = (size[i] + stride[i] - 1) // stride[i]
        total = max((out - 1) * stride[i] + (kernel[i] - 1) * dilation[i] + 1 - size[i], 0)
        small = total // 2
        begin.append(small if upper else total - small)
        end.append(total - small if upper else small)
    return begin + end


def padded(x: Tensor, pads: list[int], value: float) -> Tensor:
    """x with ONNX's [begin…, end…] of its last axes added, which torch counts from the last axis."""
    n = len(pads) // 2
    torch_pads: list[int] = []
    for i in range(n):
        torch_pads += [pads[n - 1 - i], pads[2 * n - 1 - i]]
    return torch.constant_pad_nd(x, torch_pads, value)


def conv(x: Tensor, w: Tensor, b: Tensor | None, stride: list[int], pads: list[int], dilation: list[int], group: int, same: int) -> Tensor:
    """same: 0 for explicit pads, 1 for SAME_UPPER, 2 for SAME_LOWER."""
    n = len(stride)
    if same > 0:
        pads = same_pads(list(x.shape[2:]), list(w.shape[2:]), stride, dilation, same == 1)
    if pads[:n] != pads[n:]:
        x = padded(x, pads, 0.0)
        pads = [0] * n
    return torch.convolution(x, w, b, stride, pads[:n], dilation, False, [0] * n, group)


def conv_transpose(
    x: Tensor,
    w: Tensor,
    b: Tensor | None,
    stride: list[int],
    pads: list[int],
    dilation: list[int],
    group: int,
    same: int,
    output_padding: list[int],
    output_shape: list[int] | None,
) -> Tensor:
    """The full transposed convolution, cut to `pads` or to those that give `output_shape` (for auto_pad: size * stride)."""
    n = len(stride)
    y = torch.convolution(x, w, None, stride, [0] * n, dilation, True, [0] * n, group)
    edges: list[int] = []
    for i in range(n):
        full = y.shape[2 + i] + output_padding[i]
        begin, end = pads[i], pads[n + i]
        if output_shape is not None or same > 0:
            wanted = x.shape[2 + i] * stride[i] if output_shape is None else output_shape[len(output_shape) - n + i]
            small = (full - wanted) // 2
            begin = small if same == 1 else full - wanted - small
            end = full - wanted - begin
        edges = [-begin, output_padding[i] - end] + edges
    y = torch.constant_pad_nd(y, edges, 0.0)  # negative widths cut
    return y if b is None else y + b.view([-1] + [1] * n)


def conv_integer(
    x: Tensor,
    w: Tensor,
    x_zero: Tensor | None,
    w_zero: Tensor | None,
    stride: list[int],
    pads: list[int],
    dilation: list[int],
    group: int,
    same: int,
) -> Tensor:
    """int32 [N, M, …]. In float64 the sums of products of bytes are exact, and torch has fast kernels for it on every device."""
    wide = x.to(torch.float64)
    if x_zero is not None:
        wide = wide - x_zero.to(torch.float64)
    weight = w.to(torch.float64)
    if w_zero is not None:
        weight = weight - w_zero.to(torch.float64).view([-1] + [1] * (w.dim() - 1))
    return conv(wide, weight, None, stride, pads, dilation, group, same).to(torch.int32)


SAME = {"SAME_UPPER": 1, "SAME_LOWER": 2}


class Window(NamedTuple):
    """The geometry of a node's windows over n axes: pads is [begin…, end…]; same is 0 (explicit pads), 1 (upper) or 2 (lower)."""

    stride: list[int]
    pads: list[int]
    dilation: list[int]
    same: int

    @property
    def symmetric(self) -> bool:
        n = len(self.stride)
        return not self.same and self.pads[:n] == self.pads[n:] and min(self.pads, default=0) >= 0

    @property
    def half(self) -> list[int]:
        return self.pads[: len(self.stride)]


def window_of(node: Node, weight: int = 1) -> Window:
    """A node's window; `weight` is the input whose rank tells the number of axes where no attribute does."""
    n = len(node.attr("kernel_shape") or node.attr("strides") or node.attr("dilations") or [])
    rank = node.rank(weight) or node.rank(0)
    if not n and rank is None:
        raise Unmapped("neither kernel_shape nor the rank of the weights is known")
    n = n or (rank or 0) - 2
    auto = node.attr("auto_pad", "NOTSET")
    pads = list(node.attr("pads") or [0] * 2 * n) if auto == "NOTSET" else [0] * 2 * n
    return Window(list(node.attr("strides") or [1] * n), pads, list(node.attr("dilations") or [1] * n), SAME.get(auto, 0))


def _conv(node: Node) -> str:
    window, group = window_of(node), node.attr("group", 1)
    n = len(window.stride)
    if window.symmetric and n in (1, 2, 3):
        geometry = f"{window.stride}, {window.half}, {window.dilation}, {group}"
        return f"torch.conv{n}d({node.x(0)}, {node.x(1)}, {node.x(2)}, {geometry})"
    return node.call(conv, *(node.x(i) for i in range(3)), window.stride, window.pads, window.dilation, group, window.same)


def _conv_transpose(node: Node) -> str:
    window, group = window_of(node), node.attr("group", 1)
    n = len(window.stride)
    extra, shape = list(node.attr("output_padding") or [0] * n), node.attr("output_shape") or None
    fits = all(e < max(s, d) for e, s, d in zip(extra, window.stride, window.dilation, strict=False))  # torch's condition
    if window.symmetric and shape is None and n in (1, 2, 3) and fits:
        geometry = f"{window.stride}, {window.half}, {extra}, {group}, {window.dilation}"
        return f"torch.conv_transpose{n}d({node.x(0)}, {node.x(1)}, {node.x(2)}, {geometry})"
    inputs = [node.x(i) for i in range(3)]
    return node.call(conv_transpose, *inputs, window.stride, window.pads, window.dilation, group, window.same, extra, shape)


def _conv_integer(node: Node) -> str:
    window = window_of(node)
    inputs = [node.x(i) for i in range(4)]
    return node.call(conv_integer, *inputs, window.stride, window.pads, window.dilation, node.attr("group", 1), window.same)


RULES: dict[str, Rule] = {"Conv": _conv, "ConvTranspose": _conv_transpose, "ConvInteger": _conv_integer}
