"""Labels: which factor each element of a value carries. What an operator does with them is fold_rules.py's.

A label is an int array of the value's rank, with 1 for an axis along which it does not change, so it broadcasts against the value.
NONE stands for an element that carries no factor. Factors are positive.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

Label = np.ndarray
NONE = -1


class Stop(Exception):
    """No factor gets through here."""


@dataclass
class Way:
    """inputs: what must carry which label. ties: pairs of labels whose factors must be equal."""

    inputs: dict[int, Label]
    ties: list[tuple[Label, Label]] = field(default_factory=list)


def dims(value: ir.Value | None) -> tuple[int | None, ...]:
    """Lengths of a value's axes, None for the unknown ones."""
    constant = ir.convenience.get_const_tensor(value) if value is not None else None
    shape = constant.shape if constant is not None else value.shape if value is not None else None
    if shape is None:
        raise Stop
    return tuple(length if isinstance(length, int) else None for length in shape)


def fitted(label: Label, value: ir.Value | None) -> Label:
    """`label` for an operand that broadcasts: with the operand's rank. Stops where the operand is too small to carry it."""
    lengths = dims(value)
    lead, rest = label.shape[: max(0, label.ndim - len(lengths))], label.shape[max(0, label.ndim - len(lengths)) :]
    if any(length != 1 for length in lead) or any(want not in (1, got) for want, got in zip(rest, lengths[-len(rest) :], strict=True)):
        raise Stop
    return label.reshape((1,) * (len(lengths) - len(rest)) + rest)


def length_at(label: Label, axis: int) -> int:
    """The label's length on an axis counted from the left or the right."""
    return int(label.shape[axis])


def operand(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def constant(node: ir.Node, index: int) -> np.ndarray | None:
    value = operand(node, index)
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None else tensor.numpy()
