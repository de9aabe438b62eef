"""The shapes of every value of a graph at given lengths of its inputs. What they are needed for is liveness.py's and predict.py's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from ..onnxgraph import inference
from ..onnxgraph.simplify import simplify


def at_lengths(model: ir.Model, inputs: Mapping[str, Sequence[int]]) -> ir.Model:
    """A copy of `model` whose inputs have these shapes, all other shapes following from them as far as inference goes.

    Weights are shared and not read. What the lengths make constant (positions, the shapes that Reshape is given) is folded.
    """
    copy = model.clone()
    names: dict[str, int] = {}
    for value in copy.graph.inputs:
        if value.name in inputs:
            names |= _named(value, inputs[str(value.name)])
    for value in (*copy.graph.inputs, *copy.graph.outputs, *_made(copy)):
        value.shape = _bound(value.shape, names, inputs.get(str(value.name)))
    for value in copy.graph.outputs:
        if _lengths(value) is None:
            value.shape = None
    folded = simplify(copy)
    for value in _made(folded):  # what was not known before folding may follow now
        if _lengths(value) is None:
            value.shape = None
    inference.infer(folded)
    return folded


def n_bytes(value: ir.Value, float_bits: int | None = None) -> int | None:
    """What a value weighs, None where its shape is not known. float_bits: of float32 values in an engine of a narrower type."""
    lengths = _lengths(value)
    if lengths is None or value.dtype is None or value.dtype == ir.DataType.STRING:
        return None
    bits = float_bits if float_bits and value.dtype == ir.DataType.FLOAT else value.dtype.bitwidth
    return -(-math.prod(lengths) * bits // 8)


def _made(model: ir.Model) -> list[ir.Value]:
    """What nodes give, inner graphs' included."""
    return [value for node in model.graph.all_nodes() for value in node.outputs]


def _named(value: ir.Value, shape: Sequence[int]) -> dict[str, int]:
    """Name of an axis → its length."""
    return {str(axis.value): length for axis, length in zip(value.shape or (), shape, strict=False) if isinstance(axis, ir.SymbolicDim)}


def _bound(shape: ir.Shape | None, names: Mapping[str, int], given: Sequence[int] | None) -> ir.Shape | None:
    """The shape with names replaced by lengths; None where one stays open, so that inference finds it anew."""
    if given is not None:
        return ir.Shape(given)
    if shape is None:
        return None
    lengths = [axis if isinstance(axis, int) else names.get(str(axis.value)) for axis in shape]
    return None if None in lengths else ir.Shape(lengths)


def _lengths(value: ir.Value) -> list[int] | None:
    """Of every axis, None where one is not known."""
    if value.shape is None:
        return None
    lengths = [axis for axis in value.shape if isinstance(axis, int)]
    return lengths if len(lengths) == len(value.shape) else None
