"""bfloat16 graphs on processors without bfloat16 kernels: the same graph and the same weights, computed in float32.

The file is not touched: the graph is changed in memory, its data file stays where it is. Every bfloat16 number is a
float32 number, so only the rounding between operators is gone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir as ir

_NARROW, _WIDE = ir.DataType.BFLOAT16, ir.DataType.FLOAT


def is_narrow(model: ir.Model) -> bool:
    """Whether any weight or input of the graph is bfloat16."""
    return any(value.dtype == _NARROW for value in [*model.graph.inputs, *model.graph.initializers.values()])


def widened(file: Path) -> bytes | None:
    """The graph of `file` with every bfloat16 made float32, as a serialised ModelProto; None where it has no bfloat16.

    Weights stay bfloat16 where they are and pass through a Cast, which runtimes fold when they load.
    """
    model = ir.load(file)
    if not is_narrow(model):
        return None
    graph = model.graph
    for node in graph.all_nodes():
        to = node.attributes.get("to")
        if node.op_type == "Cast" and to is not None and to.as_int() == _NARROW:
            node.attributes["to"] = ir.AttrInt64("to", int(_WIDE))
        for value in node.outputs:
            _widen(value)
    for value in graph.inputs:
        _widen(value)
    for value in list(graph.initializers.values()):
        if value.dtype == _NARROW:
            _cast_at_use(graph, value)
    return bytes(ir.to_proto(model).SerializeToString())


def _widen(value: Any) -> None:
    if value.dtype == _NARROW:
        value.type = ir.TensorType(_WIDE)


def _cast_at_use(graph: ir.Graph, weight: ir.Value) -> None:
    wide = ir.Value(name=f"{weight.name}.wide", type=ir.TensorType(_WIDE), shape=weight.shape)
    ir.convenience.replace_all_uses_with(weight, wide)
    graph.insert_before(graph[0], ir.node("Cast", [weight], {"to": int(_WIDE)}, outputs=[wide], name=f"{weight.name}.widen"))
