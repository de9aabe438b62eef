"""Element by element: arithmetic, comparisons, logic, casts. Activations are activations.py's."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np

from . import TABLE, op

_UNARY = {
    "Abs": "abs",
    "Acos": "acos",
    "Acosh": "acosh",
    "Asin": "asin",
    "Asinh": "asinh",
    "Atan": "atan",
    "Atanh": "atanh",
    "Ceil": "ceil",
    "Cos": "cos",
    "Cosh": "cosh",
    "Erf": "erf",
    "Exp": "exp",
    "Floor": "floor",
    "IsNaN": "isnan",
    "Log": "log",
    "Neg": "neg",
    "Not": "logical_not",
    "Reciprocal": "reciprocal",
    "Sign": "sign",
    "Sin": "sin",
    "Sinh": "sinh",
    "Sqrt": "sqrt",
    "Tan": "tan",
    "Tanh": "tanh",
    "BitwiseNot": "bitwise_not",
}
_BINARY = {
    "And": "logical_and",
    "Or": "logical_or",
    "Xor": "logical_xor",
    "Equal": "equal",
    "Less": "less_than",
    "LessOrEqual": "less_equal",
    "Greater": "greater_than",
    "GreaterOrEqual": "greater_equal",
    "BitwiseAnd": "bitwise_and",
    "BitwiseOr": "bitwise_or",
    "BitwiseXor": "bitwise_xor",
}


def _unary(name: str) -> Any:
    return lambda c, node, x: getattr(c.p, name)(c.t(x))


def _binary(name: str) -> Any:
    return lambda c, node, a, b: getattr(c.p, name)(c.t(a), c.t(b))


TABLE.update({name: _unary(function) for name, function in _UNARY.items()})
TABLE.update({name: _binary(function) for name, function in _BINARY.items()})


def _partly(a: Any, b: Any) -> bool:
    """Whether both are arrays, at least one with unknown elements: shapes, which are calculated element by element."""
    return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and object in (a.dtype, b.dtype)


def _each(function: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = np.broadcast_arrays(a, b)
    found = np.empty(a.shape, dtype=object)
    for index in np.ndindex(a.shape):
        found[index] = function(_number(a[index]), _number(b[index]))
    return found


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, (int, np.integer)) else value


def _arithmetic(name: str, each: Any) -> Any:
    def apply(c: Any, node: Any, a: Any, b: Any) -> Any:
        if _partly(a, b):
            return _each(each, a, b)
        return _widened(c, getattr(c.p, name), c.t(a), c.t(b))

    return apply


def _widened(c: Any, function: Any, a: Any, b: Any) -> Any:
    """Paddle has no arithmetic of small integers: it is done in int32 and cut back, which wraps around as theirs does."""
    dtype = c.dtype(a)
    if dtype not in ("int8", "uint8", "int16", "uint16"):
        return function(a, b)
    return c.p.cast(function(c.p.cast(a, "int32"), c.p.cast(b, "int32")), dtype)


TABLE["Add"] = _arithmetic("add", lambda x, y: x + y)
TABLE["Sub"] = _arithmetic("subtract", lambda x, y: x - y)
TABLE["Mul"] = _arithmetic("multiply", lambda x, y: x * y)


@op("Div")
def div(c: Any, node: Any, a: Any, b: Any) -> Any:
    if _partly(a, b):  # lengths: never negative
        return _each(lambda x, y: x // y, a, b)
    a, b = c.t(a), c.t(b)
    if c.is_float(a):
        return c.p.divide(a, b)
    return _widened(c, lambda x, y: _cut(c, x, y), a, b)


def _cut(c: Any, a: Any, b: Any) -> Any:
    floor = c.p.floor_divide(a, b)
    left = c.p.not_equal(c.p.multiply(floor, b), a)
    zero = c.p.zeros_like(floor)
    negative = c.p.less_than(floor, zero)  # ONNX cuts towards zero
    return floor + c.p.cast(c.p.logical_and(left, negative), c.dtype(floor))


@op("Mod")
def mod(c: Any, node: Any, a: Any, b: Any) -> Any:
    if _partly(a, b):
        return _each(lambda x, y: x % y, a, b)
    a, b = c.t(a), c.t(b)
    if not node.get("fmod", 0):
        return _widened(c, c.p.remainder, a, b)
    if c.is_float(a):
        return a - c.p.trunc(a / b) * b
    left = c.p.remainder(c.p.abs(a), c.p.abs(b))
    return c.p.where(c.p.less_than(a, c.p.zeros_like(a)), -left, left)


@op("Pow")
def pow_(c: Any, node: Any, a: Any, b: Any) -> Any:
    a = c.t(a)
    if isinstance(b, np.ndarray) and b.size == 1 and c.is_float(a):
        power = float(b.ravel()[0])
        found = c.p.square(a) if power == 2 else c.p.sqrt(a) if power == 0.5 else c.p.pow(a, power)
        return found if b.ndim <= len(a.shape) else c.reshape(found, [1] * (b.ndim - len(a.shape)) + list(c.dims(found)))
    b = c.t(b)
    return c.p.pow(a, b if c.dtype(b) == c.dtype(a) else c.p.cast(b, c.dtype(a)))


@op("Max")
def maximum(c: Any, node: Any, *values: Any) -> Any:
    return reduce(lambda a, b: _widened(c, c.p.maximum, a, b), map(c.t, values))


@op("Min")
def minimum(c: Any, node: Any, *values: Any) -> Any:
    return reduce(lambda a, b: _widened(c, c.p.minimum, a, b), map(c.t, values))


@op("Sum")
def total(c: Any, node: Any, *values: Any) -> Any:
    return reduce(c.p.add, map(c.t, values))


@op("Mean")
def mean(c: Any, node: Any, *values: Any) -> Any:
    return total(c, node, *values) / float(len(values))


@op("BitShift")
def shift(c: Any, node: Any, a: Any, b: Any) -> Any:
    move = c.p.bitwise_left_shift if node.get("direction") == "LEFT" else c.p.bitwise_right_shift
    return move(c.t(a), c.t(b), is_arithmetic=False)


@op("Where")
def where(c: Any, node: Any, condition: Any, a: Any, b: Any) -> Any:
    if c.known(condition) and _partly(a, b):
        picked = np.where(*np.broadcast_arrays(condition, a, b))
        return picked.astype(object)
    return c.p.where(c.t(condition), c.t(a), c.t(b))


@op("Round")
def round_(c: Any, node: Any, x: Any) -> Any:
    """Halves go to the even neighbour in ONNX, away from zero in Paddle."""
    x = c.t(x)
    half = c.p.equal(c.p.abs(x - c.p.trunc(x)), c.p.full([], 0.5, c.dtype(x)))
    return c.p.where(half, 2.0 * c.p.round(x / 2.0), c.p.round(x))


@op("IsInf")
def isinf(c: Any, node: Any, x: Any) -> Any:
    x = c.t(x)
    found, zero = c.p.isinf(x), c.p.zeros_like(x)
    if not node.get("detect_positive", 1):
        found = c.p.logical_and(found, x < zero)
    if not node.get("detect_negative", 1):
        found = c.p.logical_and(found, x > zero)
    return found


@op("Cast")
def cast(c: Any, node: Any, x: Any) -> Any:
    import onnx

    wanted = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(node.get("to"))).name
    if isinstance(x, np.ndarray) and x.dtype == object and wanted == "int64":
        return x
    return c.cast(c.t(x), wanted)


@op("CastLike")
def cast_like(c: Any, node: Any, x: Any, like: Any) -> Any:
    return c.cast(c.t(x), like.dtype.name if isinstance(like, np.ndarray) and like.dtype != object else c.dtype(like))


@op("Identity", "Dropout")
def identity(c: Any, node: Any, x: Any, *unused: Any) -> Any:
    if node.op_type == "Dropout" and len(unused) > 1 and unused[1] is not None and not (c.known(unused[1]) and not unused[1].any()):
        raise node.cannot("in training mode")
    if node.op_type == "Dropout" and len(node.outputs) > 1 and node.outputs[1]:
        return x, c.p.cast(c.p.ones_like(c.t(x)), "bool")
    return x


@op("Constant")
def constant(c: Any, node: Any) -> Any:
    import onnx

    (name,) = node.attributes
    value = node.attributes[name]
    if name == "value":
        return onnx.numpy_helper.to_array(value)
    if name not in ("value_float", "value_floats", "value_int", "value_ints"):
        raise node.cannot(f"constants of the kind {name}")
    return np.asarray(value, dtype=np.float32 if "float" in name else np.int64)
