"""Resize and Upsample: one axis after the other, or torch's own kernels where they mean exactly the same. Sampling at given points is
sampling.py's."""

# ruff: noqa: RUF005 - TorchScript knows no [*list]

import math

import torch
from torch import Tensor

from ..node import Node, Unmapped, quote
from ..text import texts
from . import Rule


def source_points(size: int, out: int, scale: float, mode: str, start: float, end: float) -> Tensor:
    """Where each of `out` elements lies on an axis of `size` elements, float32 as in ONNX Runtime. start, end: the crop's, in 0 … 1."""
    y = torch.arange(out, dtype=torch.float32)
    if mode == "align_corners":
        length = scale * size  # not rounded: so ONNX's definition, only its runtime rounds
        return torch.zeros_like(y) if length == 1 else y * (size - 1) / (length - 1)
    if mode == "asymmetric":
        return y / scale
    if mode == "tf_crop_and_resize":
        if out > 1:
            return start * (size - 1) + y * (end - start) * (size - 1) / (out - 1)
        return torch.full_like(y, 0.5 * (start + end) * (size - 1))
    if mode == "pytorch_half_pixel" and out == 1:
        return torch.zeros_like(y)
    half = (y + 0.5) / scale
    if mode == "half_pixel_symmetric":
        half = size / 2.0 * (1 - out / (torch.tensor(scale, dtype=torch.float32) * size)) + half
    return half - 0.5


def rounded(points: Tensor, mode: str) -> Tensor:
    if mode == "round_prefer_floor":
        return torch.ceil(points - 0.5)
    if mode == "round_prefer_ceil":
        return torch.floor(points + 0.5)
    return torch.ceil(points) if mode == "ceil" else torch.floor(points)


def tap_weights(distance: Tensor, mode: str, a: float) -> Tensor:
    """The filter's value at a distance in (scaled) elements: a triangle, or Keys' cubic with its constant a."""
    d = distance.abs()
    if mode == "linear":
        return torch.clamp_min(1 - d, 0.0)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


def nearest_index(points: Tensor, size: int, rounding: str) -> Tensor:
    return rounded(points, rounding).clamp(0, size - 1).to(torch.int64)


def resize_axis(x: Tensor, axis: int, points: Tensor, scale: float, mode: str, a: float, antialias: bool, exclude_outside: bool) -> Tensor:
    """x at `points` of an axis: a weighted sum of the elements around each."""
    last = x.size(axis) - 1
    squeeze = min(scale, 1.0) if antialias else 1.0
    first = math.floor(-(1.0 if mode == "linear" else 2.0) / squeeze) + 1
    base = torch.floor(points)
    shape = [1] * x.dim()
    shape[axis] = -1
    if mode == "linear" and not antialias and not exclude_outside:
        low, high = base.clamp(0, last).to(torch.int64), (base + 1).clamp(0, last).to(torch.int64)
        part = (points - base).to(x.dtype).to(x.device).view(shape)
        return torch.lerp(x.index_select(axis, low.to(x.device)), x.index_select(axis, high.to(x.device)), part)
    weights: list[Tensor] = []
    for j in range(first, 2 - first):
        tap = tap_weights((base + j - points) * squeeze, mode, a)
        if exclude_outside:
            tap = torch.where((base + j < 0) | (base + j > last), torch.zeros_like(tap), tap)
        weights.append(tap)
    total = torch.stack(weights).sum(0) if antialias or exclude_outside else torch.ones_like(points)
    y = torch.zeros([1], dtype=x.dtype, device=x.device)
    for j in range(first, 2 - first):
        index = (base + j).clamp(0, last).to(torch.int64).to(x.device)
        y = y + x.index_select(axis, index) * (weights[j - first] / total).to(x.dtype).to(x.device).view(shape)
    return y


def nearest(x: Tensor, indices: list[Tensor], axes: list[int]) -> Tensor:
    """x at whole indices of axes: torch's kernel for images [N, C, H, W] where it takes the same elements."""
    if x.dim() == 4 and axes == [2, 3] and (x.is_floating_point() or x.dtype == torch.uint8):
        same = True
        for k in range(2):
            step = torch.tensor(x.size(2 + k) / max(indices[k].numel(), 1), dtype=torch.float32)
            taken = torch.floor(torch.arange(indices[k].numel()) * step).clamp_max(x.size(2 + k) - 1)
            same = same and indices[k].numel() > 0 and torch.equal(taken.to(torch.int64), indices[k])
        if same:
            return torch.ops.aten.upsample_nearest2d(x, [indices[0].numel(), indices[1].numel()])
    for k in range(len(axes)):
        x = x.index_select(axes[k], indices[k].to(x.device))
    return x


