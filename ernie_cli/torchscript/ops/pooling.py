"""Pooling over windows and over whole planes: AveragePool, MaxPool, LpPool, MaxUnpool, Global*. Regions of interest are roi.py's."""

# ruff: noqa: RUF005 - TorchScript knows no [*list]

import math

import torch
from torch import Tensor

from ..node import Function, Node
from . import Rule
from .convolution import Window, padded, same_pads, window_of


def full_pads(
    size: list[int], kernel: list[int], stride: list[int], pads: list[int], dilation: list[int], same: int, ceil: bool
) -> list[int]:
    """The padding with which plain (floor) windows give ONNX's output: for ceil_mode more at the end, so that the last window,
    which must begin inside the image or the padding before it, is whole."""
    n = len(kernel)
    if same > 0:
        return same_pads(size, kernel, stride, dilation, same == 1)
    end: list[int] = []
    for i in range(n):
        reach = (kernel[i] - 1) * dilation[i] + 1
        room = size[i] + pads[i] + pads[n + i] - reach
        out = (room + (stride[i] - 1 if ceil else 0)) // stride[i] + 1
        if ceil and (out - 1) * stride[i] >= size[i] + pads[i]:
            out -= 1
        end.append(max((out - 1) * stride[i] + reach - size[i] - pads[i], pads[n + i] if not ceil else 0))
    return pads[:n] + end


def sum_pool(x: Tensor, kernel: list[int], stride: list[int], dilation: list[int]) -> Tensor:
    """Sums over windows [N, C, …], as a convolution with ones of each plane."""
    planes = x.reshape([x.size(0) * x.size(1), 1] + list(x.shape[2:]))
    ones = torch.ones([1, 1] + kernel, dtype=x.dtype, device=x.device)
    n = len(kernel)
    sums = torch.convolution(planes, ones, None, stride, [0] * n, dilation, False, [0] * n, 1)
    return sums.view([x.size(0), x.size(1)] + list(sums.shape[2:]))


def average_pool(
    x: Tensor, kernel: list[int], stride: list[int], pads: list[int], dilation: list[int], same: int, ceil: bool, count_pads: bool
) -> Tensor:
    """Sum over each window divided by how many of its elements count: those of the image and, if count_pads, of the explicit
    padding (not of what ceil_mode adds)."""
    n = len(kernel)
    every = full_pads(list(x.shape[2:]), kernel, stride, pads, dilation, same, ceil)
    count = torch.ones([1, 1] + list(x.shape[2:]), dtype=x.dtype, device=x.device)
    if count_pads:
        own = every if same > 0 else [min(pads[i], every[i]) for i in range(2 * n)]
        count = padded(padded(count, own, 1.0), [every[i] - own[i] for i in range(2 * n)], 0.0)
    else:
        count = padded(count, every, 0.0)
    return sum_pool(padded(x, every, 0.0), kernel, stride, dilation) / sum_pool(count, kernel, stride, dilation)


def lp_pool(x: Tensor, kernel: list[int], stride: list[int], pads: list[int], dilation: list[int], same: int, ceil: bool, p: int) -> Tensor:
    every = full_pads(list(x.shape[2:]), kernel, stride, pads, dilation, same, ceil)
    return sum_pool(padded(x.abs().pow(p), every, 0.0), kernel, stride, dilation).pow(1.0 / p)


def max_windows(x: Tensor, kernel: list[int], stride: list[int], dilation: list[int]) -> tuple[Tensor, Tensor]:
    """torch's max pooling with indices into each plane, for 1 to 3 axes."""
    n = len(kernel)
    if n == 1:
        return torch.nn.functional.max_pool1d_with_indices(x, kernel, stride, [0], dilation, False)
    if n == 2:
        return torch.nn.functional.max_pool2d_with_indices(x, kernel, stride, [0, 0], dilation, False)
    return torch.nn.functional.max_pool3d_with_indices(x, kernel, stride, [0, 0, 0], dilation, False)


