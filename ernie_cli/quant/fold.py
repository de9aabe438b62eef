"""Moves factors per channel from an activation into the weights around it: the function stays the same, the ranges change.

`groups` finds activations whose makers can absorb a factor (a norm's scale, the columns of the linear before) and all of whose
users can, too (the rows of linears after). `fold` does it. Which factors are good is left to smooth.py and awq.py, what can absorb
factors to fold_search.py. Fold before Q/DQ goes in: a quantiser lets no factor through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ..onnxgraph.names import fresh
from .fold_label import Label, Stop, dims
from .fold_rules import forth
from .fold_search import Place, Search
from .layers import Layer, layer_of

#: Operators that only choose among an activation's rows: what they give has the same channels.
_CHOOSING = ("Gather", "Cast", "Identity", "Reshape", "Slice", "Squeeze", "Unsqueeze", "Dropout", "Flatten")


@dataclass(frozen=True)
class Group:
    """layers: those that `value` (or rows of it) is multiplied with. channels: its last axis, which is what they sum over.

    tied: None, or for each channel the lowest one that must have the same factor (heads that share values). carriers: every value
    that factors change, by name.
    """

    layers: tuple[Layer, ...]
    value: ir.Value
    channels: int
    tied: np.ndarray | None = None
    places: tuple[Place, ...] = field(default=(), repr=False)
    carriers: tuple[tuple[str, Label], ...] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        """The activation's."""
        return str(self.value.name)

    def largest(self, values: np.ndarray) -> np.ndarray:
        """`values` [channels], where channels are tied the largest of each tie."""
        if self.tied is None:
            return values
        most = np.full_like(values, -np.inf)
        np.maximum.at(most, self.tied, values)
        return np.asarray(most[self.tied])


def groups(graph: ir.Model, layers: Sequence[Layer], *, tied: bool = False) -> list[Group]:
    """Every group among `layers`, in their order. Types and shapes of values are filled in on the way.

    tied: also those where channels must share factors. Raises nothing: what cannot be folded makes no group.
    """
    from ..onnxgraph.inference import infer

    infer(graph)
    by_root: dict[ir.Value, list[Layer]] = {}
    for layer in layers:
        if layer.node.op_type in ("MatMul", "Gemm"):
            by_root.setdefault(_root(layer), []).append(layer)
    chosen = {layer.node for layer in layers}
    found = (_group(value, users, chosen) for value, users in by_root.items())
    return [group for group in found if group is not None and (tied or group.tied is None)]


def fold(group: Group, factors: np.ndarray) -> dict[str, np.ndarray]:
    """Divide `group.value` by `factors` [channels] > 0 and multiply the rows of its layers with them. The function stays the same.

    Returns by what each value of the graph that changes is divided now (its name → an array that broadcasts against it).
    Weights are computed when they are read. A weight that others use, too, is theirs unchanged: this one gets a tensor of its own.
    Raises ValueError for factors that are not finite and positive, of another length, or unequal where tied.
    """
    factors = np.asarray(factors, np.float64)
    if factors.shape != (group.channels,) or not np.isfinite(factors).all() or factors.min() <= 0:
        raise ValueError(f"{group.name}: {group.channels} finite factors above 0 are needed, not {factors.shape}")
    if group.tied is not None and not np.array_equal(factors, factors[group.tied]):
        raise ValueError(f"{group.name}: factors of tied channels differ")
    padded = np.append(factors, 1.0)  # what is labelled NONE, the last one, stays
    for place in group.places:
        _own(place)
        _multiply(place, padded[place.label])
    return {name: padded[label].astype(np.float32) for name, label in group.carriers}


def _root(layer: Layer) -> ir.Value:
    """The value whose rows a layer is given."""
    value = layer.activation
    while (node := value.producer()) is not None and node.op_type in _CHOOSING and (above := node.inputs[0]) is not None:
        try:
            lengths, before = dims(value), dims(above)
            passed = forth(node, 0, np.arange(before[-1] or 0).reshape((1,) * (len(before) - 1) + (-1,)))
            if before[-1] in (None, 1) or before[-1] != lengths[-1] or passed[0].shape[-1] != lengths[-1]:
                break
        except Stop:
            break
        value = above
    return value


def _group(value: ir.Value, layers: list[Layer], chosen: set[ir.Node]) -> Group | None:
    channels = layers[0].shape[layers[0].sum_axis]
    try:
        label = np.arange(channels).reshape((1,) * (len(dims(value)) - 1) + (-1,))
        search = Search(channels, chosen).grown([(value, label)])
    except Stop:
        return None
    reached = {place.node for place in search.places if not place.divide}
    if not any(place.divide for place in search.places) or any(layer.node not in reached for layer in layers):
        return None
    tied = search.tied
    carriers = tuple((str(carrier.name), found) for carrier, found in search.values.items())
    alone = np.array_equal(tied, np.arange(channels))
    return Group(tuple(layers), value, channels, None if alone else tied, tuple(search.places), carriers)


def _own(place: Place) -> None:
    """Make the constant at `place` an initializer that nobody else uses."""
    node, value = place.node, place.node.inputs[place.index]
    assert value is not None and isinstance(node.graph, ir.Graph)
    tensor = ir.convenience.get_const_tensor(value)
    assert tensor is not None
    others = [(user, index) for user, index in value.uses() if (user, index) != (node, place.index)]
    if not others and value.is_initializer():
        return
    layer = layer_of(node)
    if layer is None or layer.weight is not value:
        node.replace_input_with(place.index, _initializer(node.graph, f"{value.name}_folded", tensor))
        return
    # A layer knows its weight as a value, so that stays its own; the others get a value with the tensor and the name.
    name = str(value.name)
    value.name = fresh(node.graph, f"{name}_folded")
    plain = _initializer(node.graph, name, tensor)
    for user, index in others:
        user.replace_input_with(index, plain)


def _initializer(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    name = fresh(graph, name)
    made = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=_shape(tensor))
    made.const_value = ir.LazyTensor(lambda: tensor, tensor.dtype, _shape(tensor), name=name)
    graph.register_initializer(made)
    return made


def _multiply(place: Place, factors: np.ndarray) -> None:
    value = place.node.inputs[place.index]
    assert value is not None and value.const_value is not None
    before = value.const_value

    def folded() -> ir.TensorProtocol:
        numbers = before.numpy()
        product = numbers.astype(np.float32, copy=False) * (1 / factors if place.divide else factors).astype(np.float32)
        return ir.tensor(product.astype(numbers.dtype, copy=False), name=value.name)

    value.const_value = ir.LazyTensor(folded, before.dtype, _shape(before), name=value.name)


def _shape(tensor: ir.TensorProtocol) -> ir.Shape:
    return ir.Shape(tensor.shape.numpy())
