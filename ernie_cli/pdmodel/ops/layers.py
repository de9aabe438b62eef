"""Layers with weights: matrix products and convolutions, and how their windows are padded."""

from __future__ import annotations

from typing import Any

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


def window_pads(c: Any, node: Any, x: Any, kernel: list[int], strides: list[int], dilations: list[int]) -> list[int]:
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


def symmetric(c: Any, x: Any, pads: list[int], fill: float) -> tuple[Any, list[int]]:
    """Paddle pads both ends of an axis alike: what is not is padded before. Returns x and what is left to pad."""
    axes = len(pads) // 2
    if pads[:axes] == pads[axes:]:
        return x, pads[:axes]
    from .padding import padded

    for axis in range(axes):
        x = padded(c, x, 2 + axis, (pads[axis], pads[axes + axis]), "constant", fill)
    return x, [0] * axes


@op("Conv")
def conv(c: Any, node: Any, x: Any, weight: Any, bias: Any = None) -> Any:
    x, weight = c.t(x), c.t(weight)
    kernel = list(weight.shape[2:])
    axes = len(kernel)
    strides, dilations = list(node.get("strides") or [1] * axes), list(node.get("dilations") or [1] * axes)
    x, padding = symmetric(c, x, window_pads(c, node, x, kernel, strides, dilations), 0.0)
    function = by_rank(c, node, axes, "conv{}d")
    return function(x, weight, None if bias is None else c.t(bias), strides, padding, dilations, node.get("group", 1))


def by_rank(c: Any, node: Any, axes: int, name: str) -> Any:
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
    function = by_rank(c, node, axes, "conv{}d_transpose")
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
    from .padding import padded

    axes = len(extra)
    for axis in range(axes):
        x = padded(c, x, 2 + axis, (-pads[axis], extra[axis] - pads[axes + axis]), "constant", 0.0)
    return x
