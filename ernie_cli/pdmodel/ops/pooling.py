"""Pooling: the largest or the mean of each window."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import op
from .layers import by_rank, symmetric, window_pads


@op("MaxPool")
def max_pool(c: Any, node: Any, x: Any) -> Any:
    if not c.is_float(x):
        if len(node.outputs) > 1 and node.outputs[1]:
            raise node.cannot("indices of integers")
        return c.p.cast(max_pool(c, node, c.p.cast(c.t(x), "float32")), c.dtype(x))
    x, kernel = c.t(x), list(node.get("kernel_shape"))
    axes = len(kernel)
    strides, dilations = list(node.get("strides") or [1] * axes), list(node.get("dilations") or [1] * axes)
    if any(by != 1 for by in dilations):
        raise node.cannot("dilations")
    pads, ceil = window_pads(c, node, x, kernel, strides, dilations), bool(node.get("ceil_mode", 0))
    wants_index = len(node.outputs) > 1 and bool(node.outputs[1])
    x, padding = symmetric(c, x, pads, -np.inf if not wants_index else float(np.finfo(np.float32).min))
    function = by_rank(c, node, axes, "max_pool{}d")
    if not wants_index:
        return _trimmed(function(x, kernel, strides, padding, ceil_mode=ceil), x, ceil, (kernel, strides, padding))
    if pads[:axes] != pads[axes:] or node.get("storage_order", 0):
        raise node.cannot("indices with padding that is not symmetric, or in column order")
    values, index = function(x, kernel, strides, padding, return_mask=True, ceil_mode=ceil)
    dims = c.dims(x)
    plane = dims[2:].prod()
    offset = c.p.arange(c.scalar(dims[0] * dims[1]), dtype="int64") * c.scalar(plane)
    return values, c.p.cast(index, "int64") + c.reshape(offset, [dims[0], dims[1]] + [1] * axes)


def _trimmed(found: Any, x: Any, ceil: bool, window: tuple[list[int], list[int], list[int]]) -> Any:
    """With ceil_mode Paddle also keeps a last window that lies in the padding alone."""
    for axis, (size, step, pad) in enumerate(zip(*window, strict=True)):
        length = x.shape[2 + axis]
        if ceil and length > 0:
            out = -(-(length + 2 * pad - size) // step) + 1
            out -= (out - 1) * step >= length + pad
            if found.shape[2 + axis] > out:
                found = found[(slice(None),) * (2 + axis) + (slice(0, out),)]
    return found


@op("AveragePool")
def average_pool(c: Any, node: Any, x: Any) -> Any:
    x, kernel = c.t(x), list(node.get("kernel_shape"))
    axes = len(kernel)
    strides, dilations = list(node.get("strides") or [1] * axes), list(node.get("dilations") or [1] * axes)
    if any(by != 1 for by in dilations):
        raise node.cannot("dilations")
    pads = window_pads(c, node, x, kernel, strides, dilations)
    ceil, count_pads = bool(node.get("ceil_mode", 0)), bool(node.get("count_include_pad", 0))
    function = by_rank(c, node, axes, "avg_pool{}d")
    if pads[:axes] == pads[axes:]:
        found = function(x, kernel, strides, pads[:axes], ceil_mode=ceil, exclusive=not count_pads)
        return _trimmed(found, x, ceil, (kernel, strides, pads[:axes]))
    if ceil:
        raise node.cannot("ceil_mode with padding that is not symmetric")
    padded, none = symmetric(c, x, pads, 0.0)
    found = function(padded, kernel, strides, none, exclusive=False)
    if count_pads:
        return found
    inside, _ = symmetric(c, c.p.ones_like(x), pads, 0.0)
    return found / function(inside, kernel, strides, none, exclusive=False)


@op("GlobalAveragePool")
def global_average_pool(c: Any, node: Any, x: Any) -> Any:
    x = c.t(x)
    return c.p.mean(x, list(range(2, len(x.shape))), True)


@op("GlobalMaxPool")
def global_max_pool(c: Any, node: Any, x: Any) -> Any:
    x = c.t(x)
    return c.p.max(x, list(range(2, len(x.shape))), True)


@op("GlobalLpPool")
def global_lp_pool(c: Any, node: Any, x: Any) -> Any:
    x, p = c.t(x), float(node.get("p", 2))
    return c.p.pow(c.p.sum(c.p.pow(c.p.abs(x), p), list(range(2, len(x.shape))), keepdim=True), 1.0 / p)


@op("LpPool")
def lp_pool(c: Any, node: Any, x: Any) -> Any:
    x, p, kernel = c.t(x), float(node.get("p", 2)), list(node.get("kernel_shape"))
    axes = len(kernel)
    if node.get("ceil_mode", 0) or any(by != 1 for by in node.get("dilations") or []):
        raise node.cannot("ceil_mode or dilations")
    strides = list(node.get("strides") or [1] * axes)
    x, padding = symmetric(c, x, window_pads(c, node, x, kernel, strides, [1] * axes), 0.0)
    mean = by_rank(c, node, axes, "avg_pool{}d")(c.p.pow(c.p.abs(x), p), kernel, strides, padding, exclusive=False)
    return c.p.pow(mean * float(np.prod(kernel)), 1.0 / p)
