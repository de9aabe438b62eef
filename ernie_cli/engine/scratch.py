"""What single nodes need beside their inputs and outputs, and what their inputs become: rules seen in TensorRT's logs.

The constants are figures.py's.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from . import figures
from .liveness import Size, is_dequantized

_PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose")
#: Bits of a mask in the engine: added to the scores, it has their type.
_MASK_BITS = 16


def scratch(node: ir.Node, size: Size) -> list[int]:
    """Pieces of memory, in bytes. size: of a value."""
    if node.op_type in _PRODUCTS:
        return _product(node)
    return _attention(node, size) if node.op_type == "Attention" else []


def is_mask(value: ir.Value) -> bool:
    """Whether an attention reads it as its mask, directly or a part of it."""
    return value.dtype == ir.DataType.BOOL and any(_masks(user, at) for user, at in value.uses())


def mask_bytes(n_bytes: int) -> int:
    """What a mask of so many booleans weighs in the engine."""
    return n_bytes * _MASK_BITS // 8


def _masks(node: ir.Node, at: int) -> bool:
    if node.op_type == "Attention":
        return at == 3
    return node.op_type == "Gather" and any(_masks(user, place) for user, place in node.outputs[0].uses())


def _attention(node: ir.Node, size: Size) -> list[int]:
    """Keys and values of every query head, where several queries share a smaller number of them, and narrow ones made wide."""
    query, keys, values = (value for value in node.inputs[:3])
    if query is None or keys is None or values is None:
        return []
    shape, of_keys = _shape(query), _shape(keys)
    both = [size(keys) or 0, size(values) or 0]
    if len(shape) != 4 or len(of_keys) != 4:
        return []
    if shape[2] > 1 and shape[1] > of_keys[1]:
        return [n_bytes * shape[1] // of_keys[1] for n_bytes in both]
    return both if is_dequantized(keys) else []


def _product(node: ir.Node) -> list[int]:
    """None for one row times a small matrix; two where a matrix is made wide and no other product is joined with it.

    Products of one value are joined where it is one conversation's prompt; else they run side by side.
    """
    row, weight = (node.inputs[at] if at < len(node.inputs) else None for at in (0, 1))
    shape, of_weight = (_shape(value) if value is not None else () for value in (row, weight))
    if weight is None or node.op_type.startswith("Conv") or not shape or not of_weight:
        return [figures.PRODUCT_BYTES]
    large, wide = math.prod(of_weight) >= figures.SMALL_WEIGHT, is_dequantized(weight)
    rows = math.prod(shape[:-1])
    if rows > 1:
        return [figures.PRODUCT_BYTES] * (2 if wide and shape[0] > 1 and (large or rows > shape[0]) else 1)
    return [figures.PRODUCT_BYTES * (2 if wide else 1)] if large else [figures.PRODUCT_BYTES] * wide


def _shape(value: ir.Value) -> tuple[int, ...]:
    """() where it is not known."""
    lengths = tuple(axis for axis in value.shape or () if isinstance(axis, int))
    return lengths if value.shape is not None and len(lengths) == len(value.shape) else ()
