"""Puts DequantizeLinear and QuantizeLinear into a graph. Values keep their names, so that layers can be compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from .codes import Codes
from .layers import Layer
from .pending import Pending
from .scheme import TYPES, WeightFormat

IR_TYPES = {"int8": ir.DataType.INT8, "int4": ir.DataType.INT4, "fp8": ir.DataType.FLOAT8E4M3FN}


def quantize_weight(layer: Layer, form: WeightFormat, make: Callable[[], Codes]) -> None:
    """Give `layer` a dequantised weight: DequantizeLinear(codes, scale) in place of the float initializer.

    `make` is called when write.py comes to it, so that a model is never in memory as a whole. Other users of the weight (tied
    embeddings) keep the float one.
    """
    graph = layer.node.graph
    assert isinstance(graph, ir.Graph)
    axis = layer.sum_axis if form.block else layer.channel_axis
    name = fresh(graph, f"{layer.weight.name or layer.name}_{form.type}")
    codes = ir.Value(name=name, type=ir.TensorType(IR_TYPES[form.type]), shape=ir.Shape(layer.shape))
    scale = ir.Value(name=f"{name}_scale", type=float_type(layer), shape=ir.Shape(_scale_shape(layer.shape, form, axis)))
    Pending.put(graph, layer.name, codes, scale, make)
    attributes: dict[str, Any] = {"axis": axis, **({"block_size": form.block} if form.block else {})}
    whole = ir.Value(name=f"{name}_float", type=float_type(layer), shape=ir.Shape(layer.shape))
    graph.insert_before(layer.node, ir.node("DequantizeLinear", [codes, scale], attributes, outputs=[whole], name=f"{name}_dequantize"))
    before = layer.weight
    layer.node.replace_input_with(1, whole)
    if not before.uses() and not before.is_graph_output():
        graph.initializers.pop(str(before.name))


def quantize_activation(value: ir.Value, users: list[ir.Node], kind: str, scale: float) -> ir.Value:
    """Put QuantizeLinear → DequantizeLinear with one scale between `value` and those of its users that are given.

    kind: "int8" or "fp8", symmetric, zero point 0. Returns the dequantised value. Asked twice for one value and scale, the pair is one.
    """
    graph = users[0].graph
    assert isinstance(graph, ir.Graph) and value.dtype is not None
    name = fresh(graph, f"{value.name}_{kind}")
    number = ir.tensor(np.array(scale, value.dtype.numpy()), name=f"{name}_scale")
    factor = ir.Value(name=number.name, type=ir.TensorType(number.dtype), shape=ir.Shape(()), const_value=number)
    zero = ir.tensor(np.zeros((), IR_TYPES[kind].numpy()), name=f"{name}_zero")
    nothing = ir.Value(name=zero.name, type=ir.TensorType(zero.dtype), shape=ir.Shape(()), const_value=zero)
    for each in (factor, nothing):
        graph.register_initializer(each)
    codes = ir.Value(name=name, type=ir.TensorType(IR_TYPES[kind]), shape=value.shape)
    back = ir.Value(name=f"{name}_float", type=ir.TensorType(value.dtype), shape=value.shape)
    pair = (
        ir.node("QuantizeLinear", [value, factor, nothing], outputs=[codes], name=f"{name}_quantize"),
        ir.node("DequantizeLinear", [codes, factor, nothing], outputs=[back], name=f"{name}_dequantize"),
    )
    producer = value.producer()
    if producer is None:
        graph.insert_before(next(iter(graph)), pair)
    else:
        graph.insert_after(producer, pair)
    for user in users:
        for at, given in enumerate(user.inputs):
            if given is value:
                user.replace_input_with(at, back)
    return back


def fresh(graph: ir.Graph, name: str) -> str:
    """`name`, or `name_2` … where the graph has a value of that name."""
    taken = set(graph.initializers)
    taken.update(str(value.name) for node in graph for value in node.outputs)
    taken.update(str(value.name) for value in graph.inputs)
    number, wanted = 1, name
    while wanted in taken:
        number += 1
        wanted = f"{name}_{number}"
    return wanted


def lowest_opset(types: set[str]) -> int:
    """The lowest opset whose Q/DQ takes all of these types of codes."""
    return max((TYPES[kind][1] for kind in types), default=0)


def float_type(layer: Layer) -> ir.TensorType:
    """The float type of a layer's weight: that of scales, too."""
    assert layer.weight.dtype is not None
    return ir.TensorType(layer.weight.dtype)


def _scale_shape(shape: tuple[int, ...], form: WeightFormat, axis: int) -> tuple[int, ...]:
    if not form.block:
        return (shape[axis],)
    return tuple(-(-length // form.block) if at == axis else length for at, length in enumerate(shape))
