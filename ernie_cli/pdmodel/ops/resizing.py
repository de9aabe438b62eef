"""Resize: by Paddle's own interpolation where it computes the same, else axis by axis from where each element comes from."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import op


@op("Upsample")
def upsample(c: Any, node: Any, x: Any, scales: Any = None) -> Any:
    scales = np.asarray(node.get("scales"), np.float32) if scales is None else scales
    node.attributes.setdefault("coordinate_transformation_mode", b"asymmetric")
    node.attributes.setdefault("nearest_mode", b"floor")
    return resize(c, node, x, None, scales, None)


@op("Resize")
def resize(c: Any, node: Any, x: Any, roi: Any = None, scales: Any = None, sizes: Any = None) -> Any:
    if c.opset < 11 and node.op_type == "Resize":
        scales, roi = roi, None
        node.attributes.setdefault("coordinate_transformation_mode", b"asymmetric")
        node.attributes.setdefault("nearest_mode", b"floor")
    if node.get("antialias", 0) or node.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise node.cannot("antialias, or sizes that keep the aspect ratio")
    x = c.t(x)
    axes = [axis % len(x.shape) for axis in node.get("axes") or range(len(x.shape))]
    if scales is not None and isinstance(scales, np.ndarray) and scales.size == 0:
        scales = None
    wanted = _parts(c, scales if sizes is None else sizes, len(axes))
    dims = c.dims(x)
    plan = []
    for axis, value in zip(axes, wanted, strict=True):
        step = _step(c, dims[axis], value, sizes is None)
        if step is not None:
            plan.append((axis, *step))
    if not plan:
        return c.p.assign(x)
    whole = _whole(c, node, x, plan)
    if whole is not None:
        return whole
    for axis, length, scale in plan:
        x = _one_axis(c, node, x, (axis, length, scale))
    return x


def _parts(c: Any, value: Any, count: int) -> list[Any]:
    if isinstance(value, np.ndarray):
        return list(value.ravel())
    return [c.p.reshape(c.p.slice(value, [0], [index], [index + 1]), []) for index in range(count)]


def _step(c: Any, has: Any, value: Any, is_scale: bool) -> tuple[Any, Any] | None:
    """(new length, scale) of an axis, None where it stays as it is."""
    if is_scale:
        if not isinstance(value, (int, float, np.number)):
            exact = c.p.cast(c.scalar(has), "float32") * value
            return c.p.cast(c.p.floor(exact), "int64"), value
        scale = float(value)
        if scale == 1.0:
            return None
        if isinstance(has, int):
            return int(np.floor(has * np.float32(scale))), scale
        return c.p.cast(c.p.floor(c.p.cast(c.scalar(has), "float32") * scale), "int64"), scale
    if isinstance(value, (int, np.integer)) and isinstance(has, int):
        return None if int(value) == has else (int(value), float(value) / has)
    if value is has:
        return None
    length = int(value) if isinstance(value, (int, np.integer)) else c.scalar(value)
    return length, c.p.cast(c.scalar(length), "float32") / c.p.cast(c.scalar(has), "float32")


def _whole(c: Any, node: Any, x: Any, plan: list[tuple[int, Any, Any]]) -> Any:
    """Paddle's interpolation of an image's height and width, None where ONNX means something else."""
    if len(x.shape) != 4 or [axis for axis, *_ in plan] != [2, 3]:
        return None
    mode, place = node.get("mode", "nearest"), node.get("coordinate_transformation_mode", "half_pixel")
    lengths = [length for _, length, _ in plan]
    exact = all(not isinstance(length, int) or not isinstance(scale, float) or x.shape[axis] > 0 for axis, length, scale in plan)
    if not exact or not all(_agree(x.shape[axis], length, scale) for axis, length, scale in plan):
        return None
    size = {"size": lengths}
    if mode == "nearest" and place == "asymmetric" and node.get("nearest_mode", "round_prefer_floor") == "floor":
        return c.F.interpolate(x, mode="nearest", **size)
    if mode == "linear" and place in ("half_pixel", "align_corners"):
        return c.F.interpolate(x, mode="bilinear", align_corners=place == "align_corners", **size)
    cubic = mode == "cubic" and node.get("cubic_coeff_a", -0.75) == -0.75 and not node.get("exclude_outside", 0)
    if cubic and place in ("half_pixel", "align_corners"):
        return c.F.interpolate(x, mode="bicubic", align_corners=place == "align_corners", **size)
    return None


def _agree(has: int, length: Any, scale: Any) -> bool:
    """Whether the ratio of the lengths, which Paddle goes by, is the scale that ONNX goes by."""
    if not isinstance(scale, float):
        return True
    return isinstance(length, int) and has > 0 and abs(length / has - scale) < 1e-6 * scale


def _one_axis(c: Any, node: Any, x: Any, plan: tuple[int, Any, Any]) -> Any:
    axis = plan[0]
    at, last = _places(c, node, c.dims(x)[axis], plan)
    mode = node.get("mode", "nearest")
    if mode == "nearest":
        return c.p.index_select(x, _bounded(c, _nearest(c, node, at), last), axis)
    low = c.p.floor(at)
    part = at - low
    taps = ((0, 1.0 - part), (1, part)) if mode == "linear" else _cubic(node, part)
    shape = [1] * len(x.shape)
    shape[axis] = -1
    total, sums = 0.0, 0.0
    for offset, weight in taps:
        if mode == "cubic" and node.get("exclude_outside", 0):
            inside = c.p.logical_and(low + offset >= 0.0, low + offset <= c.p.cast(last, "float32"))
            weight = weight * c.p.cast(inside, "float32")
        picked = c.p.index_select(x, _bounded(c, low + float(offset), last), axis)
        total = total + picked * c.p.cast(c.p.reshape(weight, shape), c.dtype(x))
        sums = sums + weight
    return total / c.p.reshape(sums, shape) if node.get("exclude_outside", 0) else total


def _places(c: Any, node: Any, has: Any, plan: tuple[int, Any, Any]) -> tuple[Any, Any]:
    """Where each element of the new axis lies on the old one, and the old one's last element."""
    _, length, scale = plan
    count, last = c.scalar(length), c.scalar(has) - 1
    at = c.p.cast(c.p.arange(count, dtype="int64"), "float32")
    mode = node.get("coordinate_transformation_mode", "half_pixel")
    if mode == "asymmetric":
        return at / scale, last
    if mode == "align_corners":
        exact = c.p.cast(c.scalar(has), "float32") * scale  # the new length before it was rounded
        gaps = c.p.where(exact > 1.0, exact - 1.0, c.p.ones_like(exact))
        return at * c.p.cast(last, "float32") / gaps, last
    if mode == "half_pixel_symmetric":
        exact = c.p.cast(c.scalar(has), "float32") * scale
        adjustment = c.p.cast(count, "float32") / exact
        centre = c.p.cast(c.scalar(has), "float32") / 2.0
        return centre * (1.0 - adjustment) + (at + 0.5) / scale - 0.5, last
    if mode not in ("half_pixel", "pytorch_half_pixel"):
        raise node.cannot(f"coordinate_transformation_mode {mode}")
    found = (at + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        several = c.p.cast(count > 1, "float32")
        found = found * several
    return found, last


def _nearest(c: Any, node: Any, at: Any) -> Any:
    how = node.get("nearest_mode", "round_prefer_floor")
    if how == "floor":
        return c.p.floor(at)
    if how == "ceil":
        return c.p.ceil(at)
    return c.p.ceil(at - 0.5) if how == "round_prefer_floor" else c.p.floor(at + 0.5)


def _bounded(c: Any, at: Any, last: Any) -> Any:
    at = c.p.cast(at, "int64")
    return c.p.minimum(c.p.maximum(at, c.p.zeros_like(at)), last + c.p.zeros_like(at))


def _cubic(node: Any, part: Any) -> tuple[tuple[int, Any], ...]:
    """Keys' kernel with parameter a."""
    a = node.get("cubic_coeff_a", -0.75)

    def near(d: Any) -> Any:
        return ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0

    def far(d: Any) -> Any:
        return ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a

    return ((-1, far(part + 1.0)), (0, near(part)), (1, near(1.0 - part)), (2, far(2.0 - part)))


@op("GridSample")
def grid_sample(c: Any, node: Any, x: Any, grid: Any) -> Any:
    mode = {"linear": "bilinear", "bilinear": "bilinear", "nearest": "nearest"}.get(node.get("mode", "linear"))
    if mode is None:
        raise node.cannot("cubic")
    padding = {"zeros": "zeros", "border": "border", "reflection": "reflection"}[node.get("padding_mode", "zeros")]
    return c.F.grid_sample(c.t(x), c.t(grid), mode, padding, bool(node.get("align_corners", 0)))
