"""Why a node of the graph has no layer in the engine, as far as the graph itself tells: a reason in words, or none.

What the builder's log adds is layers.py's. A reason here is derived, never guessed: where nothing follows, nothing is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from typing import Any

from .nodes import Graph, Node

DEAD = "dead: no output needs it"
FOLDED = "folded into a constant"
SHAPE = "shape arithmetic: known when building, or done on the host"
HOLDS = "holds other nodes, which are accounted for one by one"
TWIN = "the same as another node, which has a layer"
LAYOUT = "layout only: its neighbours read or write the data where it lies"
NARROW = "weights stay narrow: layers that use them widen them"
NO_CAST = "no effect: it casts to the type that is there already"
NO_EFFECT = "no effect: the parser made no layer of it"
ABSORBED = "compiled away: given to the compiler, named by no layer"
UNKNOWN = "unknown: neither the log nor the graph says why"

#: Operators that move data and compute nothing.
MOVES = frozenset({
    "Concat", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "SpaceToDepth", "Split",
    "Squeeze", "Tile", "Transpose", "Unsqueeze",
})  # fmt: skip
_RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}

#: What a value depends on, from nothing to everything.
_CONSTANT, _SHAPES, _DATA = range(3)


def reasons(graph: Graph) -> list[str]:
    """For each node of the graph why no layer may have it, "" where the graph gives no reason."""
    alive, depends = _alive(graph), _depends(graph)
    said = {_CONSTANT: FOLDED, _SHAPES: SHAPE, _DATA: ""}
    return [
        DEAD if place not in alive else said[depends[place]] or (HOLDS if node.holds else LAYOUT if moves(node) else "")
        for place, node in enumerate(graph.nodes)
    ]


def twins(graph: Graph) -> list[int]:
    """For each node the position of the first that computes the same, its own where there is none."""
    nodes, contents = graph.nodes, dict[bytes, str]()
    same = {name: contents.setdefault(content, name) for name, content in graph.constants.items() if content}
    first: dict[tuple[Any, ...], int] = {}
    found = list(range(len(nodes)))
    for place in _order(nodes):
        node = nodes[place]
        if node.holds or node.operator in _RANDOM:
            continue
        reads = tuple(same.get(value, value) for value in node.reads)
        found[place] = first.setdefault((node.operator, node.domain, node.attributes, reads, len(node.makes)), place)
        same |= {mine: same.get(its, its) for mine, its in zip(node.makes, nodes[found[place]].makes, strict=True)}
    return found


def widening(graph: Graph) -> dict[int, set[int]]:
    """Nodes that make floats of narrow constants (DequantizeLinear of weights, and what follows as long as it is constant) → the
    first nodes after them that are not constant.
    """
    depends, producer = _depends(graph), _producer(graph.nodes)
    found: dict[int, set[int]] = {}
    for place in _order(graph.nodes):
        node = graph.nodes[place]
        sources = {producer[value] for value in node.reads if value in producer}
        if depends[place] == _CONSTANT and (node.operator == "DequantizeLinear" or sources & set(found)):
            found[place] = set()
    for place in _order(graph.nodes)[::-1]:
        for source in {producer[value] for value in graph.nodes[place].reads if value in producer} & set(found):
            found[source] |= found.get(place, {place})
    return found


def moves(node: Node) -> bool:
    """Whether it moves data and computes nothing."""
    return node.operator in MOVES and node.domain in ("", "ai.onnx")


def _producer(nodes: Sequence[Node]) -> dict[str, int]:
    return {value: place for place, node in enumerate(nodes) for value in node.makes if value}


def _order(nodes: Sequence[Node]) -> list[int]:
    """Positions so that what is read comes before who reads it: files need not be sorted."""
    producer = _producer(nodes)
    waits = {place: [producer[value] for value in node.reads if value in producer] for place, node in enumerate(nodes)}
    return list(TopologicalSorter(waits).static_order())


def _alive(graph: Graph) -> set[int]:
    """Positions of the nodes that an output of the graph needs."""
    producer, wanted = _producer(graph.nodes), list(graph.outputs)
    found: set[int] = set()
    while wanted:
        place = producer.get(wanted.pop())
        if place is not None and place not in found:
            found.add(place)
            wanted += graph.nodes[place].reads
    return found


def _depends(graph: Graph) -> dict[int, int]:
    """What each node's outputs depend on: nothing but constants, shapes, or data."""
    known = dict.fromkeys(graph.constants, _CONSTANT)
    found: dict[int, int] = {}
    for place in _order(graph.nodes):
        found[place] = _dependence(graph.nodes[place], known)
        known |= dict.fromkeys(filter(None, graph.nodes[place].makes), found[place])
    return found


def _dependence(node: Node, known: Mapping[str, int]) -> int:
    if node.operator == "Constant":
        return _CONSTANT
    read = [known.get(value, _DATA) for value in node.reads if value]
    if not read or node.operator in _RANDOM:
        return _DATA
    return min(max(read), _SHAPES) if node.operator in ("Shape", "Size") else max(read)
