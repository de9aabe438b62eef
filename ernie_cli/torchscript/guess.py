"""Guesses dtype and shape of a module's inputs from the first operator with weights that each reaches. Runs nothing.

Only for scripted modules of which neither a manifest nor the person tells the inputs; the guess is said aloud, with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..runtime.graphs import TensorSpec

#: Operators whose result has the shape of their first argument.
_SAME_SHAPE = {
    *("to", "contiguous", "clone", "detach", "alias", "type_as", "float", "half", "dropout", "feature_dropout"),
    *("add", "add_", "sub", "sub_", "rsub", "mul", "mul_", "div", "div_", "pow", "sqrt", "exp", "log", "abs", "neg", "clamp"),
    *("relu", "relu_", "gelu", "silu", "tanh", "sigmoid", "leaky_relu", "hardtanh", "elu", "softplus"),
}
#: … and operators that keep at least the values, so that ids stay ids.
_SAME_VALUES = {
    *_SAME_SHAPE,
    *("slice", "select", "unsqueeze", "squeeze", "expand", "expand_as", "view", "reshape", "flatten", "transpose", "permute", "t"),
}
_SPACE = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}


@dataclass
class Guess:
    """spec: None where nothing was found. dtype: known more often than the shape. rows: of the embedding that ids go to."""

    spec: TensorSpec | None = None
    why: str = ""
    dtype: str = ""
    rows: int = 0


@dataclass
class _Walk:
    """same, ids: value → the input it is (in shape; in values)."""

    module: Any
    guesses: dict[str, Guess]
    same: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)


def guess(module: Any, names: Sequence[str]) -> Mapping[str, Guess]:
    """For each argument of forward named, what is found by following it through the graph."""
    graph = module.inlined_graph
    schema = [argument.name for argument in module.forward.schema.arguments][1:]
    walk = _Walk(module, {name: Guess() for name in names})
    for name, value in zip(schema, list(graph.inputs())[1:], strict=True):
        if name in names:
            walk.same[value.debugName()] = walk.ids[value.debugName()] = name
    _follow(walk, graph)
    return walk.guesses


def weight(module: Any, value: Any) -> tuple[str, Any] | None:
    """(attribute path, tensor) of a value that is a weight, ("", tensor) of a constant, None of anything computed."""
    path: list[str] = []
    node = value.node()
    while node.kind() == "prim::GetAttr":
        path.append(node.s("name"))
        node = next(iter(node.inputs())).node()
    found: Any = value.toIValue() if not path and node.kind() == "prim::Constant" else module if path else None
    for name in reversed(path):
        found = getattr(found, name, None)
    return (".".join(reversed(path)), found) if hasattr(found, "shape") else None


def _follow(walk: _Walk, block: Any) -> None:
    for node in block.nodes():
        name = node.kind().rpartition("::")[2]
        inputs = list(node.inputs())
        found = _LOOKERS.get(name)
        if not any(value.debugName() in walk.ids for value in inputs) and not any(True for _ in node.blocks()):
            continue  # most nodes, by far
        for place, value in enumerate(inputs):
            told = walk.guesses.get(walk.ids.get(value.debugName(), ""))
            if told is None:
                continue
            if name in ("embedding", "embedding_bag") and place == 1 and (table := weight(walk.module, inputs[0])):
                told.rows = min(told.rows or table[1].shape[0], table[1].shape[0])
            if (name, place) in (("masked_fill", 1), ("masked_fill_", 1), ("where", 0), ("logical_not", 0), ("__and__", 0)):
                told.dtype = told.dtype or "bool"
            if found and told.spec is None and value.debugName() in walk.same:
                spec = found(walk.module, inputs, place)
                if spec:
                    told.spec, told.why, told.dtype = spec, f"it goes into {node.kind()}{_of(walk.module, inputs)}", spec.dtype
        _pass_on(walk, node, name, inputs)


def _of(module: Any, inputs: Sequence[Any]) -> str:
    known = [found for found in (weight(module, value) for value in inputs) if found and found[0]]
    return f" with {known[0][0]} {list(known[0][1].shape)}" if known else ""


def _pass_on(walk: _Walk, node: Any, name: str, inputs: Sequence[Any]) -> None:
    blocks, outputs = list(node.blocks()), list(node.outputs())
    for block in blocks:
        if node.kind() == "prim::Loop":  # (trips, condition, *carried) → block(number, *carried)
            for outer, inner in zip(inputs[2:], list(block.inputs())[1:], strict=True):
                _alias(walk, outer, inner)
        _follow(walk, block)
        results = list(block.outputs())[1 if node.kind() == "prim::Loop" else 0 :]
        for outer, inner in zip(outputs, results, strict=False):
            _alias(walk, inner, outer)
    if node.kind() in ("prim::unchecked_cast", "aten::_unwrap_optional"):
        _alias(walk, inputs[0], outputs[0])
    elif name in _SAME_VALUES and inputs and outputs:
        first = inputs[0].debugName()
        if name in _SAME_SHAPE and first in walk.same:
            walk.same[outputs[0].debugName()] = walk.same[first]
        if name == "flatten" and first in walk.same:  # a linear layer behind it still tells how many values go in
            walk.same[outputs[0].debugName()] = walk.same[first]
        if first in walk.ids:
            walk.ids[outputs[0].debugName()] = walk.ids[first]


def _alias(walk: _Walk, known: Any, other: Any) -> None:
    for names in (walk.same, walk.ids):
        if known.debugName() in names:
            names[other.debugName()] = names[known.debugName()]


def _dtype(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _convolution(module: Any, inputs: Sequence[Any], place: int) -> TensorSpec | None:
    kernel = weight(module, inputs[1]) if place == 0 else None
    if not kernel:
        return None
    shape = kernel[1].shape
    general = len(inputs) > 8  # aten::_convolution(x, weight, bias, stride, padding, dilation, transposed, output_padding, groups, …)
    groups = int(inputs[8 if general else 6].toIValue() or 1)
    channels = shape[0] if general and inputs[6].toIValue() else shape[1] * groups
    return TensorSpec("", _dtype(kernel[1]), ("batch", channels, *_SPACE.get(len(shape) - 2, ())))


def _conv_transpose(module: Any, inputs: Sequence[Any], place: int) -> TensorSpec | None:
    kernel = weight(module, inputs[1]) if place == 0 else None
    return TensorSpec("", _dtype(kernel[1]), ("batch", kernel[1].shape[0], *_SPACE.get(kernel[1].dim() - 2, ()))) if kernel else None


def _linear(module: Any, inputs: Sequence[Any], place: int) -> TensorSpec | None:
    found = weight(module, inputs[1]) if place == 0 else None
    return TensorSpec("", _dtype(found[1]), ("batch", found[1].shape[-1])) if found else None


def _matmul(module: Any, inputs: Sequence[Any], place: int) -> TensorSpec | None:
    found = weight(module, inputs[place + 1]) if place + 1 < len(inputs) else None
    return TensorSpec("", _dtype(found[1]), ("batch", found[1].shape[0])) if found and found[1].dim() == 2 else None


def _embedding(module: Any, inputs: Sequence[Any], place: int) -> TensorSpec | None:
    return TensorSpec("", "int64", ("batch", "length")) if place == 1 else None


def _recurrent(module: Any, inputs: Sequence[Any], place: int) -> TensorSpec | None:
    if place != 0 or inputs[2].node().kind() != "prim::ListConstruct":
        return None
    found = weight(module, next(iter(inputs[2].node().inputs())))
    axes = ("batch", "length") if inputs[-1].toIValue() else ("length", "batch")
    return TensorSpec("", _dtype(found[1]), (*axes, found[1].shape[-1])) if found else None


def _layer_norm(module: Any, inputs: Sequence[Any], place: int) -> TensorSpec | None:
    found = weight(module, inputs[2]) if place == 0 else None
    return TensorSpec("", _dtype(found[1]), ("batch", *found[1].shape)) if found and math.prod(found[1].shape) else None


_LOOKERS = {
    **dict.fromkeys(("_convolution", "convolution", "conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _conv_transpose),
    **dict.fromkeys(("linear",), _linear),
    **dict.fromkeys(("matmul", "mm", "addmm"), _matmul),
    **dict.fromkeys(("embedding", "embedding_bag"), _embedding),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
    **dict.fromkeys(("layer_norm",), _layer_norm),
}
