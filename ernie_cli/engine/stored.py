"""What the constants of a graph weigh, in the graph's own types or as a scheme of `ernie quantize` would leave them. Reads none of them."""

from __future__ import annotations

import math
from collections import Counter

import onnx_ir as ir

from ..quant import edit, layers
from ..quant.scheme import Scheme
from .liveness import is_dequantized


def weight_bytes(model: ir.Model, float_bits: int | None = None) -> int:
    """Bytes of all constants that the graph uses, packed codes at their real width. float_bits: of float32 weights made narrower."""
    return sum(_n_bytes(tensor, float_bits) for tensor in _tensors(model))


def float_type(model: ir.Model) -> ir.DataType | None:
    """The float type of most of the constants, None where there are none."""
    found = Counter[ir.DataType]()
    for tensor in _tensors(model):
        if tensor.dtype in layers.FLOATS:
            found[tensor.dtype] += tensor.size
    return max(found, key=lambda kind: found[kind], default=None)


def saved_bytes(model: ir.Model, scheme: Scheme, float_bits: int | None = None) -> int:
    """How many bytes fewer the constants take once `scheme` made codes of them: a weight that others read, too, stays beside them."""
    if scheme.weight is None:
        return 0
    before: dict[ir.Value, int] = {}
    after = 0
    chosen = layers.find(model, scheme)
    takers = {layer.node for layer in chosen}
    for layer in chosen:
        form, tensor = edit.form_for(layer, scheme.weight), layer.weight.const_value
        assert tensor is not None
        if not layer.weight.is_graph_output() and all(user in takers for user, _ in layer.weight.uses()):
            before[layer.weight] = _n_bytes(tensor, float_bits)
        scales = tensor.size // form.block if form.block else layer.shape[layer.channel_axis]
        after += -(-tensor.size * edit.IR_TYPES[form.type].bitwidth // 8) + scales * (float_bits or tensor.dtype.bitwidth) // 8
    return sum(before.values()) - after


def product_bytes(model: ir.Model, scheme: Scheme | None, float_bits: int | None = None) -> int:
    """Bytes of the matrices that are multiplied as they are stored: floats, or codes whose other factor has codes, too.

    Those that are made wide first, and the last one (a decoder's head), are left out: engines keep them once.
    """
    total = 0
    for node in model.graph.all_nodes():
        weight = node.inputs[1] if node.op_type == "MatMul" else None
        if weight is None or _is_last(node):
            continue
        if (tensor := weight.const_value) is not None:
            narrow = scheme is not None and scheme.weight is not None
            if not narrow or (scheme is not None and scheme.activation):
                total += tensor.size if narrow else _n_bytes(tensor, float_bits)
        elif (codes := _codes(weight)) is not None and is_dequantized(node.inputs[0]):
            total += _n_bytes(codes, None)
    return total


def _is_last(node: ir.Node) -> bool:
    """Whether the graph gives out what a product gives, but for a few steps. (A cache is given out, too, and read on.)"""
    value = node.outputs[0]
    while len(users := [user for user, _ in value.uses()]) == 1 and users[0].op_type not in ("MatMul", "Gemm", "TensorScatter"):
        value = users[0].outputs[0]
    return value.is_graph_output()


def _codes(value: ir.Value) -> ir.TensorProtocol | None:
    """The constant that a value is dequantised from."""
    node = value.producer()
    return node.inputs[0].const_value if node is not None and node.op_type == "DequantizeLinear" and node.inputs[0] is not None else None


def _tensors(model: ir.Model) -> list[ir.TensorProtocol]:
    """Every constant that something reads."""
    graphs = (model.graph, *model.graph.subgraphs())
    found = [value.const_value for graph in graphs for value in graph.initializers.values() if value.uses()]
    found += [_constant(node) for node in model.graph.all_nodes() if node.op_type == "Constant"]
    return [tensor for tensor in found if tensor is not None]


def _constant(node: ir.Node) -> ir.TensorProtocol | None:
    found = node.attributes.get("value")
    return found.as_tensor() if found is not None and found.type == ir.AttributeType.TENSOR else None


def _n_bytes(tensor: ir.TensorProtocol, float_bits: int | None) -> int:
    if tensor.dtype == ir.DataType.STRING:
        return 0
    bits = float_bits if float_bits and tensor.dtype == ir.DataType.FLOAT else tensor.dtype.bitwidth
    return -(-math.prod(tensor.shape.numpy()) * bits // 8)
