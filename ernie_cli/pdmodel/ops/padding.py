"""Padding: constant, or with what the axis itself holds."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import op
from .shapes import FAR, bounds, objects


@op("Pad")
def pad(c: Any, node: Any, x: Any, pads: Any = None, value: Any = None, axes: Any = None) -> Any:
    x = c.t(x)
    rank = len(x.shape)
    pads = np.asarray(node.get("pads"), np.int64) if pads is None else pads
    if not isinstance(pads, np.ndarray):
        count = int(pads.shape[0])
        pads = objects(bounds(c, pads, count))
    along = [axis % rank for axis in c.numbers(axes, node, "axes")] if axes is not None else list(range(len(pads) // 2))
    mode = node.get("mode", "constant")
    fill = node.get("value", 0.0) if value is None else value
    for index, axis in enumerate(along):
        x = padded(c, x, axis, (pads[index], pads[index + len(along)]), mode, fill)
    return x


def padded(c: Any, x: Any, axis: int, by: tuple[Any, Any], mode: str, fill: Any) -> Any:
    if all(isinstance(one, (int, np.integer)) for one in by):
        before, after = int(by[0]), int(by[1])
        if before < 0 or after < 0:
            x = c.p.slice(x, [axis], [max(-before, 0)], [min(after, 0) or FAR])
            before, after = max(before, 0), max(after, 0)
        by = (before, after)
        if not before and not after:
            return x
    if mode != "constant":
        return c.p.index_select(x, _source(c, c.dims(x)[axis], by, mode), axis)
    dims = c.dims(x)
    filler = c.p.cast(c.reshape(fill, []) if not isinstance(fill, float) else c.p.full([], fill, c.dtype(x)), c.dtype(x))
    parts = [_block(c, filler, dims, axis, by[0]), x, _block(c, filler, dims, axis, by[1])]
    kept = [part for part in parts if part is not None]
    return c.p.concat(kept, axis)


def _block(c: Any, filler: Any, dims: np.ndarray, axis: int, length: Any) -> Any:
    if isinstance(length, (int, np.integer)) and length == 0:
        return None
    shape = dims.copy()
    shape[axis] = length
    return c.p.expand(c.p.reshape(filler, [1] * len(dims)), c.lengths(shape))


def _source(c: Any, length: Any, by: tuple[Any, Any], mode: str) -> Any:
    """For each element of the padded axis, the element of the axis it repeats."""
    n = c.scalar(length)
    at = c.p.arange(c.scalar(0) - c.scalar(by[0]), n + c.scalar(by[1]), c.scalar(1), dtype="int64")
    zero = c.p.zeros_like(at)
    if mode == "edge":
        return c.p.minimum(c.p.maximum(at, zero), n - 1)
    if mode == "wrap":
        return c.p.remainder(at, n + zero)
    period = c.p.maximum(2 * (n - 1), c.scalar(1))
    turned = c.p.remainder(at, period + zero)
    return c.p.minimum(turned, period - turned) if mode == "reflect" else turned
