"""How factors pass through attention and its cache: with the values, whose heads several query heads may share.

Values [B, heads, S, d] or [B, S, heads·d] carry them through; queries and keys do not.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .fold_label import Label, Stop, Way, dims, length_at, operand


def attention_back(node: ir.Node, output: int, label: Label) -> list[Way]:
    """Output 0 is mixed values, 2 the present ones. Query heads that share a head of values are tied."""
    value, past = node.inputs[2], operand(node, 5)
    split = label
    flat = len(dims(value)) == 3
    if output not in (0, 2):
        raise Stop
    ties = []
    if output == 0:
        split = _by_heads(label, node.attributes.get_int("q_num_heads", 0)) if flat else label
        heads = _value_heads(node)
        asking = length_at(split, 1)
        if asking not in (1, heads) and heads:
            shared = split.reshape((1, heads, asking // heads, *split.shape[2:]))
            ties.append((shared, np.broadcast_to(shared[:, :, :1], shared.shape)))
            split = shared[:, :, 0]
    inputs = {2: _flat(split) if flat else split}
    return [Way(inputs if past is None else {**inputs, 5: split}, ties)]


def attention_forth(node: ir.Node, given: int, label: Label) -> dict[int, Label]:
    if given not in (2, 5):
        raise Stop
    heads, flat = _value_heads(node), len(dims(node.inputs[2])) == 3
    split = _by_heads(label, heads) if flat and given == 2 else label
    asking = node.attributes.get_int("q_num_heads", 0) if flat else dims(node.inputs[0])[1] or 0
    if not heads or not asking or asking % heads:
        raise Stop
    wide = np.repeat(split, asking // heads, axis=1) if length_at(split, 1) != 1 else split
    found = {0: _flat(wide) if flat else wide}
    return found if len(node.outputs) < 3 else {**found, 2: split}


def _value_heads(node: ir.Node) -> int:
    lengths = dims(node.inputs[2])
    return node.attributes.get_int("kv_num_heads", 0) if len(lengths) == 3 else lengths[1] or 0


def _by_heads(label: Label, heads: int) -> Label:
    """[1, 1, heads·d] → [1, heads, 1, d]."""
    if label.ndim != 3 or not heads or label.shape[:2] != (1, 1) or label.shape[2] % heads:
        raise Stop
    return label.reshape(1, heads, 1, -1)


def _flat(label: Label) -> Label:
    """[1, heads, 1, d] → [1, 1, heads·d]."""
    if label.ndim != 4 or label.shape[0] != 1 or label.shape[2] != 1:
        raise Stop
    return label.reshape(1, 1, -1)


def scattered_back(node: ir.Node, output: int, label: Label) -> list[Way]:
    if length_at(label, node.attributes.get_int("axis", -2)) != 1:
        raise Stop
    return [Way({0: label, 1: label})]


def scattered_forth(node: ir.Node, given: int, label: Label) -> dict[int, Label]:
    if given > 1 or length_at(label, node.attributes.get_int("axis", -2)) != 1:
        raise Stop
    return {0: label}
