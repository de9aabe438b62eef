"""Weights that alone are 8 bits wide, and why no engine with them is built for exactly one row.

TensorRT-RTX 1.7 multiplies any number of rows with such weights as they are stored, but for exactly one it makes the whole weight 16
bits wide in memory, at every step: of ERNIE-4.5-0.3B 717 MB for each token, which costs more than fp16 weights do. (Seen in its
engines' layers and memory for 8.6 and 8.9, int8 and fp8, a scale per channel; 4-bit weights in blocks are multiplied as they are
stored.) So an engine for one conversation is built for one or two, which takes a little more scratch memory and no more cache. `tensorrt`,
whose compiler is the same, is taken to do likewise; nobody has looked.
"""

from __future__ import annotations

import onnx_ir as ir

from .liveness import is_dequantized

#: Rows that an engine is built for at least, where weights alone are narrow.
LEAST_ROWS = 2
_NARROW = (ir.DataType.INT8, ir.DataType.FLOAT8E4M3FN)


def among(graph: ir.Graph) -> bool:
    """Whether a product has such a weight."""
    return any(_alone(node) for node in graph.all_nodes() if node.op_type in ("MatMul", "Gemm"))


def _alone(node: ir.Node) -> bool:
    weight = node.inputs[1]
    made = weight.producer() if weight is not None else None
    if made is None or made.op_type != "DequantizeLinear" or is_dequantized(node.inputs[0]):
        return False
    codes = made.inputs[0]
    return codes is not None and codes.dtype in _NARROW and not made.attributes.get_int("block_size", 0)
