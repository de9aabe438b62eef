"""All that the library's parser has against a graph, each with its node, in words.

The parser tells every operator that it does not know at all, but stops at the first node whose attributes, inputs or outputs it cannot
take. So what it refused is cut out, its results become inputs, and it looks again: for the list of errors only, nothing is built of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoint.quote import short
from ..errors import ErnieError
from ..onnxgraph.inference import infer
from ..onnxgraph.load import load
from ..onnxgraph.proto import label, text
from .proto import parsed, set_lengths, strongly_typed, with_lengths

#: Looks at most: each costs a parse, and a decoder with a refused node per layer has some dozens of them.
_LOOKS = 100
#: Characters of what it says: it may quote names of any length.
_LONGEST = 1000
#: Begins what the parser itself demands of a node. What else it says behind a cut may be owed to the cut: lengths are not known there.
_ITS_OWN = "Assertion failed: "
#: What its authors assert → what that says to others.
_WORDS = (
    (re.compile(r'creator && "Plugin not found.*'), "TensorRT knows no such operator"),
    (re.compile(r"^false$"), "TensorRT knows this operator, and has nothing that computes it"),
    (re.compile(r"^Assertion failed: convertDtype.*"), "TensorRT has no such type of numbers"),
    (re.compile(r"^Assertion failed: .*?: (?=[A-Z])"), ""),
)


def refusals(trt: Any, builder: Any, log: Any, graph: Path, fixed: Mapping[str, int]) -> list[str]:
    """What is refused of an ONNX file with its axes at lengths (name → length), [] where nothing is.

    ["Attention `a`: TensorRT only supports Attention nodes with one output.", …], a node once, in the graph's order as a rule.
    """
    model = with_lengths(graph, fixed)
    found: dict[str, None] = {}
    types: Mapping[str, Any] | None = None
    for look in range(_LOOKS):
        errors = _errors(trt, builder, log, graph, model)
        found |= dict.fromkeys(_said(error, model) for error in errors if look == 0 or _ITS_OWN in error.words)
        if not errors:
            break
        types = _types(graph, fixed) if types is None else types
        if not _cut(model, {error.place for error in errors}, types):
            break
    return list(found)


@dataclass(frozen=True)
class _Error:
    """What the parser says, for when the parser is gone. place: of the node in the graph."""

    place: int
    name: str
    operator: str
    words: str


def _errors(trt: Any, builder: Any, log: Any, graph: Path, model: Any) -> list[_Error]:
    network = builder.create_network(strongly_typed(trt))  # the parser does not keep it alive
    parser = trt.OnnxParser(network, log)
    if parsed(parser, model.SerializeToString(), graph):
        return []
    errors = [parser.get_error(number) for number in range(parser.num_errors)]
    return [_Error(each.node(), *_who(each), each.desc()) for each in errors]


def _who(error: Any) -> tuple[str, str]:
    """(name, operator) of what is refused. Of inputs the parser gives the name in the place of a source file's."""
    if error.func() == "importInput":
        return error.file(), "the input"
    return error.node_name(), error.node_operator()


def _said(error: _Error, model: Any) -> str:
    """One line. A node without a name goes by its first output's."""
    words = " ".join(error.words[:_LONGEST].split())
    for pattern, said in _WORDS:
        words = pattern.sub(said, words)
    node = model.graph.node[error.place] if 0 <= error.place < len(model.graph.node) else None
    if not error.name and node is not None and text(node.op_type) == error.operator:
        return f"{error.operator} {label(node).partition(' (')[0]}: {words}"
    return f"{error.operator or 'the graph'}{f' `{short(error.name)}`' if error.name else ''}: {words}"


def _types(graph: Path, fixed: Mapping[str, int]) -> dict[str, Any]:
    """Name of a value → its type in protobuf, as far as shapes can be inferred."""
    from onnx_ir import serde

    try:
        model = load(graph, known_operators=False)
    except ErnieError:
        return {}
    infer(model)
    values = [value for node in model.graph for value in node.outputs if value.type is not None and value.shape is not None]
    known = {str(value.name): serde.serialize_value(value) for value in values}
    for value in known.values():
        set_lengths(value, fixed)
    return known


def _cut(model: Any, places: set[int], types: Mapping[str, Any]) -> bool:
    """Take nodes out of the graph. False where nothing is left to look at: no such node, or nobody knows what type its results have."""
    nodes = [model.graph.node[place] for place in places if 0 <= place < len(model.graph.node)]
    made = {text(name) for node in nodes for name in node.output if name}
    read = {text(name) for node in model.graph.node for name in node.input} & made
    kept = [value for value in model.graph.output if value.name not in made]
    if not nodes or not kept or not read <= set(types):
        return False
    for node in nodes:
        model.graph.node.remove(node)
    del model.graph.output[:]
    model.graph.output.extend(kept)
    model.graph.input.extend(types[name] for name in sorted(read))
    return True
