"""Layers with weights and windows: convolution, pooling, normalisation, matrix products, quantisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import op


@op("MatMul")
def matmul(c: Any, node: Any, a: Any, b: Any) -> Any:
    a, b = c.t(a), c.t(b)
    if c.is_float(a):
        return c.p.matmul(a, b)
    return c.p.cast(c.p.matmul(c.p.cast(a, "float64"), c.p.cast(b, "float64")), c.dtype(a))


@op("Gemm")
def gemm(c: Any, node: Any, a: Any, b: Any, bias: Any = None) -> Any:
    found = c.p.matmul(c.t(a), c.t(b), bool(node.get("transA", 0)), bool(node.get("transB", 0)))
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    found = found if alpha == 1.0 else found * alpha
    if bias is None:
        return found
    bias = c.t(bias)
    return found + (bias if beta == 1.0 else bias * beta)


@op("Einsum")
def einsum(c: Any, node: Any, *values: Any) -> Any:
    return c.p.einsum(node.get("equation").replace(" ", ""), *[c.t(value) for value in values])


def _pads(c: Any, node: Any, x: Any, kernel: list[int], strides: list[int], dilations: list[int]) -> list[int]:
    """[begin …, end …] per spatial axis, from `pads` or `auto_pad`."""
    axes, auto = len(kernel), node.get("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        return list(node.get("pads") or [0] * (2 * axes))
    if auto == "VALID":
        return [0] * (2 * axes)
    begin, end = [], []
    for axis in range(axes):
        length = x.shape[2 + axis]
        if length < 0 and strides[axis] != 1:
            raise node.cannot(f"auto_pad {auto} on an axis whose length is not fixed")
        length = 1 if length < 0 else length  # with a stride of 1 the padding does not depend on it
        out = -(-length // strides[axis])
        total = max((out - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1 - length, 0)
        total = (kernel[axis] - 1) * dilations[axis] if strides[axis] == 1 else total
        low = total // 2 if auto == "SAME_UPPER" else total - total // 2
        begin.append(low)
        end.append(total - low)
    return begin + end


def _symmetric(c: Any, x: Any, pads: list[int], fill: float) -> tuple[Any, list[int]]:
    """Paddle pads both ends of an axis alike: what is not is padded before. Returns x and what is left to pad."""
    axes = len(pads) // 2
    if pads[:axes] == pads[axes:]:
        return x, pads[:axes]
    from .shapes import _padded

    for axis in range(axes):
        x = _padded(c, x, 2 + axis, (pads[axis], pads[axes + axis]), "constant", fill)
    return x, [0] * axes


@op("Conv")
def conv(c: Any, node: Any, x: Any, weight: Any, bias: Any = None) -> Any:
    x, weight = c.t(x), c.t(weight)
    kernel = list(weight.shape[2:])
    axes = len(kernel)
    strides, dilations = list(node.get("strides") or [1] * axes), list(node.get("dilations") or [1] * axes)
    x, padding = _symmetric(c, x, _pads(c, node, x, kernel, strides, dilations), 0.0)
    function = _by_rank(c, node, axes, "conv{}d")
    return function(x, weight, None if bias is None else c.t(bias), strides, padding, dilations, node.get("group", 1))


def _by_rank(c: Any, node: Any, axes: int, name: str) -> Any:
    if axes not in (1, 2, 3):
        raise node.cannot(f"{axes} spatial axes")
    return getattr(c.F, name.format(axes))


@op("ConvTranspose")
def conv_transpose(c: Any, node: Any, x: Any, weight: Any, bias: Any = None) -> Any:
    x, weight = c.t(x), c.t(weight)
    kernel = list(weight.shape[2:])
    axes = len(kernel)
    strides, dilations = list(node.get("strides") or [1] * axes), list(node.get("dilations") or [1] * axes)
    extra = list(node.get("output_padding") or [0] * axes)
    pads = _transposed_pads(node, x, kernel, strides, dilations, extra)
    function = _by_rank(c, node, axes, "conv{}d_transpose")
    bias = None if bias is None else c.t(bias)
    if pads[:axes] == pads[axes:]:
        if any(one >= max(by, over) for one, by, over in zip(extra, strides, dilations, strict=True)):
            raise node.cannot("output_padding of a stride and more")
        more = {"output_padding": extra, "groups": node.get("group", 1), "dilation": dilations}
        return function(x, weight, bias, strides, pads[:axes], **more)
    found = function(x, weight, bias, strides, groups=node.get("group", 1), dilation=dilations)
    return _cut(c, found, pads, extra)


def _transposed_pads(node: Any, x: Any, kernel: list[int], strides: list[int], dilations: list[int], extra: list[int]) -> list[int]:
    axes, wanted, auto = len(kernel), node.get("output_shape"), node.get("auto_pad", "NOTSET")
    if not wanted and auto in ("NOTSET", ""):
        return list(node.get("pads") or [0] * (2 * axes))
    if not wanted and auto == "VALID":
        return [0] * (2 * axes)
    begin, end = [], []
    for axis in range(axes):
        length = x.shape[2 + axis]
        if length < 0:
            raise node.cannot("output_shape or auto_pad on an axis whose length is not fixed")
        out = wanted[-axes:][axis] if wanted else length * strides[axis]
        total = strides[axis] * (length - 1) + extra[axis] + (kernel[axis] - 1) * dilations[axis] + 1 - out
        low = total // 2 if auto == "SAME_UPPER" else total - total // 2
        begin.append(low)
        end.append(total - low)
    return begin + end


def _cut(c: Any, x: Any, pads: list[int], extra: list[int]) -> Any:
    """Take off what each end of each axis has too much, or add zeros where it has too little."""
    from .shapes import _padded

    axes = len(extra)
    for axis in range(axes):
        x = _padded(c, x, 2 + axis, (-pads[axis], extra[axis] - pads[axes + axis]), "constant", 0.0)
    return x


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
    pads, ceil = _pads(c, node, x, kernel, strides, dilations), bool(node.get("ceil_mode", 0))
    wants_index = len(node.outputs) > 1 and bool(node.outputs[1])
    x, padding = _symmetric(c, x, pads, -np.inf if not wants_index else float(np.finfo(np.float32).min))
    function = _by_rank(c, node, axes, "max_pool{}d")
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
    pads = _pads(c, node, x, kernel, strides, dilations)
    ceil, count_pads = bool(node.get("ceil_mode", 0)), bool(node.get("count_include_pad", 0))
    function = _by_rank(c, node, axes, "avg_pool{}d")
    if pads[:axes] == pads[axes:]:
        found = function(x, kernel, strides, pads[:axes], ceil_mode=ceil, exclusive=not count_pads)
        return _trimmed(found, x, ceil, (kernel, strides, pads[:axes]))
    if ceil:
        raise node.cannot("ceil_mode with padding that is not symmetric")
    padded, none = _symmetric(c, x, pads, 0.0)
    found = function(padded, kernel, strides, none, exclusive=False)
    if count_pads:
        return found
    inside, _ = _symmetric(c, c.p.ones_like(x), pads, 0.0)
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
    x, padding = _symmetric(c, x, _pads(c, node, x, kernel, strides, [1] * axes), 0.0)
    mean = _by_rank(c, node, axes, "avg_pool{}d")(c.p.pow(c.p.abs(x), p), kernel, strides, padding, exclusive=False)
    return c.p.pow(mean * float(np.prod(kernel)), 1.0 / p)


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
    from .shapes import _padded

    x, size = c.t(x), node.get("size")
    squares = _padded(c, c.p.square(x), 1, ((size - 1) // 2, size // 2), "constant", 0.0)
    channels = c.dims(x)[1]
    total = sum(c.p.slice(squares, [1], [index], [index + channels]) for index in range(size))
    alpha, beta, bias = node.get("alpha", 1e-4), node.get("beta", 0.75), node.get("bias", 1.0)
    return x / c.p.pow(bias + alpha / size * total, beta)


@op("QuantizeLinear")
def quantize(c: Any, node: Any, x: Any, scale: Any, zero: Any = None) -> Any:
    from .arithmetic import round_

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
