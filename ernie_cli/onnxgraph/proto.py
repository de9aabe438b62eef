"""The protobuf of an ONNX file: parsed without external data, walked with subgraphs and functions. What it means is others' affair."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..need import need

AGAIN = "make the file again: `ernie convert … --to onnx --force`"
_MOST_BYTES = (2 << 30) - 1  # of one protobuf message; larger models keep their weights outside


def parse(file: Path) -> Any:
    """The ModelProto in `file`. Raises InputError where the file holds anything else, or is larger than a protobuf can be."""
    onnx = need("onnx")
    from google.protobuf.message import DecodeError

    if not file.is_file():
        raise InputError(f"{file}: no such file", "name the .onnx file, or the folder that holds it")
    n_bytes = file.stat().st_size
    if n_bytes > _MOST_BYTES:
        raise InputError(
            f"{file}: {n_bytes} bytes: no protobuf file is larger than 2 GB", "is it the weights of an ONNX model? name the .onnx file"
        )
    try:
        proto = onnx.load(str(file), format="protobuf", load_external_data=False)
    except DecodeError as err:
        raise InputError(f"{file}: not an ONNX file, or a damaged one: {err}", AGAIN) from err
    if not proto.ir_version or not proto.HasField("graph"):
        missing = "graph" if not proto.HasField("graph") else "ir_version"
        raise InputError(f"{file}: {'empty' if n_bytes == 0 else f'not an ONNX model: it has no {missing}'}", AGAIN)
    return proto


def nodes(proto: Any) -> Iterator[Any]:
    """Every node: of the graph, of the graphs inside nodes (If, Loop), of local functions. Protobuf limits the nesting to 100."""
    pending = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    while pending:
        node = pending.pop()
        yield node
        pending += [inner for graph in subgraphs(node) for inner in graph.node]


def subgraphs(node: Any) -> Iterator[Any]:
    """The graphs in one node's attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def tensors(proto: Any) -> Iterator[Any]:
    """Every constant: initializers of all graphs, and tensors in attributes (Paddle's exporter keeps weights in Constant nodes)."""
    yield from proto.graph.initializer
    for node in nodes(proto):
        for graph in subgraphs(node):
            yield from graph.initializer
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def text(value: str | bytes) -> str:
    """Strings that are no UTF-8 come out of protobuf as bytes."""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


def label(node: Any) -> str:
    """What a message calls a node: its name, or its first output's, and its operator."""
    return f"`{text(node.name) or text(next((name for name in node.output if name), '?'))}` ({text(node.op_type)})"
