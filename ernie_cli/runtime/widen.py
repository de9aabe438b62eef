"""bfloat16 graphs on processors without bfloat16 kernels: the same graph and the same weights, computed in float32.

The file is not touched: the graph is changed in memory, its data file stays where it is. Every bfloat16 number is a
float32 number, so only the rounding between operators is gone.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

_NARROW, _WIDE = ir.DataType.BFLOAT16, ir.DataType.FLOAT


def widened(file: Path) -> bytes | None:
    """The graph of `file` with every bfloat16 made float32, as a serialised ModelProto; None where it has no bfloat16."""
    model = ir.load(file)
    return bytes(ir.to_proto(model).SerializeToString()) if widen(model) else None


def widen(model: ir.Model) -> bool:
    """Make every bfloat16 of `model` float32, in place; False where there was none.

    Weights stay bfloat16 where they are and pass through a Cast, which runtimes fold when they load.
    """
    graph = model.graph
    narrow = [value for value in graph.initializers.values() if value.dtype == _NARROW]
    for node in graph.all_nodes():
        to = node.attributes.get("to")
        if node.op_type == "Cast" and to is not None and to.as_int() == _NARROW:
            node.attributes["to"] = ir.AttrInt64("to", int(_WIDE))
    for value in [*graph.inputs, *(output for node in graph.all_nodes() for output in node.outputs)]:
        if value.dtype == _NARROW:
            value.type = ir.TensorType(_WIDE)
    for value in narrow:
        _cast_at_use(graph, value)
    return bool(narrow)


def _cast_at_use(graph: ir.Graph, weight: ir.Value) -> None:
    wide = ir.Value(name=f"{weight.name}.wide", type=ir.TensorType(_WIDE), shape=weight.shape)
    ir.convenience.replace_all_uses_with(weight, wide)
    graph.insert_before(graph[0], ir.node("Cast", [weight], {"to": int(_WIDE)}, outputs=[wide], name=f"{weight.name}.widen"))
