"""The nodes of an ONNX graph as TensorRT's parser knows them: what it calls each, what each reads and makes.

Nodes inside nodes (If, Loop) count, and those of local functions, once for every call. Why a node is gone is gone.py's affair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress, zip_longest
from typing import Any

from ..console import printable
from ..onnxgraph.proto import nodes as protos_of
from ..onnxgraph.proto import text

#: Bytes of a constant that is compared with others: scales are, weights are not.
_SMALL = 4096


@dataclass(frozen=True)
class Node:
    """name: what the parser calls it. label: the same with where it stands, "add | then (then_branch) | choice (If)" or "mul | call (F)".

    reads, makes: names of values, no two values alike; "" is none. holds: whether it is made of other nodes: If, Loop, a call.
    """

    name: str
    label: str
    operator: str
    domain: str
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    attributes: bytes
    holds: bool = False


@dataclass(frozen=True)
class Graph:
    """nodes: outer before inner. constants: values that initialisers are → their content, b"" where it is large. outputs: values that
    the graph hands out.
    """

    nodes: list[Node]
    constants: dict[str, bytes]
    outputs: tuple[str, ...]


def flat(proto: Any) -> Graph:
    """A ModelProto that structure.check took, with what is inside nodes and functions laid out."""
    found = Graph([], {}, tuple(text(value.name) for value in proto.graph.output))
    functions = {(text(each.domain), text(each.name)): each for each in proto.functions}
    _enter(proto.graph, {}, "", functions, found)
    return found


def tell_apart(proto: Any) -> None:
    """Make names in a ModelProto such that TensorRT mixes nothing up.

    Nodes that share a name get one of their own (a, a → a, a#2), or the log would not tell them apart; line feeds in names and
    the like are written out. Local functions get their domain into their name: the parser looks at the name alone, and takes a
    function called Relu for the operator.
    """
    called = {_identity(each): ".".join(filter(None, _identity(each))) for each in proto.functions}
    for function in proto.functions:
        function.name = called[_identity(function)]
    found = list(protos_of(proto))[::-1]
    for node in found:
        node.op_type = called.get(_calls(node), node.op_type)
    for node, own in zip(found, distinct(printable(_said(node)) for node in found), strict=True):
        if own != _said(node):
            node.name = own


def _identity(function: Any) -> tuple[str, ...]:
    return text(function.domain), text(function.name), text(getattr(function, "overload", ""))


def _calls(node: Any) -> tuple[str, ...]:
    return text(node.domain), text(node.op_type), text(getattr(node, "overload", ""))


def distinct(said: Iterable[str]) -> Iterator[str]:
    """Names, those that come again made different: a, b, a → a, b, a#2."""
    said = list(said)
    taken, seen = set(said), Counter[str]()
    for name in said:
        seen[name] += 1
        own = name if seen[name] == 1 else f"{name}#{seen[name]}"
        while seen[name] > 1 and own in taken:
            own += "'"
        taken.add(own)
        yield own


def _said(node: Any) -> str:
    """What the parser calls it (getNodeName in onnx-tensorrt's importerUtils.cpp)."""
    name = text(node.name)
    return f"node_of_{text(node.output[0])}" if not name and node.output else name


def _enter(graph: Any, outside: Mapping[str, str], path: str, functions: Mapping[Any, Any], found: Graph) -> tuple[str, ...]:
    """Lay out a graph. outside: names of values it may read → their own names. Returns the values it hands out."""
    made = {text(value.name): text(value.name) + path for value in [*graph.input, *graph.initializer]}
    found.constants.update((made[text(tensor.name)], _content(tensor)) for tensor in graph.initializer)
    known = _body(graph.node, {**outside, **made}, path, functions, found)
    return tuple(known.get(text(value.name), "") for value in graph.output)


def _content(tensor: Any) -> bytes:
    """The same for tensors that are the same, b"" for large ones and those outside the file."""
    if tensor.ByteSize() > _SMALL or tensor.external_data:
        return b""
    nameless = type(tensor)()
    nameless.CopyFrom(tensor)
    nameless.ClearField("name")
    return bytes(nameless.SerializeToString(deterministic=True))


def _body(body: Sequence[Any], outside: Mapping[str, str], path: str, functions: Mapping[Any, Any], found: Graph) -> Mapping[str, str]:
    """Lay out nodes. Returns what they may read and what they make."""
    known = {**outside, "": "", **{text(name): text(name) + path for node in body for name in node.output if name}}
    for node in body:
        place = len(found.nodes)
        found.nodes.append(_node(node, known, path))
        results = _inside(node, known, path, functions, found)
        if results is not None:
            outer = found.nodes[place]
            called = (outer.domain, outer.operator) in functions  # then it is the function's nodes that read what the call is given
            reads = tuple(compress(results, outer.makes)) if called else outer.reads + results
            found.nodes[place] = replace(outer, reads=reads, holds=True)
    return known


def _inside(node: Any, known: Mapping[str, str], path: str, functions: Mapping[Any, Any], found: Graph) -> tuple[str, ...] | None:
    """Lay out what is within a node. Returns the values it hands out, None where there is nothing within."""
    at = f" | {_said(node)} ({text(node.op_type)}){path}"
    function = functions.get((text(node.domain), text(node.op_type)))
    if function is not None:
        given = dict(zip_longest(map(text, function.input), (known.get(text(name), "") for name in node.input), fillvalue=""))
        inner = _body(function.node, given, at, functions, found)
        return tuple(inner.get(text(name), "") for name in function.output)
    graphs = [(text(each.name), graph) for each in node.attribute for graph in ([each.g] if each.HasField("g") else each.graphs)]
    results = [_enter(graph, known, f" | {text(graph.name)} ({name}){at}", functions, found) for name, graph in graphs]
    return tuple(value for result in results for value in result) if graphs else None


def _node(node: Any, known: Mapping[str, str], path: str) -> Node:
    attributes = b"\0".join(sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute))
    told = path.encode() if any(attribute.ref_attr_name for attribute in node.attribute) else b""  # by the call: differ by call
    return Node(
        _said(node),
        _said(node) + path,
        text(node.op_type),
        text(node.domain),
        tuple(known.get(text(name), "") for name in node.input),
        tuple(known[text(name)] for name in node.output),
        attributes + told,
    )
