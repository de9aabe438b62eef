"""How factors per channel pass through an operator, one pair of functions per kind. Knows nodes and shapes, changes nothing.

`back(node, output, label)` gives the ways to let an output carry `label`: each a mapping of input → label, all of which must
carry theirs. `forth(node, at, label)` gives the labels that outputs have when input number `at` carries `label`. Both raise Stop
where the operator lets no factor through.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from .fold_attention import attention_back, attention_forth, scattered_back, scattered_forth
from .fold_label import NONE, Label, Stop, Way, constant, dims, fitted, length_at, operand

#: Users that see no numbers.
UNTOUCHED = ("Shape", "Size")


def back(node: ir.Node, output: int, label: Label) -> list[Way]:
    """Ways for an output to carry `label`, the better one first."""
    rule = _BACK.get(node.op_type)
    if rule is None or node.domain not in ("", "ai.onnx"):
        raise Stop
    return rule(node, output, label)


def forth(node: ir.Node, given: int, label: Label) -> dict[int, Label]:
    """Output → label, when input number `given` carries `label`."""
    if node.op_type in UNTOUCHED:
        return {}
    rule = _FORTH.get(node.op_type)
    if rule is None or node.domain not in ("", "ai.onnx"):
        raise Stop
    return rule(node, given, label)


# What leaves every element where it is.


def _same_back(node: ir.Node, output: int, label: Label) -> list[Way]:
    if output:
        raise Stop
    return [Way({0: label})]


def _same_forth(node: ir.Node, given: int, label: Label) -> dict[int, Label]:
    if given:
        raise Stop
    return {0: label}


def _sum_back(node: ir.Node, output: int, label: Label) -> list[Way]:
    return [Way({index: fitted(label, value) for index, value in enumerate(node.inputs)})]


def _product_back(node: ir.Node, output: int, label: Label) -> list[Way]:
    """One side carries it: a constant for choice."""
    ways: list[tuple[bool, Way]] = []
    for index in range(2 if node.op_type == "Mul" else 1):
        try:
            ways.append((constant(node, index) is None, Way({index: fitted(label, node.inputs[index])})))
        except Stop:
            continue
    return [way for _, way in sorted(ways, key=lambda each: each[0])]


def _broadcast_forth(node: ir.Node, given: int, label: Label) -> dict[int, Label]:
    if node.op_type == "Div" and given:
        raise Stop
    rank = len(dims(node.outputs[0]))
    return {0: label.reshape((1,) * (rank - label.ndim) + label.shape)}


# Products with a matrix, norms.


def _matmul_back(node: ir.Node, output: int, label: Label) -> list[Way]:
    if label.ndim < 2 or length_at(label, -2) != 1:
        raise Stop
    return [Way({1: fitted(label, node.inputs[1])})]


def _matmul_forth(node: ir.Node, given: int, label: Label) -> dict[int, Label]:
    if given != 1 or label.ndim < 2 or length_at(label, -2) != 1:
        raise Stop
    return _broadcast_forth(node, 0, label)


def _gemm_back(node: ir.Node, output: int, label: Label) -> list[Way]:
    if length_at(label, 0) != 1:
        raise Stop
    inputs = {1: label.T if node.attributes.get_int("transB", 0) else label}
    bias = operand(node, 2)
    return [Way(inputs if bias is None else {**inputs, 2: fitted(label, bias)})]


def _norm_back(node: ir.Node, output: int, label: Label) -> list[Way]:
    if output:
        raise Stop
    return [Way({index: fitted(label, value) for index, value in enumerate(node.inputs) if index and value is not None})]


# What moves elements about.


def _turned_back(node: ir.Node, output: int, label: Label) -> list[Way]:
    return [Way({0: label.transpose(np.argsort(_order(node, label.ndim)))})]


def _turned_forth(node: ir.Node, given: int, label: Label) -> dict[int, Label]:
    return {0: label.transpose(_order(node, label.ndim))}


def _order(node: ir.Node, rank: int) -> list[int]:
    order = node.attributes.get_ints("perm", None)
    return list(order) if order is not None else list(range(rank))[::-1]


def reshaped(label: Label, before: tuple[int | None, ...], after: tuple[int | None, ...]) -> Label:
    """`label` of a value of shape `before` for the same elements in the shape `after`."""
    varying = [axis for axis, length in enumerate(label.shape) if length != 1]
    if not varying:
        return label.reshape((1,) * len(after))
    block = [(length or 0) if given == 1 else given for given, length in zip(label.shape, before, strict=True)][varying[0] :]
    count = int(np.prod(block))
    if not count:
        raise Stop
    whole = np.broadcast_to(label.reshape(label.shape[varying[0] :]), block)
    for start in range(len(after) - 1, -1, -1):
        tail = [length or 0 for length in after[start:]]
        if int(np.prod(tail)) == count:
            return whole.reshape((1,) * start + tuple(tail))
    raise Stop


def _reshaped_back(node: ir.Node, output: int, label: Label) -> list[Way]:
    return [Way({0: reshaped(label, dims(node.outputs[0]), dims(node.inputs[0]))})]


def _reshaped_forth(node: ir.Node, given: int, label: Label) -> dict[int, Label]:
    if given:
        raise Stop
    return {0: reshaped(label, dims(node.inputs[0]), dims(node.outputs[0]))}


def _gathered_back(node: ir.Node, output: int, label: Label) -> list[Way]:
    axis, width = _gather(node)
    if any(length != 1 for length in label.shape[axis : axis + width]):
        raise Stop
    return [Way({0: label.reshape((*label.shape[:axis], 1, *label.shape[axis + width :]))})]


def _gathered_forth(node: ir.Node, given: int, label: Label) -> dict[int, Label]:
    axis, width = _gather(node)
    if given or length_at(label, axis) != 1:
        raise Stop
    return {0: label.reshape((*label.shape[:axis], *(1,) * width, *label.shape[axis + 1 :]))}


def _gather(node: ir.Node) -> tuple[int, int]:
    """(the axis gathered from, how many axes of indices stand in its place)."""
    return node.attributes.get_int("axis", 0) % len(dims(node.inputs[0])), len(dims(node.inputs[1]))


def _sliced_back(node: ir.Node, output: int, label: Label) -> list[Way]:
    _sliced_forth(node, 0, label)
    return [Way({0: label})]


def _sliced_forth(node: ir.Node, given: int, label: Label) -> dict[int, Label]:
    axes = constant(node, 3)
    if given or any(length_at(label, int(axis)) != 1 for axis in (range(label.ndim) if axes is None else axes)):
        raise Stop
    return {0: label}


def _expanded_back(node: ir.Node, output: int, label: Label) -> list[Way]:
    """What is repeated has one factor: its copies are tied."""
    before = dims(node.inputs[0])
    lengths = (1,) * (label.ndim - len(before)) + before
    first = label[tuple(slice(0, 1) if length == 1 else slice(None) for length in lengths)]
    return [Way({0: fitted(first, node.inputs[0])}, [(label, np.broadcast_to(first, label.shape))])]


def _joined_back(node: ir.Node, output: int, label: Label) -> list[Way]:
    if length_at(label, _axis(node, label)) != 1:
        raise Stop
    return [Way(dict.fromkeys(range(len(node.inputs)), label))]


def _joined_forth(node: ir.Node, given: int, label: Label) -> dict[int, Label]:
    if length_at(label, _axis(node, label)) != 1:
        raise Stop
    return {0: label}


def _axis(node: ir.Node, label: Label) -> int:
    return node.attributes.get_int("axis", 0) % label.ndim


def _split_back(node: ir.Node, output: int, label: Label) -> list[Way]:
    """The whole carries the output's factors there and none elsewhere."""
    axis = _axis(node, label)
    if length_at(label, axis) == 1:
        return [Way({0: label})]
    parts = []
    for index, length in enumerate(_lengths(node, axis)):
        shape = tuple(length if at == axis else count for at, count in enumerate(label.shape))
        parts.append(label if index == output else np.full(shape, NONE))
    return [Way({0: np.concatenate(parts, axis)})]


