"""Values at computed points: GridSample and AffineGrid, DeformConv, and Col2Im which adds blocks back. Resize is resize.py's."""

# ruff: noqa: RUF005 - TorchScript knows no [*list]

import torch
from torch import Tensor

from ..node import Node, Unmapped
from . import Rule
from .convolution import window_of

MODES = {"linear": 0, "bilinear": 0, "nearest": 1, "cubic": 2, "bicubic": 2}
PADDINGS = {"zeros": 0, "border": 1, "reflection": 2}


def affine_grid(theta: Tensor, size: Tensor, align_corners: bool) -> Tensor:
    shape: list[int] = size.tolist()
    return torch.affine_grid_generator(theta, shape, align_corners)


def bilinear(planes: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """planes [B, C, H, W] at points y, x [B, P] counted in elements, with zeros outside: [B, C, P]. grid_sampler would want the points
    scaled to -1 … 1, which costs digits."""
    height, width = planes.size(2), planes.size(3)
    flat = planes.flatten(2)
    top, left = y.floor(), x.floor()
    out = torch.zeros([1], dtype=planes.dtype, device=planes.device)
    for corner in range(4):
        row, column = top + corner // 2, left + corner % 2
        weight = (1 - (y - row).abs()) * (1 - (x - column).abs())
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        index = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).to(torch.int64)
        value = flat.gather(2, index.unsqueeze(1).expand(-1, flat.size(1), -1))
        out = out + value * torch.where(inside, weight, torch.zeros_like(weight)).unsqueeze(1)
    return out


def deform_conv(
    x: Tensor,
    w: Tensor,
    offset: Tensor,
    b: Tensor | None,
    mask: Tensor | None,
    stride: list[int],
    pads: list[int],
    dilation: list[int],
    group: int,
    offset_group: int,
) -> Tensor:
    """x [N, C, H, W], w [M, C / group, kH, kW], offset [N, offset_group * kH * kW * 2 (y, x), oH, oW]: each element of the kernel is
    sampled at its own moved points, bilinear and with zeros outside; the rest is a product of matrices."""
    n, c, height, width = x.size(0), x.size(1), x.size(2), x.size(3)
    kh, kw, oh, ow = w.size(2), w.size(3), offset.size(2), offset.size(3)
    moved = offset.view(n, offset_group, kh * kw, 2, oh, ow)
    ys = torch.arange(oh, dtype=x.dtype, device=x.device).view(1, 1, oh, 1) * stride[0] - pads[0]
    xs = torch.arange(ow, dtype=x.dtype, device=x.device).view(1, 1, 1, ow) * stride[1] - pads[1]
    planes = x.reshape(n * offset_group, c // offset_group, height, width)
    columns: list[Tensor] = []
    for k in range(kh * kw):
        y = (moved[:, :, k, 0] + ys + (k // kw) * dilation[0]).view(n * offset_group, oh * ow)
        z = (moved[:, :, k, 1] + xs + (k % kw) * dilation[1]).view(n * offset_group, oh * ow)
        sampled = bilinear(planes, y, z).view(n, offset_group, c // offset_group, oh, ow)
        if mask is not None:
            sampled = sampled * mask.view(n, offset_group, kh * kw, 1, oh, ow)[:, :, k]
        columns.append(sampled.reshape(n, c, oh * ow))
    stacked = torch.stack(columns, 2).view(n, group, c // group * kh * kw, oh * ow)
    y = torch.matmul(w.reshape(1, group, w.size(0) // group, -1), stacked).view(n, w.size(0), oh, ow)
    return y if b is None else y + b.view(1, -1, 1, 1)


def col2im(
    x: Tensor, image_shape: Tensor, block_shape: Tensor, strides: list[int] | None, padding: list[int] | None, dilations: list[int] | None
) -> Tensor:
    """x [N, C * block elements, blocks]: every block's elements added where they came from, in an image [N, C, …]."""
    n = image_shape.numel()
    stride = [1] * n if strides is None else strides
    pads = [0] * (2 * n) if padding is None else padding
    dilation = [1] * n if dilations is None else dilations
    image: list[int] = image_shape.tolist()
    block: list[int] = block_shape.tolist()
    wide = [image[i] + pads[i] + pads[n + i] for i in range(n)]
    elements, total = 1, 1
    index = torch.zeros([1, 1], dtype=torch.int64)
    for i in range(n):  # rows: elements of a block, columns: blocks
        count = (wide[i] - dilation[i] * (block[i] - 1) - 1) // stride[i] + 1
        own = (torch.arange(block[i]) * dilation[i]).unsqueeze(1) + (torch.arange(count) * stride[i]).unsqueeze(0)
        index = index.view(index.size(0), 1, index.size(1), 1) * wide[i] + own.view(1, block[i], 1, count)
        index = index.reshape(index.size(0) * block[i], -1)
        elements, total = elements * block[i], total * wide[i]
    batch, channels = x.size(0), x.size(1) // elements
    flat = torch.zeros([batch * channels, total], dtype=x.dtype, device=x.device)
    flat = flat.index_add(1, index.flatten().to(x.device), x.reshape(batch * channels, -1))
    edges: list[int] = []
    for i in range(n):
        edges = [-pads[i], -pads[n + i]] + edges
    return torch.constant_pad_nd(flat.view([batch, channels] + wide), edges, 0.0)


def _grid_sample(node: Node) -> str:
    mode = MODES[node.attr("mode", "linear")]
    if mode == 2 and node.rank(0) == 5:
        raise Unmapped("cubic over three axes")
    padding = PADDINGS[node.attr("padding_mode", "zeros")]
    return f"torch.grid_sampler({node.x(0)}, {node.x(1)}, {mode}, {padding}, {bool(node.attr('align_corners', 0))})"


def _deform_conv(node: Node) -> str:
    window = window_of(node)
    if len(window.stride) != 2:
        raise Unmapped("deformable convolution over other than two axes")
    inputs = [node.x(i) for i in range(5)]
    groups = (node.attr("group", 1), node.attr("offset_group", 1))
    return node.call(deform_conv, *inputs, window.stride, window.pads, window.dilation, *groups)


def _col2im(node: Node) -> str:
    geometry = (node.attr("strides") or None, node.attr("pads") or None, node.attr("dilations") or None)
    return node.call(col2im, node.x(0), node.x(1), node.x(2), *geometry)


RULES: dict[str, Rule] = {
    "GridSample": _grid_sample,
    "AffineGrid": lambda node: node.call(affine_grid, node.x(0), node.x(1), bool(node.attr("align_corners", 0))),
    "DeformConv": _deform_conv,
    "Col2Im": _col2im,
}