def by_kernel(x: Tensor, size: list[int], scale: list[float], given: bool, mode: str, coordinates: str, a: float) -> Tensor | None:
    """torch's kernel for images [N, C, H, W] where it means the same as ONNX, else None. given: scales were, not sizes."""
    if x.dim() != 4 or not x.is_floating_point() or size[:2] != list(x.shape[:2]):
        return None
    if coordinates not in ["align_corners", "half_pixel", "pytorch_half_pixel"]:
        return None
    corners, out = coordinates == "align_corners", size[2:]
    for i in range(2):
        whole = scale[2 + i] * x.size(2 + i) == out[i]
        if out[i] < 1 or (corners and not whole) or (coordinates == "pytorch_half_pixel" and out[i] == 1):
            return None
    height: float | None = scale[2] if given else None
    width: float | None = scale[3] if given else None
    if mode == "linear":
        return torch.ops.aten.upsample_bilinear2d(x, out, corners, height, width)
    return torch.ops.aten.upsample_bicubic2d(x, out, corners, height, width) if a == -0.75 else None


def goal(
    x: Tensor, crop: Tensor | None, scales: Tensor | None, sizes: Tensor | None, on: list[int], policy: str
) -> tuple[list[int], list[float], list[float], list[float]]:
    """(size, scale, begin and end of the crop) of every axis of x; those in `on` are given by scales or else by sizes."""
    size, scale, start, end = list(x.shape), [1.0] * x.dim(), [0.0] * x.dim(), [1.0] * x.dim()
    if crop is not None:
        ends: list[float] = crop.to(torch.float64).tolist()
        for i in range(len(on)):
            start[on[i]], end[on[i]] = ends[i], ends[len(on) + i]
    if scales is not None:
        factors: list[float] = scales.to(torch.float64).tolist()
        for i in range(len(on)):
            scale[on[i]] = factors[i]
            length = scales[i].float() * x.size(on[i])
            size[on[i]] = int(torch.floor(length * (end[on[i]] - start[on[i]])))
    elif sizes is not None:
        wanted: list[int] = sizes.tolist()
        ratios = [float(wanted[i]) / float(x.size(on[i])) for i in range(len(on))]
        for i in range(len(on)):
            scale[on[i]], size[on[i]] = ratios[i], wanted[i]
            if policy != "stretch":
                scale[on[i]] = min(ratios) if policy == "not_larger" else max(ratios)
                size[on[i]] = math.floor(scale[on[i]] * x.size(on[i]) + 0.5)
    return size, scale, start, end


def as_type(x: Tensor, like: Tensor) -> Tensor:
    """In the type of `like`; integers are rounded and kept in their range."""
    if like.is_floating_point():
        return x.to(like.dtype)
    x = torch.round(x)
    if like.dtype == torch.uint8:
        x = x.clamp(0, 255)
    elif like.dtype == torch.int8:
        x = x.clamp(-128, 127)
    return x.to(like.dtype)


def resize(
    x: Tensor,
    roi: Tensor | None,
    scales: Tensor | None,
    sizes: Tensor | None,
    axes: list[int] | None,
    mode: str,
    coordinates: str,
    rounding: str,
    a: float,
    antialias: bool,
    exclude_outside: bool,
    extrapolation: float,
    policy: str,
) -> Tensor:
    """rounding "simple" is that of opset 10: down when growing, up when shrinking, as ONNX Runtime reads it."""
    on = list(range(x.dim())) if axes is None else [i if i >= 0 else i + x.dim() for i in axes]
    crop = coordinates == "tf_crop_and_resize"
    if scales is not None and scales.numel() == 0:
        scales = None
    size, scale, start, end = goal(x, roi if crop else None, scales, sizes, on, policy)
    if mode != "nearest" and not antialias and not exclude_outside and policy == "stretch":
        made = by_kernel(x, size, scale, scales is not None, mode, coordinates, a)
        if made is not None:
            return made
    changed: list[int] = []  # last axes first where they grow: the fewer elements, the sooner
    for i in on:
        if scale[i] != 1.0 or size[i] != x.size(i) or crop:
            changed = [i] + changed if scale[i] > 1 and mode != "nearest" else changed + [i]
    points = [source_points(x.size(i), size[i], scale[i], coordinates, start[i], end[i]) for i in changed]
    wide = x
    if mode == "nearest":
        indices: list[Tensor] = []
        for k in range(len(changed)):
            how = ("ceil" if scale[changed[k]] < 1 else "floor") if rounding == "simple" else rounding
            indices.append(nearest_index(points[k], x.size(changed[k]), how))
        wide = nearest(x, indices, changed)
    else:
        if x.dtype != torch.float64:
            wide = x.to(torch.float64 if x.dtype == torch.int32 or x.dtype == torch.int64 else torch.float32)
        for k in range(len(changed)):
            wide = resize_axis(wide, changed[k], points[k], scale[changed[k]], mode, a, antialias, exclude_outside)
        wide = as_type(wide, x)
    if crop:
        for k in range(len(changed)):
            shape = [1] * x.dim()
            shape[changed[k]] = -1
            outside = ((points[k] < 0) | (points[k] > x.size(changed[k]) - 1)).view(shape).to(x.device)
            wide = wide.masked_fill(outside, extrapolation)
    return wide


