"""Keeps ONNX Runtime from treating 8-bit floats as the integers that its fusions were written for. TensorRT sees through it.

ONNX Runtime 1.31 and before fuse a product of two dequantised tensors into MatMulIntegerToFloat or QGemm, and move quantising past
what only moves values (Slice, Gather …), whatever the codes are: then they refuse the graph for its 8-bit floats
(https://github.com/microsoft/onnxruntime/issues/22269). A Max of one input changes nothing and is what no fusion expects. TensorRT-RTX
drops it: the product is still a gemm of FP8 inputs in its build log.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from ..onnxgraph.names import fresh
from .edit import IR_TYPES

_PRODUCTS = ("MatMul", "Gemm")
#: What dequantising is moved behind.
_MOVES = frozenset(
    {"Expand", "Flatten", "Gather", "GatherElements", "MaxPool", "Reshape", "Resize"}
    | {"Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
#: What gives a whole cache (see cache.py): not fused with anything, and too large to be copied for nothing.
_CACHES = ("ScatterND", "Attention")


def shield(model: ir.Model) -> int:
    """Put a Max wherever 8-bit floats would meet such a fusion, in place. Returns how many. Once all pairs are in."""
    graph = model.graph
    places = [(node, at) for node in graph for at in _exposed(node)]
    for node, at in places:
        value = node.inputs[at]
        assert value is not None
        out = ir.Value(name=fresh(graph, f"{value.name}_shield"), type=value.type, shape=value.shape)
        graph.insert_before(node, ir.node("Max", [value], outputs=[out], name=out.name))
        node.replace_input_with(at, out)
    return len(places)


def _exposed(node: ir.Node) -> Iterator[int]:
    """The inputs of a node that a Max must stand before."""
    first = node.inputs[0] if node.inputs else None
    if first is None:
        return
    before = first.producer()
    quantises = node.op_type == "QuantizeLinear" and node.outputs[0].dtype == IR_TYPES["fp8"]
    if (quantises and before is not None and before.op_type not in _CACHES) or (node.op_type in _MOVES and _dequantized(first)):
        yield 0
    elif node.op_type in _PRODUCTS and _dequantized(first) and _dequantized(node.inputs[1]):
        yield 1


def _dequantized(value: ir.Value | None) -> bool:
    node = value.producer() if value is not None else None
    codes = node.inputs[0] if node is not None and node.op_type == "DequantizeLinear" else None
    return codes is not None and codes.dtype == IR_TYPES["fp8"]
