"""Pooling of regions of interest: RoiAlign and MaxRoiPool. Windows of a fixed size are pooling.py's."""

import math

import torch
from torch import Tensor

from ..node import Node, quote
from . import Rule


def axis_points(start: float, length: float, bins: int, grid: int, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`grid` points in each of `bins` parts of [start, start + length) on an axis of `size` elements: (low index, high index, weight
    of low, weight of high), each [bins, grid]. Points more than one element outside weigh nothing."""
    step = length / bins
    points = start + step * torch.arange(bins, dtype=torch.float32).unsqueeze(1)
    points = points + (torch.arange(grid, dtype=torch.float32) + 0.5).unsqueeze(0) * (step / max(grid, 1))
    inside = ((points >= -1.0) & (points <= size)).to(torch.float32)
    points = points.clamp(0.0, size - 1.0)
    low = points.floor()
    high = (low + 1).clamp_max(size - 1.0)
    part = points - low
    return low.to(torch.int64), high.to(torch.int64), (1 - part) * inside, part * inside


def axis_matrix(low: Tensor, high: Tensor, low_weight: Tensor, high_weight: Tensor, size: int) -> Tensor:
    """[bins, size]: the mean of a bin's interpolated points as weights of the axis' elements."""
    matrix = torch.zeros([low.size(0), size]).scatter_add(1, low, low_weight).scatter_add(1, high, high_weight)
    return matrix / max(low.size(1), 1)


def largest(plane: Tensor, y: tuple[Tensor, Tensor, Tensor, Tensor], x: tuple[Tensor, Tensor, Tensor, Tensor], like: Tensor) -> Tensor:
    """[C, oh, ow]: ONNX's "max" takes the largest of the weighted neighbours of all points, without adding them up."""
    rows, columns = y[0].numel(), x[0].numel()
    best = torch.full([plane.size(0), rows, columns], -math.inf, dtype=plane.dtype, device=plane.device)
    for i in range(2):
        yi, yw = (y[0], y[2]) if i == 0 else (y[1], y[3])
        for j in range(2):
            xi, xw = (x[0], x[2]) if j == 0 else (x[1], x[3])
            values = plane.index_select(1, yi.flatten().to(plane.device)).index_select(2, xi.flatten().to(plane.device))
            best = torch.maximum(best, values * (yw.view(-1, 1) * xw.view(1, -1)).to(like))
    return best.view(plane.size(0), y[0].size(0), y[0].size(1), x[0].size(0), x[0].size(1)).amax([2, 4])


def roi_align(
    x: Tensor, rois: Tensor, images: Tensor, height: int, width: int, ratio: int, scale: float, mode: str, half_pixel: bool
) -> Tensor:
    """x [N, C, H, W], rois [R, 4] (x1, y1, x2, y2), images [R] → [R, C, height, width]. ratio 0: as many points as fit."""
    boxes: list[list[float]] = rois.to(torch.float64).tolist()
    of: list[int] = images.tolist()
    shift = 0.5 if half_pixel else 0.0
    out: list[Tensor] = []
    for r in range(len(boxes)):
        x1, y1 = boxes[r][0] * scale - shift, boxes[r][1] * scale - shift
        w, h = boxes[r][2] * scale - shift - x1, boxes[r][3] * scale - shift - y1
        if not half_pixel:
            w, h = max(w, 1.0), max(h, 1.0)
        rows = ratio if ratio > 0 else math.ceil(h / height)
        columns = ratio if ratio > 0 else math.ceil(w / width)
        if rows <= 0 or columns <= 0:
            out.append(torch.zeros([x.size(1), height, width], dtype=x.dtype, device=x.device))
            continue
        ys = axis_points(y1, h, height, rows, x.size(2))
        xs = axis_points(x1, w, width, columns, x.size(3))
        if mode == "max":
            out.append(largest(x[of[r]], ys, xs, x))
        else:
            top, left = int(ys[0].min()), int(xs[0].min())
            bottom, right = int(ys[1].max()) + 1, int(xs[1].max()) + 1
            down = axis_matrix(ys[0] - top, ys[1] - top, ys[2], ys[3], bottom - top).to(x)
            across = axis_matrix(xs[0] - left, xs[1] - left, xs[2], xs[3], right - left).to(x)
            out.append(torch.matmul(down, torch.matmul(x[of[r], :, top:bottom, left:right], across.t())))
    return torch.stack(out) if len(out) > 0 else torch.zeros([0, x.size(1), height, width], dtype=x.dtype, device=x.device)


def max_roi_pool(x: Tensor, rois: Tensor, height: int, width: int, scale: float) -> Tensor:
    """rois [R, 5] (image, x1, y1, x2, y2), whose corners are rounded to elements; an empty bin gives 0."""
    boxes: list[list[float]] = rois.to(torch.float64).tolist()
    y = torch.zeros([len(boxes), x.size(1), height, width], dtype=x.dtype, device=x.device)
    for r in range(len(boxes)):
        x1, y1 = math.floor(boxes[r][1] * scale + 0.5), math.floor(boxes[r][2] * scale + 0.5)
        x2, y2 = math.floor(boxes[r][3] * scale + 0.5), math.floor(boxes[r][4] * scale + 0.5)
        h, w = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
        for i in range(height):
            top = min(max(y1 + i * h // height, 0), x.size(2))
            bottom = min(max(y1 - (-(i + 1) * h // height), 0), x.size(2))
            for j in range(width):
                left = min(max(x1 + j * w // width, 0), x.size(3))
                right = min(max(x1 - (-(j + 1) * w // width), 0), x.size(3))
                if bottom > top and right > left:
                    y[r, :, i, j] = x[int(boxes[r][0]), :, top:bottom, left:right].amax([1, 2])
    return y


def _roi_align(node: Node) -> str:
    half_pixel = node.opset >= 16 and node.attr("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    size = (node.attr("output_height", 1), node.attr("output_width", 1), node.attr("sampling_ratio", 0))
    scale = float(node.attr("spatial_scale", 1.0))
    return node.call(roi_align, *(node.x(i) for i in range(3)), *size, scale, quote(node.attr("mode", "avg")), half_pixel)


def _max_roi_pool(node: Node) -> str:
    return node.call(max_roi_pool, node.x(0), node.x(1), *node.attr("pooled_shape"), float(node.attr("spatial_scale", 1.0)))


RULES: dict[str, Rule] = {"RoiAlign": _roi_align, "MaxRoiPool": _max_roi_pool}
