"""The matrices that a graph multiplies, in bytes: what TensorRT may keep a second time, laid out otherwise. Reads none of them."""

from __future__ import annotations

import onnx_ir as ir

from ..quant.stored import n_bytes
from .liveness import is_dequantized


def product_bytes(model: ir.Model, float_bits: int | None = None) -> int:
    """Bytes of the matrices that are multiplied as they are stored: floats, or codes whose other factor has codes, too.

    Those that are made wide first, and the last one (a decoder's head), are left out: engines keep them once.
    """
    total = 0
    for node in model.graph.all_nodes():
        weight = node.inputs[1] if node.op_type == "MatMul" else None
        if weight is None or _is_last(node):
            continue
        if (tensor := weight.const_value) is not None:
            total += n_bytes(tensor, float_bits)
        elif (codes := _codes(weight)) is not None and is_dequantized(node.inputs[0]):
            total += n_bytes(codes)
    return total


def _is_last(node: ir.Node) -> bool:
    """Whether the graph gives out what a product gives, but for a few steps. (A cache is given out, too, and read on.)"""
    value = node.outputs[0]
    while len(users := [user for user, _ in value.uses()]) == 1 and users[0].op_type not in ("MatMul", "Gemm", "TensorScatter"):
        value = users[0].outputs[0]
    return value.is_graph_output()


def _codes(value: ir.Value) -> ir.TensorProtocol | None:
    """The constant that a value is dequantised from."""
    node = value.producer()
    return node.inputs[0].const_value if node is not None and node.op_type == "DequantizeLinear" and node.inputs[0] is not None else None
