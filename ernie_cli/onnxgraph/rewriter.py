"""Emits replacement nodes for one node of a graph: `b.op("Mul", x, y)` → value, typed, named, and made once. Rules live elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from .operators import name_of

_TO_BOOL = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or", "IsNaN", "IsInf")
_TO_INT64 = ("Shape", "Size", "ArgMax", "ArgMin", "NonZero")


class Cannot(Exception):
    """Why a rule does not apply to a node, in a few words."""


class Rewriter:
    """What a rule works with: reads the node's attributes, types and constants, emits nodes before it.

    Nodes that compute the same from the same are emitted once per graph: the ones of an earlier node stand before it.
    """

    def __init__(self, opset: int, taken: set[str]) -> None:
        self.opset, self.taken = opset, taken
        self.emitted: list[ir.Node] = []
        self._made: dict[tuple[Any, ...], tuple[ir.Value, ...]] = {}
        self._constants: dict[tuple[Any, ...], ir.Value] = {}
        self.node: ir.Node

    def begin(self, node: ir.Node) -> None:
        """Turn to `node`: what is emitted from now on stands before it."""
        self.node, self.emitted = node, []

    # --- reading ----------------------------------------------------------------------------------------------------

    def input(self, index: int) -> ir.Value | None:
        """The node's input, None where it is left out."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def need(self, index: int) -> ir.Value:
        """The node's input that a rule cannot do without."""
        value = self.input(index)
        if value is None:
            raise Cannot(f"input {index} is left out")
        return value

    def wants(self, output: int) -> bool:
        """Whether anybody reads this output of the node."""
        if output >= len(self.node.outputs):
            return False
        value = self.node.outputs[output]
        return bool(value.name) and (bool(value.uses()) or value.is_graph_output())

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute's value, strings as text."""
        found = self.node.attributes.get(name)
        return default if found is None else found.value

    def rank(self, value: ir.Value) -> int:
        """How many axes `value` has. Raises Cannot where nobody knows."""
        if value.shape is None:
            raise Cannot(f"the rank of `{value.name}` is unknown")
        return len(value.shape)

    def axis(self, axis: int, value: ir.Value) -> int:
        """`axis` counted from the front."""
        return axis + self.rank(value) if axis < 0 else axis

    def dim(self, value: ir.Value, axis: int) -> int | None:
        """The length of one axis where it is fixed."""
        if value.shape is None or not -len(value.shape) <= axis < len(value.shape):
            return None
        length = value.shape[axis]
        return length if isinstance(length, int) else None

    def dtype(self, value: ir.Value) -> ir.DataType:
        """The element type of `value`. Raises Cannot where nobody knows."""
        if value.dtype is None or value.dtype == ir.DataType.UNDEFINED:
            raise Cannot(f"the type of `{value.name}` is unknown")
        return value.dtype

    def constant_of(self, value: ir.Value | None, what: str = "an input") -> np.ndarray:
        """The array behind a value that is a constant. Raises Cannot where it is computed."""
        tensor = None if value is None else ir.convenience.get_const_tensor(value)
        if tensor is None:
            raise Cannot(f"{what} is computed, not constant")
        return tensor.numpy()

    # --- writing ----------------------------------------------------------------------------------------------------

    def op(
        self, op_type: str, *inputs: ir.Value | None, dtype: ir.DataType | None = None, rank: int | None = None, **attributes: Any
    ) -> ir.Value:
        """Emit a node with one output and return that."""
        return self.ops(op_type, *inputs, outputs=1, dtype=dtype, rank=rank, **attributes)[0]

    def ops(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        outputs: int,
        dtype: ir.DataType | None = None,
        rank: int | None = None,
        **attributes: Any,
    ) -> tuple[ir.Value, ...]:
        """Emit a node and return its outputs. rank: theirs, where a later rule may want it; dtype: found out where it is plain."""
        given = list(inputs)
        while given and given[-1] is None:
            given.pop()
        key = (op_type, tuple(given), outputs, repr(sorted(attributes.items())), id(self.node.graph))
        if key in self._made:
            return self._made[key]
        kind = dtype or self._type(op_type, given, attributes)
        shape = None if rank is None else ir.Shape([None] * rank)
        base = self.name(f"{name_of(self.node)}.{op_type}")
        values = tuple(
            ir.Value(name=base if outputs == 1 else self.name(f"{base}.{index}"), type=ir.TensorType(kind) if kind else None, shape=shape)
            for index in range(outputs)
        )
        self.emitted.append(ir.node(op_type, given, attributes, outputs=values, name=base))
        self._made[key] = values
        return values

    def const(self, array: Any, dtype: Any = None) -> ir.Value:
        """A constant: an initializer of the node's graph; asked for twice, it is one."""
        data = np.asarray(array, dtype)
        key = (data.dtype.str, data.dtype.name, data.shape, data.tobytes(), id(self.node.graph))
        if key not in self._constants:
            name = self.name(f"lowered.{data.dtype.name}.{len(self._constants)}")
            tensor = ir.tensor(data, name=name)
            value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(data.shape), const_value=tensor)
            assert self.node.graph is not None
            self.node.graph.register_initializer(value)
            self._constants[key] = value
        return self._constants[key]

    def ints(self, *numbers: int) -> ir.Value:
        """A constant int64 vector."""
        return self.const(numbers, np.int64)

    def like(self, value: ir.Value, number: float) -> ir.Value:
        """A constant scalar of the type of `value`."""
        return self.const(number, self.dtype(value).numpy())

    def reduce(self, op_type: str, x: ir.Value, axes: Sequence[int] | None, keepdims: int = 1) -> ir.Value:
        """ReduceMean and its kin with `axes` (None: all) where this opset keeps them."""
        rank = len(x.shape) if x.shape is not None and keepdims else None
        if axes is None:
            return self.op(op_type, x, keepdims=keepdims, rank=rank)
        if self.opset >= 18 or op_type == "ReduceSum":
            return self.op(op_type, x, self.ints(*axes), keepdims=keepdims, rank=rank)
        return self.op(op_type, x, axes=list(axes), keepdims=keepdims, rank=rank)

    def cast(self, x: ir.Value, to: ir.DataType) -> ir.Value:
        """`x` in another type; itself where it has that."""
        return x if x.dtype == to else self.op("Cast", x, to=int(to), dtype=to, rank=None if x.shape is None else len(x.shape))

    def length(self, x: ir.Value, axis: int) -> ir.Value:
        """The length of one axis, int64 [1]: a constant where it is fixed."""
        fixed = self.dim(x, axis)
        if fixed is not None:
            return self.ints(fixed)
        axis = self.axis(axis, x)
        return self.op("Slice", self.op("Shape", x, rank=1), self.ints(axis), self.ints(axis + 1), self.ints(0), rank=1)

    def counting(self, length: ir.Value) -> ir.Value:
        """0, 1, … below `length` (int64 [1]), int64."""
        end = self.op("Squeeze", length, self.ints(0), rank=0)
        return self.op("Range", self.const(0, np.int64), end, self.const(1, np.int64), rank=1)

    def _type(self, op_type: str, inputs: list[ir.Value | None], attributes: dict[str, Any]) -> ir.DataType | None:
        if op_type in _TO_BOOL or op_type in _TO_INT64:
            return ir.DataType.BOOL if op_type in _TO_BOOL else ir.DataType.INT64
        of = inputs[1] if op_type == "Where" and len(inputs) > 1 else next(iter(inputs), None)
        return None if of is None else of.dtype

    def name(self, wanted: str) -> str:
        """`wanted`, or a name like it that is free."""
        name, number = wanted, 1
        while name in self.taken:
            number += 1
            name = f"{wanted}_{number}"
        self.taken.add(name)
        return name
