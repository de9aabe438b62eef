"""Names for what is put into a graph, that nothing there has yet."""

from __future__ import annotations

import onnx_ir as ir

#: Key of what is noted on a graph: the names taken.
_NAMES = "ernie.names"


def fresh(graph: ir.Graph, name: str) -> str:
    """`name`, or `name_2` … where the graph has a value of that name. Asked twice, it gives two names."""
    if _NAMES not in graph.meta:
        nodes = [node for part in (graph, *graph.subgraphs()) for node in part]
        graph.meta[_NAMES] = {str(value.name) for node in nodes for value in node.outputs} | {str(value.name) for value in graph.inputs}
    taken, wanted, number = graph.meta[_NAMES], name, 1
    while wanted in taken or wanted in graph.initializers:
        number += 1
        wanted = f"{name}_{number}"
    taken.add(wanted)
    return wanted