def _split_forth(node: ir.Node, given: int, label: Label) -> dict[int, Label]:
    axis = _axis(node, label)
    if length_at(label, axis) == 1:
        return dict.fromkeys(range(len(node.outputs)), label)
    parts = np.split(label, np.cumsum(_lengths(node, axis))[:-1], axis)
    return {index: part for index, part in enumerate(parts) if (part != NONE).any()}


def _lengths(node: ir.Node, axis: int) -> list[int]:
    lengths = [dims(value)[axis] for value in node.outputs]
    if None in lengths:
        raise Stop
    return [length or 0 for length in lengths]


_SAME = ("Identity", "Cast", "Relu", "LeakyRelu", "Neg", "Abs", "Dropout")
_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")

_BACK: dict[str, Callable[[ir.Node, int, Label], list[Way]]] = {
    **dict.fromkeys(_SAME, _same_back),
    **dict.fromkeys(("Add", "Sub"), _sum_back),
    **dict.fromkeys(("Mul", "Div"), _product_back),
    **dict.fromkeys(("RMSNormalization", "LayerNormalization", "SimplifiedLayerNormalization"), _norm_back),
    **dict.fromkeys(_RESHAPES, _reshaped_back),
    "MatMul": _matmul_back,
    "Gemm": _gemm_back,
    "Transpose": _turned_back,
    "Gather": _gathered_back,
    "Slice": _sliced_back,
    "Expand": _expanded_back,
    "Concat": _joined_back,
    "Split": _split_back,
    "Attention": attention_back,
    "TensorScatter": scattered_back,
}
_FORTH: dict[str, Callable[[ir.Node, int, Label], dict[int, Label]]] = {
    **dict.fromkeys(_SAME, _same_forth),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Expand"), _broadcast_forth),
    **dict.fromkeys(_RESHAPES, _reshaped_forth),
    "MatMul": _matmul_forth,
    "Transpose": _turned_forth,
    "Gather": _gathered_forth,
    "Slice": _sliced_forth,
    "Concat": _joined_forth,
    "Split": _split_forth,
    "Attention": attention_forth,
    "TensorScatter": scattered_forth,
}
