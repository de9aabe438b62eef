"""Lets onnxscript's folding see single lengths: it follows `Gather(Shape(x), [1])`, but exporters write `Gather(Shape(x), 1)`.

`as_vectors` before the folding, `as_numbers` after it for the lengths that stay dynamic. The folding itself is simplify.py's.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def as_vectors(model: ir.Model) -> None:
    """`Gather(Shape(x), n)` → `Squeeze(Gather(Shape(x), [n]), [0])`, everywhere."""
    for graph in (model.graph, *model.graph.subgraphs()):
        for node in list(graph):
            at = _constant(node, 1) if _gathers(node) else None
            shaped = node.inputs[0].producer() if at is not None and node.inputs[0] is not None else None
            if at is None or at.ndim or shaped is None or shaped.op_type != "Shape" or node.outputs[0].is_graph_output():
                continue
            place = ir.node("Constant", [], attributes={"value": ir.tensor(at.reshape(1))})
            gather = ir.node("Gather", [node.inputs[0], place.outputs[0]], attributes={"axis": 0})
            axes = ir.node("Constant", [], attributes={"value": ir.tensor(np.zeros(1, np.int64))})
            number = ir.node("Squeeze", [gather.outputs[0], axes.outputs[0]], name=node.name)
            _replace(graph, node, [place, gather, axes, number])


def as_numbers(model: ir.Model) -> None:
    """What `as_vectors` did, undone where the length is not known."""
    for graph in (model.graph, *model.graph.subgraphs()):
        for node in list(graph):
            gather = node.inputs[0].producer() if node.op_type == "Squeeze" and node.inputs[0] is not None else None
            if gather is None or not _gathers(gather) or len(node.inputs) < 2 or node.outputs[0].is_graph_output():
                continue
            at, axes = _constant(gather, 1), _constant(node, 1)
            if (
                at is None
                or at.shape != (1,)
                or axes is None
                or axes.tolist() != [0]
                or gather.outputs[0].graph is not node.outputs[0].graph
            ):
                continue
            place = ir.node("Constant", [], attributes={"value": ir.tensor(at.reshape(()))})
            number = ir.node("Gather", [gather.inputs[0], place.outputs[0]], attributes={"axis": 0}, name=node.name)
            _replace(graph, node, [place, number])


def _gathers(node: ir.Node) -> bool:
    axis = node.attributes.get("axis")
    return node.op_type == "Gather" and node.domain in ("", "ai.onnx") and (axis is None or axis.as_int() == 0)


def _constant(node: ir.Node, i: int) -> np.ndarray | None:
    value = node.inputs[i]
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def _replace(graph: ir.Graph, old: ir.Node, new: list[ir.Node]) -> None:
    """Put `new`, whose last node gives what `old` gave, in its place."""
    made, was = new[-1].outputs[0], old.outputs[0]
    made.name, made.type, made.shape = was.name, was.type, was.shape
    graph.insert_before(old, new)
    ir.convenience.replace_all_uses_with(was, made)
    graph.remove(old, safe=True)
