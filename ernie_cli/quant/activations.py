"""Where pairs of QuantizeLinear and DequantizeLinear go, so that a runtime finds whole chains it can compute in 8 bits.

What the pairs' scales are is calibrate's affair; what each operator lets through stands in activations_rules.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ..onnxgraph.inference import infer
from . import activations_rules as rules
from .edit import quantize_activation
from .layers import Layer
from .scheme import Scheme


@dataclass(frozen=True, eq=False)
class Point:
    """A pair to put between `value` and `users`. scale_of: the name of the value that its scale is measured on."""

    value: ir.Value
    users: tuple[ir.Node, ...]
    scale_of: str


def points(graph: ir.Model, scheme: Scheme, layers: Sequence[Layer], *, chains: bool = True) -> list[Point]:
    """The pairs that `scheme` needs for `layers`, in the order of computation.

    chains: int8 flows from a convolution through additions, pooling and the like to the next: ONNX Runtime computes a convolution with
    integers only where its output is quantised at once. False: what TensorRT's guide asks for, pairs at the inputs of layers and at the
    other branch of an addition, so that it can fuse convolution, addition and activation in one kernel. fp8 has no chains.
    """
    if not scheme.activation:
        return []
    if any(value.dtype is None for node in graph.graph for value in node.outputs):
        infer(graph)  # a pair has the type of what it stands behind
    flow = _Flow(graph.graph, layers)
    chains = chains and scheme.activation == "int8"
    quantised = flow.carried() if chains else flow.wanted
    return [point for value in flow.in_order() if value in quantised for point in _points(flow, value, quantised, chains)]


def insert(graph: ir.Model, points: Sequence[Point], scales: Mapping[str, float], kind: str) -> None:
    """Put the pairs in. scales: what `Point.scale_of` names → scale. kind: "int8" or "fp8". A value without a scale gets no pair."""
    for point in points:
        if point.scale_of in scales:
            quantize_activation(point.value, list(point.users), kind, scales[point.scale_of])


def measured(points: Sequence[Point]) -> list[str]:
    """Names of the values that scales must be found for, each once."""
    return list(dict.fromkeys(point.scale_of for point in points))


def _points(flow: _Flow, value: ir.Value, quantised: set[ir.Value], chains: bool) -> Iterator[Point]:
    users = flow.users(value, quantised)
    if not users:
        return
    source = flow.source(value, quantised)
    # ONNX Runtime on x86 makes signed pairs unsigned, which its integer kernels want, but only those with one reader. So where several
    # nodes read, each has a pair of its own (activations_unsigned.py makes them one again).
    for readers in [(user,) for user in users] if chains else [users]:
        yield Point(value, readers, source)


class _Flow:
    """What is known of each value: does a layer read it, does a chain of 8-bit operators lead on to one."""

    def __init__(self, graph: ir.Graph, layers: Sequence[Layer]) -> None:
        self.graph = graph
        self.layers = {layer.node: layer for layer in layers if layer.node.graph is graph}
        self.wanted = {layer.activation for layer in self.layers.values() if not rules.constant(layer.activation)}
        self._leads: set[ir.Value] = set()
        for node in reversed(graph):
            if node in self.layers or rules.on_the_way(node):
                reads = [node.inputs[0]] if node in self.layers else node.inputs
                if node in self.layers or any(value in self._leads for value in node.outputs):
                    self._leads.update(value for value in reads if value is not None)

    def in_order(self) -> Iterator[ir.Value]:
        """Inputs of the graph, then what each node gives."""
        yield from self.graph.inputs
        for node in self.graph:
            yield from node.outputs

    def carried(self) -> set[ir.Value]:
        """Everything that is to be int8: what layers read, and what lies between."""
        found = set(self.wanted)
        for node in self.graph:
            if self.starts(node) or rules.lets_through(node, found):
                found.update(value for value in node.outputs if value in self._leads)
        return found

    def starts(self, node: ir.Node) -> bool:
        """Whether a node is a layer whose integer kernel needs its output quantised."""
        return node in self.layers and node.op_type in rules.GIVES_CODES

    def fused(self, value: ir.Value) -> bool:
        """Whether what makes `value` has a kernel that gives codes."""
        node = value.producer()
        return node is not None and (self.starts(node) or rules.of(node) in (rules.SAME, rules.OWN))

    def users(self, value: ir.Value, quantised: set[ir.Value]) -> tuple[ir.Node, ...]:
        """The nodes that read codes of `value`: all of them behind a kernel that gives codes, else layers and what carries on.

        Never a layer that is to stay float: between two pairs ONNX Runtime would round its weights itself, per tensor.
        """
        readers = list(dict.fromkeys(node for node, _ in value.uses() if node.graph is self.graph))
        if self.fused(value):
            return tuple(node for node in readers if node in self.layers or node.op_type not in rules.WEIGHTED)
        return tuple(node for node in readers if self._reads_codes(node, value, quantised))

    def _reads_codes(self, node: ir.Node, value: ir.Value, quantised: set[ir.Value]) -> bool:
        if node in self.layers:
            return self.layers[node].activation is value
        skip = rules.of(node) == rules.OWN and quantised is self.wanted  # the other branch of an addition
        return skip or (rules.lets_through(node, quantised) and any(result in quantised for result in node.outputs))

    def source(self, value: ir.Value, quantised: set[ir.Value]) -> str:
        """The name of the value whose scale `value` takes: one scale on both sides of what only moves codes, or cuts them off."""
        node, after = value.producer(), [reader for reader, _ in value.uses()]
        if node is not None and rules.of(node) == rules.SAME and node.inputs[0] in quantised:
            assert node.inputs[0] is not None
            return self.source(node.inputs[0], quantised)
        if len(after) == 1 and rules.of(after[0]) == rules.CLAMP and after[0].outputs[0] in quantised:
            return self.source(after[0].outputs[0], quantised)  # what is below 0 is cut off by the next node, or by the codes' end
        return str(value.name)
