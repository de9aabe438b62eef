"""Whether a parsed graph is one: every name made once and before it is read, no cycle, functions that end. Knows no operator."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..errors import InputError
from .proto import AGAIN, label, subgraphs, text

#: Nodes that a model may have once all its functions are written out; more is an attack, not a model.
MOST_NODES = 2_000_000


def check(proto: Any, name: str) -> bool:
    """Raise InputError for a graph that is none. `name`: the file, for messages. Returns whether all nodes stand in order."""
    try:
        _check_texts(proto)
        if not proto.graph.output:
            raise _Broken("the graph has no outputs")
        ordered, free = _graph(proto.graph)
        _none_free(free)
        for function in proto.functions:
            ordered &= _function(function)
        _calls(proto)
    except _Broken as err:
        raise InputError(f"{name}: {err}", AGAIN) from err
    return ordered


class _Broken(Exception):
    """What is wrong, without the file's name."""


def _check_texts(proto: Any) -> None:
    """Raise for names that are no UTF-8 and attributes that are nothing: libraries fail on them in their own ways."""
    pending = [proto]
    while pending:
        message = pending.pop()
        for field, value in message.ListFields():
            several = hasattr(value, "append") or hasattr(value, "add")
            if field.type == field.TYPE_MESSAGE:
                pending += list(value) if several else [value]
            elif field.type == field.TYPE_STRING and any(isinstance(one, bytes) for one in (value if several else [value])):
                raise _Broken(f"a {message.DESCRIPTOR.name}'s `{field.name}` is no text")
        if message.DESCRIPTOR.name == "AttributeProto" and (not message.type or not message.name):
            raise _Broken(f"an attribute `{message.name}` has no {'type' if message.name else 'name'}")


def _none_free(free: dict[str, str]) -> None:
    for value, node in free.items():
        raise _Broken(f"{node} reads `{value}`, which nothing produces")


def _graph(graph: Any) -> tuple[bool, dict[str, str]]:
    """(whether the nodes stand in order, names it reads from outside → who reads them)."""
    if graph.sparse_initializer:
        raise _Broken(f"graph `{text(graph.name)}` has sparse initializers, which nothing here reads")
    known = _unique([text(value.name) for value in graph.input], "input")
    known |= _unique([text(tensor.name) for tensor in graph.initializer], "initializer")
    return _body(graph.node, known, [text(value.name) for value in graph.output])


def _function(function: Any) -> bool:
    name = f"function {text(function.domain)}::{text(function.name)}"
    ordered, free = _body(function.node, _unique([text(value) for value in function.input], f"{name}'s input"), map(text, function.output))
    _none_free({value: f"{name}: {node}" for value, node in free.items()})
    return ordered


def _unique(names: Sequence[str], what: str) -> set[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen or not name:
            raise _Broken(f"two of its {what}s are named `{name}`" if name else f"one of its {what}s has no name")
        seen.add(name)
    return seen


def _body(nodes: Sequence[Any], known: set[str], outputs: Iterable[str]) -> tuple[bool, dict[str, str]]:
    """Check nodes that may read `known` names. Returns (in order?, free names → who reads them)."""
    producer: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for value in filter(None, map(text, node.output)):
            if value in producer or value in known:
                raise _Broken(f"`{value}` is made twice, the second time by {label(node)}")
            producer[value] = index
    free: dict[str, str] = {}
    waits_for: list[set[int]] = []
    for node in nodes:
        read = _reads(node)
        waits_for.append({producer[value] for value in read if value in producer})
        free |= {value: who for value, who in read.items() if value not in producer and value not in known and value not in free}
    for value in outputs:
        if value not in producer and value not in known:
            free.setdefault(value, "the graph's output")
    ordered = all(before < index for index, waits in enumerate(waits_for) for before in waits)
    if not ordered:
        _check_acyclic(nodes, waits_for)
    return ordered, free


def _reads(node: Any) -> dict[str, str]:
    """What a node reads, its subgraphs included → who reads it."""
    read = {text(value): label(node) for value in node.input if value}
    for graph in subgraphs(node):
        ordered, free = _graph(graph)
        if not ordered:
            raise _Broken(f"the nodes inside {label(node)} do not stand in order")
        read |= free
    return read


def _check_acyclic(nodes: Sequence[Any], waits_for: Sequence[set[int]]) -> None:
    missing = [len(waits) for waits in waits_for]
    readers: list[list[int]] = [[] for _ in nodes]
    for index, waits in enumerate(waits_for):
        for before in waits:
            readers[before].append(index)
    ready = [index for index, count in enumerate(missing) if not count]
    for index in ready:  # grows while it is walked
        for reader in readers[index]:
            missing[reader] -= 1
            if not missing[reader]:
                ready.append(reader)
    if len(ready) == len(nodes):
        return
    at, path = next(index for index, count in enumerate(missing) if count), []
    while at not in path:  # each waits for one that waits itself: at some point they repeat
        path.append(at)
        at = next(before for before in sorted(waits_for[at]) if missing[before])
    circle = [label(nodes[index]) for index in [*path[path.index(at) :], at][::-1]]
    raise _Broken(f"the graph has a cycle: {' → '.join(circle[:6])}{' → …' if len(circle) > 6 else ''}")


def _calls(proto: Any) -> None:
    """Raise for functions that call themselves, and for those that grow beyond all bounds when written out."""
    functions = {_identity(function): function for function in proto.functions}
    if len(functions) != len(proto.functions):
        raise _Broken("two of its functions have the same domain and name")
    sizes: dict[tuple[str, ...], int] = {}
    entered: set[tuple[str, ...]] = set()

    def size(body: Sequence[Any]) -> int:
        total = 0
        for node in body:
            called = (text(node.domain), text(node.op_type), text(getattr(node, "overload", "")))
            total += of(called) if called in functions else 1
            total += sum(size(graph.node) for graph in subgraphs(node))
        return min(total, MOST_NODES + 1)

    def of(called: tuple[str, ...]) -> int:
        if called not in sizes:
            if called in entered:
                raise _Broken(f"its function {'::'.join(filter(None, called))} calls itself")
            if len(entered) > 200:
                raise _Broken("its functions call each other more than 200 deep")
            entered.add(called)
            sizes[called] = size(functions[called].node)
            entered.discard(called)
        return sizes[called]

    total = size(proto.graph.node) + sum(of(called) for called in functions)
    if total > MOST_NODES:
        raise _Broken(f"its functions, written out, make more than {MOST_NODES} nodes")


def _identity(function: Any) -> tuple[str, ...]:
    return text(function.domain), text(function.name), text(getattr(function, "overload", ""))
