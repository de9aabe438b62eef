"""Puts every pair of a scheme into a graph. The codes of weights are not computed here: whoever writes them asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import numpy as np
import onnx_ir as ir

from . import activations, cache, edit, layers, pending
from .activations_fold import fold_batch_norms
from .codes import Codes
from .layers import Layer
from .opset import raise_opset
from .scheme import Scheme, WeightFormat
from .shield import shield


def prepare(graph: ir.Model, scheme: Scheme, types: Iterable[str] = (), *, said: str = "the model") -> None:
    """Bring `graph` to an opset that has the scheme's types and `types`, with what stands in the way of pairs folded away.

    said: what errors call it. Raises UnsupportedError where its operators cannot be of such an opset.
    """
    wanted = {scheme.weight.type if scheme.weight else "", scheme.activation, scheme.cache, *types}
    raise_opset(graph, edit.lowest_opset(wanted - {""}), said=said)
    if scheme.activation:
        fold_batch_norms(graph)


def measured(graph: ir.Model, scheme: Scheme, chosen: list[Layer]) -> list[str]:
    """Names of the values that `put` needs scales for."""
    points = activations.points(graph, scheme, chosen)
    return [*activations.measured(points), *(cache.cache_values(graph) if scheme.cache else ())]


def put(
    graph: ir.Model,
    scheme: Scheme,
    chosen: list[Layer],
    scales: Mapping[str, float],
    form: Callable[[Layer], WeightFormat],
    codes: Callable[[Layer, WeightFormat], Codes],
) -> None:
    """Pairs around activations, caches and weights, in place. form: of a layer's weight; codes: asked when it is written."""
    activations.insert(graph, activations.points(graph, scheme, chosen), scales, scheme.activation)
    if scheme.cache:
        cache.quantize_cache(graph, scheme.cache, scales)
    for layer in chosen if scheme.weight else ():
        fitted = edit.form_for(layer, form(layer))
        edit.quantize_weight(layer, fitted, partial(codes, layer, fitted))
    shield(graph)


def outline(graph: ir.Model, scheme: Scheme, *, said: str = "the model") -> None:
    """Make of a float graph, in place, what quantising would write: its operators, types and shapes, with zeros for codes and scales."""

    def unread(layer: Layer, form: WeightFormat) -> Codes:
        raise AssertionError(f"{layer.name}: an outline has no {form.type} codes")

    prepare(graph, scheme, said=said)
    chosen = layers.find(graph, scheme)
    scales = dict.fromkeys(measured(graph, scheme, chosen), 1.0)
    put(graph, scheme, chosen, scales, lambda layer: scheme.weight or WeightFormat(""), unread)
    for inner in (graph.graph, *graph.graph.subgraphs()):
        for value in inner.initializers.values():
            if pending.of(value) is not None:
                value.const_value = _zeros(value)


def _zeros(value: ir.Value) -> ir.TensorProtocol:
    """One zero, seen everywhere."""
    assert value.dtype is not None and value.shape is not None
    array = np.broadcast_to(np.zeros((), value.dtype.numpy()), value.shape.numpy())
    return ir.Tensor(array, dtype=value.dtype, name=value.name)