def max_pool_indices(
    x: Tensor, kernel: list[int], stride: list[int], pads: list[int], dilation: list[int], same: int, ceil: bool, by_column: bool
) -> tuple[Tensor, Tensor]:
    """(maxima, their indices into the whole flattened x). by_column: each plane is counted with its first axis fastest."""
    n = len(kernel)
    size = list(x.shape[2:])
    every = full_pads(size, kernel, stride, pads, dilation, same, ceil)
    wide = x if x.is_floating_point() else x.to(torch.float32)  # bytes are exact in it
    wide = padded(wide, every, -math.inf)
    y, index = max_windows(wide, kernel, stride, dilation)
    flat = torch.zeros_like(index)
    step = 1
    for j in range(n):
        i = j if by_column else n - 1 - j
        inner = 1
        for k in range(i + 1, n):
            inner *= wide.size(2 + k)
        flat += (index // inner % wide.size(2 + i) - every[i]) * step
        step *= size[i]
    planes = torch.arange(x.size(0) * x.size(1), device=x.device).view([x.size(0), x.size(1)] + [1] * n)
    return y.to(x.dtype), flat + planes * step


def max_pool(x: Tensor, kernel: list[int], stride: list[int], pads: list[int], dilation: list[int], same: int, ceil: bool) -> Tensor:
    wide = x if x.is_floating_point() else x.to(torch.float32)
    wide = padded(wide, full_pads(list(x.shape[2:]), kernel, stride, pads, dilation, same, ceil), -math.inf)
    n = len(kernel)
    if n == 1:
        return torch.max_pool1d(wide, kernel, stride, [0], dilation).to(x.dtype)
    if n == 2:
        return torch.max_pool2d(wide, kernel, stride, [0, 0], dilation).to(x.dtype)
    return torch.max_pool3d(wide, kernel, stride, [0, 0, 0], dilation).to(x.dtype)


def max_unpool(x: Tensor, index: Tensor, kernel: list[int], stride: list[int], pads: list[int], output_shape: Tensor | None) -> Tensor:
    """Each x at its index into the tensor that was pooled; a larger output_shape adds zeros after it."""
    n = len(kernel)
    shape = [x.size(0), x.size(1)]
    for i in range(n):
        shape.append((x.size(2 + i) - 1) * stride[i] - pads[i] - pads[n + i] + kernel[i])
    total = 1
    for size in shape:
        total *= size
    y = torch.zeros([total], dtype=x.dtype, device=x.device).scatter(0, index.flatten(), x.flatten()).view(shape)
    if output_shape is not None:
        wanted: list[int] = output_shape.tolist()
        edges = [0] * n + [wanted[2 + i] - shape[2 + i] for i in range(n)]
        y = padded(y, edges, 0.0)
    return y


def global_mean(x: Tensor) -> Tensor:
    return torch.mean(x, list(range(2, x.dim())), keepdim=True)


def global_max(x: Tensor) -> Tensor:
    return torch.amax(x, list(range(2, x.dim())), keepdim=True)


def global_lp(x: Tensor, p: int) -> Tensor:
    return x.abs().pow(p).sum(list(range(2, x.dim())), keepdim=True).pow(1.0 / p)


def _plain(window: Window, kernel: list[int]) -> bool:
    """Whether torch's own padding does: the same on both sides and at most half the kernel."""
    return len(kernel) in (1, 2, 3) and window.symmetric and all(2 * pad <= size for pad, size in zip(window.half, kernel, strict=True))


def _average_pool(node: Node) -> str:
    kernel, window, ceil = node.attr("kernel_shape"), window_of(node, 0), bool(node.attr("ceil_mode", 0))
    count_pads = bool(node.attr("count_include_pad", 0))
    if _plain(window, kernel) and max(window.dilation) == 1:  # torch's ceil_mode and divisor are ONNX's
        pool = "torch.avg_pool1d" if len(kernel) == 1 else f"torch.nn.functional.avg_pool{len(kernel)}d"
        return f"{pool}({node.x(0)}, {kernel}, {window.stride}, {window.half}, {ceil}, {count_pads})"
    return node.call(average_pool, node.x(0), kernel, window.stride, window.pads, window.dilation, window.same, ceil, count_pads)


def _lp_pool(node: Node) -> str:
    window, ceil = window_of(node, 0), bool(node.attr("ceil_mode", 0))
    geometry = (node.attr("kernel_shape"), window.stride, window.pads, window.dilation, window.same, ceil)
    return node.call(lp_pool, node.x(0), *geometry, node.attr("p", 2))


def _max_pool(node: Node) -> str:
    kernel, window, ceil = node.attr("kernel_shape"), window_of(node, 0), bool(node.attr("ceil_mode", 0))
    geometry = (kernel, window.stride, window.pads, window.dilation, window.same, ceil)
    if node.n_outputs > 1:
        return node.call(max_pool_indices, node.x(0), *geometry, bool(node.attr("storage_order", 0)))
    if _plain(window, kernel) and (node.dtype(0) or "").startswith(("float", "bfloat")):
        return f"torch.max_pool{len(kernel)}d({node.x(0)}, {kernel}, {window.stride}, {window.half}, {window.dilation}, {ceil})"
    return node.call(max_pool, node.x(0), *geometry)


def _max_unpool(node: Node) -> str:
    window = window_of(node, 0)
    return node.call(max_unpool, node.x(0), node.x(1), node.attr("kernel_shape"), window.stride, window.pads, node.x(2))


def _global(plain: str, helper: Function) -> Rule:
    def rule(node: Node) -> str:
        rank = node.rank(0)
        return node.call(helper, node.x(0)) if rank is None else f"{plain}({node.x(0)}, {list(range(2, rank))}, keepdim=True)"

    return rule


RULES: dict[str, Rule] = {
    "AveragePool": _average_pool,
    "MaxPool": _max_pool,
    "LpPool": _lp_pool,
    "MaxUnpool": _max_unpool,
    "GlobalAveragePool": _global("torch.mean", global_mean),
    "GlobalMaxPool": _global("torch.amax", global_max),
    "GlobalLpPool": lambda node: node.call(global_lp, node.x(0), node.attr("p", 2)),
}