def _resize(node: Node) -> str:
    mode = node.attr("mode", "nearest")
    if mode not in ("nearest", "linear", "cubic"):
        raise Unmapped(f"mode {mode}")
    if node.opset < 11:
        inputs = ("None", node.x(1), "None")
        coordinates, rounding = "asymmetric", "simple"
    else:
        inputs = (node.x(1), node.x(2), node.x(3))
        coordinates, rounding = node.attr("coordinate_transformation_mode", "half_pixel"), node.attr("nearest_mode", "round_prefer_floor")
    return _kernel(node, mode, coordinates, rounding) or node.call(
        resize, node.x(0), *inputs, node.attr("axes"), *map(quote, (mode, coordinates, rounding)), float(node.attr("cubic_coeff_a", -0.75)),
        bool(node.attr("antialias", 0)), bool(node.attr("exclude_outside", 0)), float(node.attr("extrapolation_value", 0.0)),
        quote(node.attr("keep_aspect_ratio_policy", "stretch")),
    )  # fmt: skip


def _kernel(node: Node, mode: str, coordinates: str, rounding: str) -> str:
    """torch's own operator for images [N, C, H, W], made larger by whole factors or to known lengths, where it means the same; else "".

    Nothing is decided at run time, so that torch's exporter can write it as ONNX again.
    """
    factors = _factors(node)
    if node.rank(0) != 4 or node.dtype(0) not in ("float32", "float64") or node.attr("antialias", 0) or node.attr("exclude_outside", 0):
        return ""
    if factors:
        size, scale = "None", str(factors)
    elif mode != "nearest" and coordinates != "pytorch_half_pixel" and (lengths := _lengths(node)):
        size, scale = f"[{', '.join(lengths)}]", "None"
    else:
        return ""
    halves = ("half_pixel", "pytorch_half_pixel")
    if mode == "nearest":
        same = (coordinates in halves and rounding.startswith("round")) or (coordinates == "asymmetric" and rounding in ("floor", "simple"))
        return f"torch.ops.aten.upsample_nearest2d({node.x(0)}, {size}, {scale})" if same else ""
    if coordinates not in (*halves, "align_corners") or (mode == "cubic" and node.attr("cubic_coeff_a", -0.75) != -0.75):
        return ""
    kernel = "upsample_bilinear2d" if mode == "linear" else "upsample_bicubic2d"
    return f"torch.ops.aten.{kernel}({node.x(0)}, {size}, {coordinates == 'align_corners'}, {scale})"


def _factors(node: Node) -> list[float]:
    """Of height and width, where they are whole and constant and nothing else changes; else none."""
    given = node.const(1 if node.opset < 11 else 2)
    scales = [] if given is None else [float(scale) for scale in given]
    axes = node.attr("axes") or list(range(len(scales)))
    factors = {int(axis) % 4: scale for axis, scale in zip(axes, scales, strict=False)}
    whole = all(scale >= 1 and scale == int(scale) for scale in scales)
    if not factors or not whole or any(factors.get(axis, 1.0) != 1 for axis in (0, 1)):
        return []
    return [factors.get(axis, 1.0) for axis in (2, 3)]


def _lengths(node: Node) -> list[str]:
    """Height and width as text, where the sizes are known one by one and batch and channels stay as they are; else none."""
    items, shape = texts(node, 3), node.shape(0)
    if (
        items is None
        or len(items) != 4
        or shape is None
        or node.attr("axes")
        or node.attr("keep_aspect_ratio_policy", "stretch") != "stretch"
    ):
        return []
    kept = [
        item == str(length) or (not isinstance(length, int) and item.endswith(f"_size{i}"))
        for i, (item, length) in enumerate(zip(items[:2], shape[:2], strict=True))
    ]
    return items[2:] if all(kept) else []


def _upsample(node: Node) -> str:
    """Opset 7 has the scales as an attribute, opset 9 as an input."""
    scales = node.x(1) if node.opset >= 9 else f"torch.tensor({[float(s) for s in node.attr('scales', [])]})"
    mode = {"bilinear": "linear"}.get(node.attr("mode", "nearest"), node.attr("mode", "nearest"))
    settings = (quote(mode), quote("asymmetric"), quote("floor"), -0.75, False, False, 0.0, quote("stretch"))
    return node.call(resize, node.x(0), "None", scales, "None", None, *settings)


RULES: dict[str, Rule] = {"Resize": _resize, "Upsample": _upsample}
