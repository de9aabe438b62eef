"""Runs a module with nothing fused and gives every tensor of its main graph. Values inside loops and branches are left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..need import need
from ..runtime.graphs import Step
from .arrays import to_array


def steps(module: Any, arguments: Sequence[Any], inputs: Sequence[str | None], outputs: Sequence[str]) -> Iterator[Step]:
    """Every computed tensor in order. inputs: names of forward's arguments; outputs: names of its flattened results.

    Weights go by their attribute path. A value that is written to in place later is given as it was when it was computed.
    """
    torch = need("torch")
    graph = module.inlined_graph  # made anew at each access: it may be changed
    names = _names(graph, inputs, outputs)
    made = [(node, value) for node in graph.nodes() for value in node.outputs() if value.type().kind() == "TensorType" and _computes(node)]
    told = [(names.get(value.debugName(), value.debugName()), node.kind(), tuple(_went_in(node, names))) for node, value in made]
    kept = _copies(graph, made) if any(_writes(node) for node in _all(graph)) else [value for _, value in made]
    for _ in list(graph.outputs()):
        graph.eraseOutput(0)
    for value in kept:
        graph.registerOutput(value)
    if not kept:
        return
    if len(kept) == 1:
        graph.registerOutput(kept[0])  # a single one would not be made a tuple
    graph.makeMultiOutputIntoTuple()
    function = torch._C._create_function_from_graph("steps", graph)
    with torch.no_grad(), torch.jit.optimized_execution(False):
        values = function(module._c, *arguments)
    for (name, operator, went_in), value in zip(told, values, strict=False):
        yield Step(name, operator, went_in, to_array(value) if isinstance(value, torch.Tensor) else None)


def _computes(node: Any) -> bool:
    return node.kind() not in ("prim::GetAttr", "prim::Constant", "prim::unchecked_cast", "aten::_unwrap_optional")


def _all(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _all(inner)


def _writes(node: Any) -> bool:
    """Whether an operator may change a tensor that is there already: by convention its name ends in one underscore."""
    return node.kind().endswith("_") and not node.kind().endswith("__")


def _copies(graph: Any, made: Sequence[tuple[Any, Any]]) -> list[Any]:
    """A copy of each value, taken right where it is made."""
    first = next(iter(graph.nodes()))
    graph.setInsertPoint(first)
    nothing = graph.insertConstant(None)
    copies = []
    for node, value in made:
        copy = graph.create("aten::clone", [value, nothing], 1)
        copy.insertAfter(node)
        copies.append(copy.output())
    return copies


def _names(graph: Any, inputs: Sequence[str | None], outputs: Sequence[str]) -> dict[str, str]:
    """Value → the name by which the world knows it: inputs, outputs and weights."""
    names = {value.debugName(): name for value, name in zip(list(graph.inputs())[1:], inputs, strict=True) if name}
    names |= {value.debugName(): _path(node) for node in _all(graph) if node.kind() == "prim::GetAttr" for value in node.outputs()}
    leaves = [leaf for value in graph.outputs() for leaf in _leaves(value)]
    if len(leaves) == len(outputs):
        names |= {leaf.debugName(): name for leaf, name in zip(leaves, outputs, strict=True) if leaf.debugName() not in names}
    return names


def _leaves(value: Any) -> Iterator[Any]:
    node = value.node()
    if node.kind() in ("prim::TupleConstruct", "prim::ListConstruct", "prim::DictConstruct"):
        inputs = list(node.inputs())
        for part in inputs[1::2] if node.kind() == "prim::DictConstruct" else inputs:
            yield from _leaves(part)
    else:
        yield value


def _path(node: Any) -> str:
    path = []
    while node.kind() == "prim::GetAttr":
        path.append(node.s("name"))
        node = next(iter(node.inputs())).node()
    return ".".join(reversed(path))


def _went_in(node: Any, names: dict[str, str]) -> Iterator[str]:
    for value in node.inputs():
        maker = value.node()
        if maker.kind() == "prim::ListConstruct":
            yield from _went_in(maker, names)
        elif value.type().kind() in ("TensorType", "OptionalType") and not (maker.kind() == "prim::Constant" and value.toIValue() is None):
            yield names.get(value.debugName(), value.debugName())
