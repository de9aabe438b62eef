"""Puts DequantizeLinear and QuantizeLinear into a graph. Values keep their names, so that layers can be compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from ..errors import InputError
from ..onnxgraph.names import fresh
from .codes import Codes, fit, round_to_nearest
from .layers import Layer
from .pending import Pending
from .scheme import TYPES, WeightFormat

IR_TYPES = {"int8": ir.DataType.INT8, "int4": ir.DataType.INT4, "fp8": ir.DataType.FLOAT8E4M3FN}
#: Key of what is noted on a value: the codes that are made of a weight.
_SIBLINGS = "ernie.siblings"


def quantize_weight(layer: Layer, form: WeightFormat, make: Callable[[], Codes]) -> None:
    """Give `layer` a dequantised weight: DequantizeLinear(codes, scale) in place of the float initializer. form: see form_for.

    `make` is called when write.py comes to it, so that a model is never in memory as a whole. Its codes lie as the weight does, or
    [in, out]; the graph's always lie [in, out], because runtimes fuse nothing else (a Gemm loses its transB). For the same reason
    each layer has codes of its own, in its own graph (a branch's), also where a weight is shared: write.py keeps equal ones once.
    Other users of the weight (tied embeddings) keep the float one.
    """
    root, graph = layer.weight.graph, layer.node.graph
    assert isinstance(root, ir.Graph) and isinstance(graph, ir.Graph)
    turn = layer.matrix and layer.sum_axis == 1
    shape = layer.shape[::-1] if turn else layer.shape
    axis = _axes(layer)[0 if form.block else 1]
    name = fresh(root, f"{layer.weight.name or layer.name}_{form.type}")
    codes = ir.Value(name=name, type=ir.TensorType(IR_TYPES[form.type]), shape=ir.Shape(shape))
    scale = ir.Value(name=f"{name}_scale", type=float_type(layer), shape=ir.Shape(_scale_shape(shape, form, axis)))
    siblings = layer.weight.meta.setdefault(_SIBLINGS, [])
    siblings.append(Pending.put(graph, layer.name, codes, scale, lambda: _laid(make(), axis), siblings))
    attributes: dict[str, Any] = {"axis": axis, **({"block_size": form.block} if form.block else {})}
    whole = ir.Value(name=f"{name}_float", type=float_type(layer), shape=ir.Shape(shape))
    graph.insert_before(layer.node, ir.node("DequantizeLinear", [codes, scale], attributes, outputs=[whole], name=f"{name}_dequantize"))
    layer.node.replace_input_with(1, whole)
    if turn:
        layer.node.attributes.pop("transB")
    if layer.node.op_type == "Gemm" and len(layer.node.inputs) == 2 and layer.node.attributes.get_float("alpha", 1.0) == 1.0:
        # Between pairs ONNX Runtime leaves a Gemm in float, and dequantises its weight at every run; a MatMul it computes in integers.
        layer.node.op_type = "MatMul"
        layer.node.attributes.clear()
    if not layer.weight.uses() and not layer.weight.is_graph_output():
        root.initializers.pop(str(layer.weight.name))


def form_for(layer: Layer, form: WeightFormat) -> WeightFormat:
    """The form that the layer's weight can have, nearest to the one that is wanted (see codes.fit)."""
    return fit(form, layer.shape[layer.sum_axis], matrix=layer.matrix)


def rounded(layer: Layer, form: WeightFormat) -> Codes:
    """The weight of `layer` rounded to nearest, of a matrix [in, out]. Raises InputError where it holds NaN or infinite values."""
    sum_axis, channel_axis = _axes(layer)
    try:
        return round_to_nearest(layer.read(), form, channel_axis, sum_axis, dtype=float_type(layer).dtype.numpy())
    except FloatingPointError as err:
        what = f"weight `{layer.weight.name}` of layer `{layer.name}` holds NaN or infinite values"
        raise InputError(what, "fetch or make the model again; such a weight gives NaN in float, too") from err


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


def _axes(layer: Layer) -> tuple[int, int]:
    """(summed, channel) as codes lie in the graph."""
    return (0, 1) if layer.matrix else (layer.sum_axis, layer.channel_axis)


def _laid(codes: Codes, axis: int) -> Codes:
    """Codes whose scales run along `axis`: they may come the way that the weight lies."""
    return codes if codes.axis == axis else codes.turned
