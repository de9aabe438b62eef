"""Operators written out in older or simpler ones: normalisations, activations, reductions. One small function per operator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from .rewriter import Cannot, Rewriter

Rule = Callable[[Rewriter], Sequence[ir.Value | None]]


# --- normalisations -----------------------------------------------------------------------------------------------------


def _stashed(b: Rewriter, x: ir.Value) -> tuple[ir.Value, ir.DataType]:
    """(x in the type that the node computes in, x's own type)."""
    own = b.dtype(x)
    return b.cast(x, ir.DataType(b.attr("stash_type", int(ir.DataType.FLOAT)))), own


def _from(b: Rewriter, x: ir.Value, axis: int) -> list[int]:
    """The axes from `axis` to the last one, negative where the rank is not needed."""
    return [-1] if axis == -1 else list(range(b.axis(axis, x), b.rank(x)))


def _deviation(b: Rewriter, x: ir.Value, axes: Sequence[int]) -> ir.Value:
    """√(mean of squares + epsilon)."""
    variance = b.reduce("ReduceMean", b.op("Mul", x, x), axes)
    return b.op("Sqrt", b.op("Add", variance, b.like(x, b.attr("epsilon", 1e-5))))


def rms_normalization(b: Rewriter) -> Sequence[ir.Value]:
    x, own = _stashed(b, b.need(0))
    deviation = _deviation(b, x, _from(b, b.need(0), b.attr("axis", -1)))
    return [b.op("Mul", b.cast(b.op("Div", x, deviation), own), b.need(1))]


def layer_normalization(b: Rewriter) -> Sequence[ir.Value | None]:
    x, own = _stashed(b, b.need(0))
    axes = _from(b, b.need(0), b.attr("axis", -1))
    mean = b.reduce("ReduceMean", x, axes)
    centred = b.op("Sub", x, mean)
    deviation = _deviation(b, centred, axes)
    y = b.op("Mul", b.cast(b.op("Div", centred, deviation), own), b.need(1))
    if (bias := b.input(2)) is not None:
        y = b.op("Add", y, bias)
    return y, mean, b.op("Reciprocal", deviation) if b.wants(2) else None


def group_normalization(b: Rewriter) -> Sequence[ir.Value]:
    """Scale and bias per channel (opset 21) or per group (18): told apart by their length."""
    x, own = _stashed(b, b.need(0))
    groups, rank = b.attr("num_groups"), b.rank(b.need(0))
    per = b.dim(b.need(1), 0)
    channels = b.dim(x, 1)
    if per is None:
        raise Cannot("the length of its scale is unknown")
    spread = b.op("Reshape", x, b.ints(0, groups, -1), rank=3)
    mean = b.reduce("ReduceMean", spread, [-1])
    centred = b.op("Sub", spread, mean)
    deviation = _deviation(b, centred, [-1])
    y = b.cast(b.op("Div", centred, deviation, rank=3), own)
    by_group = per == groups and channels != groups
    shape = b.ints(1, -1, 1) if by_group else b.ints(1, -1, *[1] * (rank - 2))
    scale, bias = (b.op("Reshape", b.need(index), shape) for index in (1, 2))
    if by_group:
        return [b.op("Reshape", b.op("Add", b.op("Mul", y, scale), bias), b.op("Shape", x))]
    return [b.op("Add", b.op("Mul", b.op("Reshape", y, b.op("Shape", x), rank=rank), scale), bias)]


def mean_variance_normalization(b: Rewriter) -> Sequence[ir.Value]:
    x, axes = b.need(0), b.attr("axes", [0, 2, 3])
    centred = b.op("Sub", x, b.reduce("ReduceMean", x, axes))
    deviation = b.op("Sqrt", b.reduce("ReduceMean", b.op("Mul", centred, centred), axes))
    return [b.op("Div", centred, b.op("Add", deviation, b.like(x, 1e-9)))]


def lp_normalization(b: Rewriter) -> Sequence[ir.Value]:
    x, p = b.need(0), b.attr("p", 2)
    norm = b.reduce(f"ReduceL{p}", x, [b.attr("axis", -1)])
    return [b.op("Div", x, b.op("Where", b.op("Equal", norm, b.like(x, 0)), b.like(x, 1), norm))]  # of zeros: zeros


# --- activations --------------------------------------------------------------------------------------------------------


def gelu(b: Rewriter) -> Sequence[ir.Value]:
    x = b.need(0)
    if b.attr("approximate", "none") == "tanh":
        cube = b.op("Mul", b.op("Mul", x, x), x)
        inner = b.op("Mul", b.op("Add", x, b.op("Mul", cube, b.like(x, 0.044715))), b.like(x, math.sqrt(2 / math.pi)))
        risen = b.op("Add", b.op("Tanh", inner), b.like(x, 1))
    else:
        risen = b.op("Add", b.op("Erf", b.op("Mul", x, b.like(x, math.sqrt(0.5)))), b.like(x, 1))
    return [b.op("Mul", b.op("Mul", x, b.like(x, 0.5)), risen)]


def swish(b: Rewriter) -> Sequence[ir.Value]:
    x, alpha = b.need(0), b.attr("alpha", 1.0)
    return [b.op("Mul", x, b.op("Sigmoid", x if alpha == 1 else b.op("Mul", x, b.like(x, alpha))))]


def hard_swish(b: Rewriter) -> Sequence[ir.Value]:
    return [b.op("Mul", b.need(0), b.op("HardSigmoid", b.need(0), alpha=1 / 6, beta=0.5))]


def mish(b: Rewriter) -> Sequence[ir.Value]:
    return [b.op("Mul", b.need(0), b.op("Tanh", b.op("Softplus", b.need(0))))]


def _exponential(b: Rewriter, x: ir.Value, alpha: float) -> ir.Value:
    """alpha · (exp(min(x, 0)) - 1)."""
    below = b.op("Min", x, b.like(x, 0))
    return b.op("Mul", b.op("Sub", b.op("Exp", below), b.like(x, 1)), b.like(x, alpha))


def selu(b: Rewriter) -> Sequence[ir.Value]:
    x, alpha, gamma = b.need(0), b.attr("alpha", 1.67326319217681884765625), b.attr("gamma", 1.05070102214813232421875)
    return [b.op("Mul", b.op("Add", b.op("Relu", x), _exponential(b, x, alpha)), b.like(x, gamma))]


def elu(b: Rewriter) -> Sequence[ir.Value]:
    return [b.op("Add", b.op("Relu", b.need(0)), _exponential(b, b.need(0), b.attr("alpha", 1.0)))]


def celu(b: Rewriter) -> Sequence[ir.Value]:
    x, alpha = b.need(0), b.attr("alpha", 1.0)
    return [b.op("Add", b.op("Relu", x), _exponential(b, b.op("Div", x, b.like(x, alpha)), alpha))]


# --- reductions and the like --------------------------------------------------------------------------------------------


def _axes(b: Rewriter) -> list[int] | None:
    """The axes a reduction works on, from the attribute or the input; None for all."""
    listed = b.attr("axes")
    if listed is None and b.input(1) is not None:
        listed = b.constant_of(b.input(1), "axes").reshape(-1).tolist()
    if not listed and b.attr("noop_with_empty_axes", 0):
        raise Cannot("noop_with_empty_axes")
    return [int(axis) for axis in listed] if listed else None


def _reduced(before: Sequence[str], kind: str, after: Sequence[str]) -> Rule:
    def rule(b: Rewriter) -> Sequence[ir.Value]:
        x = b.need(0)
        for op in before:
            x = b.op("Mul", x, x) if op == "square" else b.op(op, x)
        x = b.reduce(kind, x, _axes(b), b.attr("keepdims", 1))
        for op in after:
            x = b.op(op, x)
        return [x]

    return rule


def reduce_log_sum_exp(b: Rewriter) -> Sequence[ir.Value]:
    x, axes = b.need(0), _axes(b)
    top = b.reduce("ReduceMax", x, axes)
    total = b.op("Log", b.reduce("ReduceSum", b.op("Exp", b.op("Sub", x, top)), axes, b.attr("keepdims", 1)))
    return [b.op("Add", total, top if b.attr("keepdims", 1) else b.reduce("ReduceMax", x, axes, 0))]


def cast_like(b: Rewriter) -> Sequence[ir.Value]:
    return [b.op("Identity", b.need(0)) if b.need(0).dtype == b.dtype(b.need(1)) else b.cast(b.need(0), b.dtype(b.need(1)))]


def is_nan(b: Rewriter) -> Sequence[ir.Value]:
    return [b.op("Not", b.op("Equal", b.need(0), b.need(0)))]


def trilu(b: Rewriter) -> Sequence[ir.Value]:
    x = b.need(0)
    distance = b.op("Sub", b.counting(b.length(x, -1)), b.op("Unsqueeze", b.counting(b.length(x, -2)), b.ints(1)))
    k = b.input(1) if b.input(1) is not None else b.const(0, np.int64)
    keep = b.op("LessOrEqual", k, distance) if b.attr("upper", 1) else b.op("LessOrEqual", distance, k)
    return [b.op("Where", keep, x, b.like(x, 0))]


def arg_min(b: Rewriter) -> Sequence[ir.Value]:
    kept = {name: b.attr(name) for name in ("axis", "keepdims", "select_last_index") if name in b.node.attributes}
    return [b.op("ArgMax", b.op("Neg", b.need(0)), **kept)]


def mean(b: Rewriter) -> Sequence[ir.Value]:
    return [b.op("Div", b.op("Sum", *b.node.inputs), b.like(b.need(0), len(b.node.inputs)))]


def dropout(b: Rewriter) -> Sequence[ir.Value]:
    training = b.input(2)
    if b.wants(1) or (training is not None and b.constant_of(training, "training_mode").any()):
        raise Cannot("its mask is asked for, or it drops at random")
    return [b.op("Identity", b.need(0))]


def hardmax(b: Rewriter) -> Sequence[ir.Value]:
    x = b.need(0)
    axis = b.axis(b.attr("axis", -1), x)
    if axis != b.rank(x) - 1:
        raise Cannot("along another axis than the last")
    first = b.op("ArgMax", x, axis=axis, keepdims=1)
    return [b.cast(b.op("Equal", b.counting(b.length(x, -1)), first), b.dtype(x))]


def dequantize_linear(b: Rewriter) -> Sequence[ir.Value]:
    x, scale, zero = b.need(0), b.need(1), b.input(2)
    rank, axis, size = len(scale.shape) if scale.shape is not None else -1, b.attr("axis", 1), b.attr("block_size", 0)
    if size:
        raise Cannot("in blocks")
    if rank not in (0, 1):
        raise Cannot("of an unknown kind of scale")
    kind = b.dtype(scale)
    per_axis = rank == 1 and b.dim(scale, 0) != 1

    def spread(value: ir.Value) -> ir.Value:
        if not per_axis:
            return b.op("Reshape", value, b.ints()) if rank == 1 else value
        shape = [1] * b.rank(x)
        shape[axis] = -1
        return b.op("Reshape", value, b.ints(*shape))

    widened = b.cast(x, kind)
    if zero is not None:
        widened = b.op("Sub", widened, spread(b.cast(zero, kind)))
    return [b.op("Mul", widened, spread(scale))]


RULES: dict[str, Rule] = {
    "ArgMin": arg_min,
    "CastLike": cast_like,
    "Celu": celu,
    "DequantizeLinear": dequantize_linear,
    "Dropout": dropout,
    "Elu": elu,
    "Gelu": gelu,
    "GroupNormalization": group_normalization,
    "HardSwish": hard_swish,
    "Hardmax": hardmax,
    "IsNaN": is_nan,
    "LayerNormalization": layer_normalization,
    "LpNormalization": lp_normalization,
    "Mean": mean,
    "MeanVarianceNormalization": mean_variance_normalization,
    "Mish": mish,
    "RMSNormalization": rms_normalization,
    "ReduceL1": _reduced(["Abs"], "ReduceSum", []),
    "ReduceL2": _reduced(["square"], "ReduceSum", ["Sqrt"]),
    "ReduceLogSum": _reduced([], "ReduceSum", ["Log"]),
    "ReduceLogSumExp": reduce_log_sum_exp,
    "ReduceSumSquare": _reduced(["square"], "ReduceSum", []),
    "Selu": selu,
    "Swish": swish,
    "Trilu": trilu,
}
