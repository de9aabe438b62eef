"""Many elements into one: reductions, arg-reductions, cumulative sums, softmax, top-k."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import op


def _axes(c: Any, node: Any, axes: Any) -> list[int] | None:
    """The axes to reduce, None for all of them. They are an attribute or an input, by opset."""
    if axes is not None:
        return c.numbers(axes, node, "axes") or None
    return list(node.get("axes") or []) or None


def _reduced(function: Any) -> Any:
    def reduce(c: Any, node: Any, x: Any, axes: Any = None) -> Any:
        wanted = _axes(c, node, axes)
        if wanted is None and node.get("noop_with_empty_axes", 0):
            return x
        if isinstance(x, np.ndarray) and x.dtype == object:
            x = c.t(x)
        x = c.t(x)
        found = function(c, x, wanted, bool(node.get("keepdims", 1)))
        return found if c.dtype(found) == c.dtype(x) else c.p.cast(found, c.dtype(x))

    return reduce


def _as_float(c: Any, x: Any) -> Any:
    return x if c.is_float(x) else c.p.cast(x, "float64")


def _as_number(c: Any, x: Any) -> Any:
    return c.p.cast(x, "int32") if c.dtype(x) == "bool" else x


_REDUCTIONS = {
    "ReduceSum": lambda c, x, axes, keep: c.p.sum(x, axes, keepdim=keep),
    "ReduceMean": lambda c, x, axes, keep: c.p.mean(_as_float(c, x), axes, keep),
    "ReduceMax": lambda c, x, axes, keep: c.p.max(_as_number(c, x), axes, keep),
    "ReduceMin": lambda c, x, axes, keep: c.p.min(_as_number(c, x), axes, keep),
    "ReduceProd": lambda c, x, axes, keep: c.p.prod(x, axes, keep),
    "ReduceL1": lambda c, x, axes, keep: c.p.sum(c.p.abs(x), axes, keepdim=keep),
    "ReduceL2": lambda c, x, axes, keep: c.p.sqrt(c.p.sum(c.p.square(_as_float(c, x)), axes, keepdim=keep)),
    "ReduceSumSquare": lambda c, x, axes, keep: c.p.sum(c.p.multiply(x, x), axes, keepdim=keep),
    "ReduceLogSum": lambda c, x, axes, keep: c.p.log(c.p.sum(_as_float(c, x), axes, keepdim=keep)),
    "ReduceLogSumExp": lambda c, x, axes, keep: c.p.logsumexp(_as_float(c, x), axes, keep),
}
for _name, _function in _REDUCTIONS.items():
    op(_name)(_reduced(_function))


@op("ArgMax", "ArgMin")
def arg(c: Any, node: Any, x: Any) -> Any:
    x, axis = c.t(x), node.get("axis", 0)
    find = c.p.argmax if node.op_type == "ArgMax" else c.p.argmin
    keep = bool(node.get("keepdims", 1))
    if not node.get("select_last_index", 0):
        return find(x, axis, keepdim=keep)
    last = c.scalar(c.dims(x)[axis]) - 1
    return last - find(c.p.flip(x, [axis]), axis, keepdim=keep)


@op("CumSum")
def cumsum(c: Any, node: Any, x: Any, axis: Any) -> Any:
    x = c.t(x)
    (along,) = c.numbers(axis, node, "axis")
    turned = c.p.flip(x, [along]) if node.get("reverse", 0) else x
    found = c.p.cumsum(turned, along, dtype=c.dtype(x))
    found = found - turned if node.get("exclusive", 0) else found
    return c.p.flip(found, [along]) if node.get("reverse", 0) else found


@op("TopK")
def topk(c: Any, node: Any, x: Any, k: Any) -> Any:
    """Of equal values the first comes first in ONNX; Paddle's own topk promises nothing, its stable sort does."""
    x = c.t(x)
    axis = node.get("axis", -1) % len(x.shape)
    count = c.numbers(k, node, "k")[0] if c.known(k) else c.scalar(c.t(k))
    order = c.p.argsort(x, axis, bool(node.get("largest", 1)), stable=True)
    index = c.p.slice(order, [axis], [0], [count])
    return c.p.take_along_axis(x, index, axis, broadcast=False), index


@op("Softmax", "LogSoftmax", "Hardmax")
def softmax(c: Any, node: Any, x: Any) -> Any:
    """From opset 13 on along one axis; before, over all axes from this one on."""
    x = c.t(x)
    axis = node.get("axis", -1 if c.opset >= 13 else 1)
    if c.opset < 13 and axis not in (-1, len(x.shape) - 1):
        dims = c.dims(x)
        flat = c.reshape(x, [*dims[:axis], -1])
        return c.reshape(_softmax(c, node, flat, -1), dims)
    return _softmax(c, node, x, axis)


def _softmax(c: Any, node: Any, x: Any, axis: int) -> Any:
    if node.op_type == "Hardmax":
        at = c.p.argmax(x, axis, keepdim=True)
        return c.p.put_along_axis(c.p.zeros_like(x), at, c.p.full([], 1, c.dtype(x)), axis)
    return c.F.softmax(x, axis) if node.op_type == "Softmax" else c.F.log_softmax(x, axis)
