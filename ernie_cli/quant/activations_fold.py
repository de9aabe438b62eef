"""Batch normalisation becomes part of the convolution before it, exactly: between the two a pair would cost speed and precision.

Lazily: a weight is multiplied when it is read. Exporters mostly do this themselves; graphs from training frameworks may not.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .layers import floats


def fold_batch_norms(model: ir.Model) -> int:
    """Fold every BatchNormalization that alone reads what a Conv or ConvTranspose gives. Returns how many.

    The convolution's output takes the name of what the normalisation gave: values keep their names, and what was between is gone.
    """
    found = [node for node in model.graph if node.op_type == "BatchNormalization" and _before(node) is not None]
    for node in found:
        convolution = _before(node)
        assert convolution is not None
        _fold(model.graph, convolution, node)
    return len(found)


def _before(norm: ir.Node) -> ir.Node | None:
    """The convolution that `norm` can be folded into."""
    value = norm.inputs[0]
    node = value.producer() if value is not None else None
    if node is None or value is None or node.domain not in ("", "ai.onnx") or norm.attributes.get_int("training_mode", 0) == 1:
        return None
    grouped = node.attributes.get_int("group", 1) != 1
    if node.op_type != "Conv" and (node.op_type != "ConvTranspose" or grouped):
        return None
    weights = [*node.inputs[1:], *norm.inputs[1:]]
    alone = len(value.uses()) == 1 and not value.is_graph_output()
    known = all(given is not None and given.is_initializer() and given.const_value is not None for given in weights)
    return node if alone and known and node.graph is norm.graph else None


def _fold(graph: ir.Graph, node: ir.Node, norm: ir.Node) -> None:
    weight, bias = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    assert weight is not None and weight.shape is not None and weight.dtype is not None
    gain, beta, mean, variance = (_read(value) for value in norm.inputs[1:5])
    factors = gain / np.sqrt(variance + norm.attributes.get_float("epsilon", 1e-5))
    offsets = beta + factors * ((_read(bias) if bias is not None else 0) - mean)
    axis = 0 if node.op_type == "Conv" else 1
    node.replace_input_with(1, _scaled(graph, weight, factors, axis))
    offset = ir.tensor(offsets.astype(weight.dtype.numpy()), name=f"{norm.outputs[0].name}_folded_bias")
    added = ir.Value(name=offset.name, type=ir.TensorType(weight.dtype), shape=ir.Shape(offsets.shape), const_value=offset)
    graph.register_initializer(added)
    node.resize_inputs(3)
    node.replace_input_with(2, added)
    _join(graph, node, norm)
    for old in (weight, bias, *norm.inputs[1:]):
        if old is not None and not old.uses() and not old.is_graph_output():
            graph.initializers.pop(str(old.name), None)


def _scaled(graph: ir.Graph, weight: ir.Value, factors: np.ndarray, axis: int) -> ir.Value:
    """A new initializer: `weight` times a factor for each index of `axis`, computed when it is read."""
    tensor, dtype, shape = weight.const_value, weight.dtype, weight.shape
    assert tensor is not None and dtype is not None and shape is not None
    spread = factors.reshape([-1 if at == axis else 1 for at in range(len(shape))])

    def read() -> ir.TensorProtocol:
        return ir.tensor((floats(tensor) * spread).astype(dtype.numpy()), name=name)

    name = f"{weight.name}_folded"
    while name in graph.initializers:  # a weight that several convolutions share
        name += "_"
    scaled = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
    scaled.const_value = ir.LazyTensor(read, dtype, ir.Shape(shape), name=name)
    graph.register_initializer(scaled)
    return scaled


def _join(graph: ir.Graph, node: ir.Node, norm: ir.Node) -> None:
    """`node` gives what `norm` gave, under its name."""
    given, wanted = node.outputs[0], norm.outputs[0]
    name = wanted.name
    ir.convenience.replace_all_uses_with(wanted, given, replace_graph_outputs=True)
    graph.remove(norm, safe=True)
    given.name = name


def _read(value: ir.Value | None) -> np.ndarray:
    assert value is not None and value.const_value is not None
    return floats(value.const_value).astype(np.float64)
