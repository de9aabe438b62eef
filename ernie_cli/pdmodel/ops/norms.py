"""Normalisation, and the scales of quantisation."""

from __future__ import annotations

from typing import Any

from . import op
from .arithmetic import round_
from .padding import padded


@op("BatchNormalization")
def batch_norm(c: Any, node: Any, x: Any, scale: Any, bias: Any, mean: Any, variance: Any) -> Any:
    if node.get("training_mode", 0):
        raise node.cannot("in training mode")
    x = c.t(x)
    kept = c.dtype(x)
    values = [c.t(value) for value in (mean, variance, scale, bias)]
    return c.p.cast(c.F.batch_norm(x, *values, False, 0.9, node.get("epsilon", 1e-5)), kept)


def _standardised(c: Any, x: Any, axes: list[int], epsilon: float) -> Any:
    middle = x - c.p.mean(x, axes, True)
    return middle / c.p.sqrt(c.p.mean(c.p.square(middle), axes, True) + epsilon)


@op("InstanceNormalization")
def instance_norm(c: Any, node: Any, x: Any, scale: Any, bias: Any) -> Any:
    x, shape = c.t(x), [1, -1] + [1] * (len(x.shape) - 2)
    done = _standardised(c, x, list(range(2, len(x.shape))), node.get("epsilon", 1e-5))
    return done * c.p.reshape(c.t(scale), shape) + c.p.reshape(c.t(bias), shape)


@op("GroupNormalization")
def group_norm(c: Any, node: Any, x: Any, scale: Any, bias: Any) -> Any:
    x, groups = c.t(x), node.get("num_groups")
    dims = c.dims(x)
    rows = c.reshape(x, [dims[0], groups, -1])
    done = _standardised(c, rows, [2], node.get("epsilon", 1e-5))
    scale, bias = c.t(scale), c.t(bias)
    if c.opset < 21:  # one number per group
        return c.reshape(done * c.p.reshape(scale, [1, -1, 1]) + c.p.reshape(bias, [1, -1, 1]), dims)
    shape = [1, -1] + [1] * (len(dims) - 2)
    return c.reshape(done, dims) * c.p.reshape(scale, shape) + c.p.reshape(bias, shape)


@op("LayerNormalization")
def layer_norm(c: Any, node: Any, x: Any, scale: Any, bias: Any = None) -> Any:
    x, epsilon = c.t(x), node.get("epsilon", 1e-5)
    rank = len(x.shape)
    axis = node.get("axis", -1) % rank
    lengths = list(x.shape[axis:])
    more = any(name for name in node.outputs[1:])
    if not more and all(length > 0 for length in lengths):
        flat = [c.p.reshape(_spread(c, value, lengths), [-1]) if value is not None else None for value in (scale, bias)]
        return c.F.layer_norm(x, lengths, *[None if value is None else c.p.reshape(value, lengths) for value in flat], epsilon)
    axes = list(range(axis, rank))
    mean = c.p.mean(x, axes, True)
    inverse = 1.0 / c.p.sqrt(c.p.mean(c.p.square(x - mean), axes, True) + epsilon)
    found = (x - mean) * inverse * c.t(scale)
    return (found if bias is None else found + c.t(bias)), mean, inverse


def _spread(c: Any, value: Any, lengths: list[int]) -> Any:
    value = c.t(value)
    return value if list(value.shape) == lengths else c.p.expand(value, lengths)


@op("RMSNormalization")
def rms_norm(c: Any, node: Any, x: Any, scale: Any) -> Any:
    x = c.t(x)
    axes = list(range(node.get("axis", -1) % len(x.shape), len(x.shape)))
    return x / c.p.sqrt(c.p.mean(c.p.square(x), axes, True) + node.get("epsilon", 1e-5)) * c.t(scale)


@op("MeanVarianceNormalization")
def mean_variance(c: Any, node: Any, x: Any) -> Any:
    x, axes = c.t(x), list(node.get("axes") or [0, 2, 3])
    middle = x - c.p.mean(x, axes, True)
    return middle / (c.p.sqrt(c.p.mean(c.p.square(middle), axes, True)) + 1e-9)


@op("LpNormalization")
def lp_norm(c: Any, node: Any, x: Any) -> Any:
    x, axis, p = c.t(x), node.get("axis", -1), node.get("p", 2)
    size = c.p.abs(x) if p == 1 else c.p.square(x)
    total = c.p.sum(size, axis, keepdim=True)
    return x / (total if p == 1 else c.p.sqrt(total))


@op("LRN")
def lrn(c: Any, node: Any, x: Any) -> Any:
    x, size = c.t(x), node.get("size")
    squares = padded(c, c.p.square(x), 1, ((size - 1) // 2, size // 2), "constant", 0.0)
    channels = c.dims(x)[1]
    total = sum(c.p.slice(squares, [1], [index], [index + channels]) for index in range(size))
    alpha, beta, bias = node.get("alpha", 1e-4), node.get("beta", 0.75), node.get("bias", 1.0)
    return x / c.p.pow(bias + alpha / size * total, beta)


@op("QuantizeLinear")
def quantize(c: Any, node: Any, x: Any, scale: Any, zero: Any = None) -> Any:
    x = c.t(x)
    dtype = "uint8" if zero is None else c.dtype(zero)
    if dtype not in ("int8", "uint8") or node.get("block_size", 0):
        raise node.cannot(f"to {dtype}, or in blocks")
    scale, zero = _along(c, node, x, scale), 0.0 if zero is None else c.p.cast(_along(c, node, x, zero), c.dtype(x))
    low, high = (-128.0, 127.0) if dtype == "int8" else (0.0, 255.0)
    return c.p.cast(c.p.clip(round_(c, node, x / scale) + zero, low, high), dtype)


@op("DequantizeLinear")
def dequantize(c: Any, node: Any, x: Any, scale: Any, zero: Any = None) -> Any:
    if node.get("block_size", 0):
        raise node.cannot("in blocks")
    x, dtype = c.t(x), c.dtype(scale)
    zero = 0.0 if zero is None else c.p.cast(_along(c, node, x, zero), dtype)
    return (c.p.cast(x, dtype) - zero) * _along(c, node, x, scale)


def _along(c: Any, node: Any, x: Any, value: Any) -> Any:
    """One number per channel of `axis`, or one for all."""
    value = c.t(value)
    if len(value.shape) == 0:
        return value
    shape = [1] * len(x.shape)
    shape[node.get("axis", 1)] = -1
    return c.p.reshape(value, shape)
