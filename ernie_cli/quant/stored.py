"""What the constants of a graph weigh, in the graph's own types or as a scheme of `ernie quantize` would leave them. Reads none of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import onnx_ir as ir

from . import edit
from .layers import FLOATS, Layer
from .scheme import WeightFormat


def weight_bytes(model: ir.Model, float_bits: int | None = None) -> int:
    """Bytes of all constants that the graph uses, packed codes at their real width. float_bits: of float32 weights made narrower."""
    return sum(n_bytes(tensor, float_bits) for tensor in _tensors(model))


def float_type(model: ir.Model) -> ir.DataType | None:
    """The float type of most of the constants, None where there are none."""
    found = Counter[ir.DataType]()
    for tensor in _tensors(model):
        if tensor.dtype in FLOATS:
            found[tensor.dtype] += tensor.size
    return max(found, key=lambda kind: found[kind], default=None)


def saved_bytes(chosen: Sequence[Layer], form: WeightFormat, float_bits: int | None = None) -> int:
    """How many bytes fewer the constants take once the layers have codes: a weight that others read, too, stays beside them.

    Codes of one weight for several layers are counted once for each, although write.py keeps equal ones once.
    """
    after = 0
    for layer in chosen:
        fitted, tensor = edit.form_for(layer, form), _weight(layer)
        scales = tensor.size // fitted.block if fitted.block else layer.shape[layer.channel_axis]
        after += -(-tensor.size * edit.IR_TYPES[fitted.type].bitwidth // 8) + scales * (float_bits or tensor.dtype.bitwidth) // 8
    shared = _shared(chosen)
    before = {layer.weight: n_bytes(_weight(layer), float_bits) for layer in chosen if layer.weight not in shared}
    return sum(before.values()) - after


def shared_bytes(chosen: Sequence[Layer], float_bits: int | None = None) -> int:
    """Bytes of the layers' weights that others read, too (tied embeddings): what is changed for the layers alone takes them again."""
    return sum(n_bytes(tensor, float_bits) for weight in _shared(chosen) if (tensor := weight.const_value) is not None)


def _shared(chosen: Sequence[Layer]) -> set[ir.Value]:
    takers = {layer.node for layer in chosen}
    return {each.weight for each in chosen if each.weight.is_graph_output() or any(user not in takers for user, _ in each.weight.uses())}


def _weight(layer: Layer) -> ir.TensorProtocol:
    assert layer.weight.const_value is not None
    return layer.weight.const_value


def _tensors(model: ir.Model) -> list[ir.TensorProtocol]:
    """Every constant that something reads, or that is given out."""
    graphs = (model.graph, *model.graph.subgraphs())
    found = [value.const_value for graph in graphs for value in graph.initializers.values() if value.uses() or value.is_graph_output()]
    found += [_constant(node) for node in model.graph.all_nodes() if node.op_type == "Constant"]
    return [tensor for tensor in found if tensor is not None]


def _constant(node: ir.Node) -> ir.TensorProtocol | None:
    found = node.attributes.get("value")
    return found.as_tensor() if found is not None and found.type == ir.AttributeType.TENSOR else None


def n_bytes(tensor: ir.TensorProtocol, float_bits: int | None = None) -> int:
    """Bytes of a tensor as it lies in a file, of text none. float_bits: as for `weight_bytes`."""
    if tensor.dtype == ir.DataType.STRING:
        return 0
    bits = float_bits if float_bits and tensor.dtype == ir.DataType.FLOAT else tensor.dtype.bitwidth
    return -(-math.prod(tensor.shape.numpy()) * bits // 8)
