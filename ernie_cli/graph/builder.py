"""Writes ONNX nodes with onnx-ir: `b.op("MatMul", x, w, name=…)` → the output value. Knows no architecture.

Weights are named here and filled later: `b.weight(…)` notes where the tensor comes from; weights.py writes the bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir


@dataclass(frozen=True)
class WeightSource:
    """Where an initializer's bytes come from.

    tensor: the checkpoint's name for it. transpose: stored as [in, out], which MatMul wants, instead of [out, in].
    """

    tensor: str
    transpose: bool


class Builder:
    """Collects the nodes, inputs, outputs and weights of one graph.

    `dtype` is the type of weights and activations; what the family demands in float32 stays float32.
    """

    def __init__(self, dtype: ir.DataType) -> None:
        self.dtype = dtype
        self.inputs: list[ir.Value] = []
        self.outputs: list[ir.Value] = []
        self.nodes: list[ir.Node] = []
        self.weights: dict[ir.Value, WeightSource] = {}
        self._constants: dict[str, ir.Value] = {}

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
        """A graph input; strings in `shape` name dynamic axes."""
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self.inputs.append(value)
        return value

    def output(self, value: ir.Value, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> None:
        """Make `value` a graph output under `name`."""
        value.name, value.type, value.shape = name, ir.TensorType(dtype), ir.Shape(shape)
        self.outputs.append(value)

    def op(self, op_type: str, *inputs: ir.Value | None, name: str, **attributes: Any) -> ir.Value:
        """Append a node of one output and return that. `None` skips an optional input."""
        return self.ops(op_type, *inputs, name=name, outputs=1, **attributes)[0]

    def ops(self, op_type: str, *inputs: ir.Value | None, name: str, outputs: int, **attributes: Any) -> tuple[ir.Value, ...]:
        """Append a node and return its outputs."""
        trimmed = list(inputs)
        while trimmed and trimmed[-1] is None:
            trimmed.pop()
        values = [ir.Value(name=name if outputs == 1 else f"{name}.{index}") for index in range(outputs)]
        self.nodes.append(ir.node(op_type, trimmed, attributes, outputs=values, name=name))
        return tuple(values)

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """A small initializer kept inside the graph file; asked for twice, it is one."""
        if name not in self._constants:
            tensor = ir.tensor(array, name=name)
            self._constants[name] = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
        return self._constants[name]

    def ints(self, *numbers: int) -> ir.Value:
        """A constant int64 vector, for shapes and axes."""
        return self.constant("ints_" + "_".join(str(number).replace("-", "m") for number in numbers), np.array(numbers, np.int64))

    def weight(self, name: str, shape: Sequence[int], source: WeightSource) -> ir.Value:
        """An initializer whose bytes come from the checkpoint."""
        value = ir.Value(name=name, type=ir.TensorType(self.dtype), shape=ir.Shape(shape))
        self.weights[value] = source
        return value

    def graph(self, name: str, opset: int) -> ir.Graph:
        """The finished graph. Weights carry no bytes yet."""
        initializers = [*self._constants.values(), *self.weights]
        return ir.Graph(self.inputs, self.outputs, nodes=self.nodes, initializers=initializers, opset_imports={"": opset}, name=name)
