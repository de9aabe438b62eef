"""Deliberately wrong converters: each takes a right ONNX model and makes one mistake that real converters have made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Edit = Callable[[Any], None]


def edited(source: Path, out: Path, edit: Edit) -> Path:
    """Copy a model with one mistake made."""
    proto = onnx.load(source)
    edit(proto.graph)
    out.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(proto, out)
    return out


def swap(one: str, other: str) -> Edit:
    """Exchange two weights of one shape."""

    def edit(graph: Any) -> None:
        a, b = _weight(graph, one), _weight(graph, other)
        assert list(a.dims) == list(b.dims)
        a.name, b.name = b.name, a.name

    return edit


def transpose(name: str) -> Edit:
    """Transpose a square matrix."""

    def edit(graph: Any) -> None:
        _set(graph, name, numpy_helper.to_array(_weight(graph, name)).T)

    return edit


def drop_bias(name: str) -> Edit:
    """Leave a bias out: of Gemm, Conv and LSTM the input, of Add the node."""

    def edit(graph: Any) -> None:
        for node in list(graph.node):
            if name in node.input and node.op_type == "Add":
                _bypass(graph, node, next(each for each in node.input if each != name))
            elif name in node.input:
                node.input[list(node.input).index(name)] = ""
                while not node.input[-1]:
                    node.input.pop()
        graph.initializer.remove(_weight(graph, name))

    return edit


def omit(output: str) -> Edit:
    """Leave a node with one input out."""

    def edit(graph: Any) -> None:
        node = _node(graph, output)
        _bypass(graph, node, node.input[0])

    return edit


def attribute(output: str, **changes: Any) -> Edit:
    """Another value of an attribute."""

    def edit(graph: Any) -> None:
        node = _node(graph, output)
        kept = [each for each in node.attribute if each.name not in changes]
        del node.attribute[:]
        node.attribute.extend([*kept, *(helper.make_attribute(name, value) for name, value in changes.items())])

    return edit


def swap_inputs(output: str) -> Edit:
    """a - b for b - a."""

    def edit(graph: Any) -> None:
        node = _node(graph, output)
        first, second = node.input
        del node.input[:]
        node.input.extend([second, first])

    return edit


def nudge(name: str, column: int, by: float) -> Edit:
    """Another value in one place of a weight."""

    def edit(graph: Any) -> None:
        array = numpy_helper.to_array(_weight(graph, name)).copy()
        array[..., column] += np.float32(by)
        _set(graph, name, array)

    return edit


def rename(edit: Edit) -> Edit:
    """The same mistake by a converter that gives every value another name, as most do."""

    def both(graph: Any) -> None:
        edit(graph)
        ends = {value.name for value in (*graph.input, *graph.output)}
        names = {name: f"t{number}" for number, name in enumerate(_names(graph)) if name and name not in ends}
        for node in graph.node:
            for side in (node.input, node.output):
                renamed = [names.get(name, name) for name in side]
                del side[:]
                side.extend(renamed)
            node.name = ""
        for tensor in graph.initializer:
            tensor.name = names.get(tensor.name, tensor.name)

    return both


def halved(graph: Any) -> None:
    """Everything float16: no mistake, but rounding everywhere."""
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16


def both(first: Edit, then: Edit) -> Edit:
    """Two edits."""

    def edit(graph: Any) -> None:
        first(graph)
        then(graph)

    return edit


def _names(graph: Any) -> list[str]:
    return list(dict.fromkeys(name for node in graph.node for name in (*node.input, *node.output)))


def _weight(graph: Any, name: str) -> Any:
    return next(tensor for tensor in graph.initializer if tensor.name == name)


def _set(graph: Any, name: str, array: np.ndarray) -> None:
    _weight(graph, name).CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))


def _node(graph: Any, output: str) -> Any:
    return next(node for node in graph.node if output in node.output)


def _bypass(graph: Any, node: Any, name: str) -> None:
    """Take a node out; whoever read its output reads `name`, or `name` takes the output's name where it is the graph's."""
    gone = node.output[0]
    graph.node.remove(node)
    old, new = (name, gone) if gone in [output.name for output in graph.output] else (gone, name)
    for other in graph.node:
        for side in (other.input, other.output):
            for index, each in enumerate(side):
                if each == old:
                    side[index] = new
