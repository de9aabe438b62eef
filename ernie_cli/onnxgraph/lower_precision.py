"""`lower_precision(model, dtype)`: a float32 graph of any kind → float16 or bfloat16, where that is safe; the rest stays float32.

Each node is narrow or wide (lower_precision_choice.py says which and why), each value has its producer's type, and a Cast stands where
the two meet. Inputs and outputs keep their types. Whether the result is good enough, is parity's to measure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import onnx_ir as ir

from ..errors import UnsupportedError
from ..need import need
from . import inference
from .lower_precision_choice import FLOAT, Choice, constant
from .narrowed import Narrowed

SUFFIXES = {ir.DataType.FLOAT16: "fp16", ir.DataType.BFLOAT16: "bf16"}


def lower_precision(model: ir.Model, dtype: ir.DataType, ends: Collection[str] = (), wide: Collection[str] = ()) -> dict[str, list[str]]:
    """Change `model` in place; local functions are written into the graph.

    ends: names of inputs and outputs that become narrow, too. wide: names of values that were seen to leave the range of `dtype`: what
    makes and reads them stays. Returns the names of the nodes that stay in float32, by reason. Of weights only the range is looked at:
    they are rounded when they are written. Raises UnsupportedError where nothing becomes narrow.
    """
    common = need("onnx_ir.passes.common")
    if model.functions:
        common.InlinePass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    inference.infer(model)
    choice = Choice(model, dtype, ends, wide)
    if not choice.narrow:
        why = "; ".join(f"{reason} ({len(names)})" for reason, names in choice.kept.items()) or "it has no float32"
        raise UnsupportedError(f"nothing of this graph can compute in {SUFFIXES[dtype]}: {why}", "leave --precision out")
    _Rewiring(model, choice).run()
    return choice.kept


class _Rewiring:
    """Types of values, casts between them, constants in the types that their readers want."""

    def __init__(self, model: ir.Model, choice: Choice) -> None:
        self.main, self.choice, self.dtype = model.graph, choice, choice.dtype
        self.suffix = SUFFIXES[choice.dtype]
        self.graphs = [model.graph, *model.graph.subgraphs()]
        self._casts: dict[tuple[ir.Value, bool], ir.Value] = {}
        self._taken = {name for graph in self.graphs for name in _names(graph)}

    def run(self) -> None:
        """Everything; what each input wants is asked before any type changes."""
        nodes = list(self.main.all_nodes())
        ends = [(graph, index, value) for graph in self.graphs for index, value in enumerate(graph.outputs)]
        wants = [(node, *wanted) for node in nodes for wanted in self.choice.wants(node)]
        for value, narrow in self.choice.home.items():
            if narrow:
                value.type = ir.TensorType(self.dtype)
        for node in nodes:
            self._fill(node)
        readers: dict[ir.Value, list[tuple[ir.Node, int, bool]]] = {}
        for node, index, value, narrow in wants:
            if constant(value):
                readers.setdefault(value, []).append((node, index, narrow))
            elif self.choice.home.get(value, False) != narrow:
                node.replace_input_with(index, self._cast(value, narrow))
        for value, uses in readers.items():
            self._constant(value, uses)
        for graph, index, value in ends:
            self._end(graph, index, value)

    def _fill(self, node: ir.Node) -> None:
        """The attributes that say which type a node makes."""
        if node not in self.choice.narrow:
            return
        if node.op_type == "Cast":
            node.attributes["to"] = ir.AttrInt64("to", int(self.dtype))
        elif node.op_type == "ConstantOfShape":
            found = node.attributes.get("value")
            number = np.zeros(1, np.float32) if found is None else found.as_tensor().numpy()
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(number.astype(self.dtype.numpy()), dtype=self.dtype))

    def _cast(self, value: ir.Value, narrow: bool) -> ir.Value:
        """`value` in the other type, made once, right behind its producer."""
        key = (value, narrow)
        if key not in self._casts:
            source = self._bounded(value) if narrow and value in self.choice.beyond else value
            made = self._value(f"{value.name}.{self.suffix if narrow else 'fp32'}", self.dtype if narrow else FLOAT, value)
            self._behind(source, ir.node("Cast", [source], {"to": int(made.dtype or 0)}, outputs=[made], name=made.name))
            self._casts[key] = made
        return self._casts[key]

    def _bounded(self, value: ir.Value) -> ir.Value:
        """A mask made of numbers beyond the narrow type: at its end, not infinite, or rows that are masked as a whole become NaN."""
        made = self._value(f"{value.name}.bounded", FLOAT, value)
        most = self.choice.most
        if self.choice.opset < 11:
            node = ir.node("Clip", [value], {"min": -most, "max": most}, outputs=[made], name=made.name)
        else:
            node = ir.node("Clip", [value, self._number(value, -most), self._number(value, most)], outputs=[made], name=made.name)
        self._behind(value, node)
        return made

    def _number(self, beside: ir.Value, number: float) -> ir.Value:
        made = self._value(f"{self.suffix}.{'least' if number < 0 else 'most'}", FLOAT, None)
        made.const_value = ir.tensor(np.array(number, np.float32), name=made.name)
        self._graph_of(beside).register_initializer(made)
        return made

    def _value(self, name: str, dtype: ir.DataType, like: ir.Value | None) -> ir.Value:
        return ir.Value(name=self._name(name), type=ir.TensorType(dtype), shape=ir.Shape([]) if like is None else like.shape)

    def _behind(self, value: ir.Value, node: ir.Node) -> None:
        producer, graph = value.producer(), self._graph_of(value)
        if producer is not None:
            graph.insert_after(producer, node)
        elif len(graph):
            graph.insert_before(graph[0], node)
        else:
            graph.append(node)

    def _graph_of(self, value: ir.Value) -> ir.Graph:
        return value.graph if isinstance(value.graph, ir.Graph) else self.main

    def _constant(self, value: ir.Value, readers: list[tuple[ir.Node, int, bool]]) -> None:
        """An initializer in the type that its readers want; twice, where they differ."""
        narrow = [(node, index) for node, index, wanted in readers if wanted]
        if not narrow:
            return
        assert value.const_value is not None
        others = len(list(value.uses())) > len(narrow) or value.is_graph_output()
        name = self._name(f"{value.name}.{self.suffix}") if others else str(value.name)
        tensor = Narrowed(value.const_value, self.dtype, name)
        if not others:
            value.const_value, value.type = tensor, ir.TensorType(self.dtype)
            return
        made = ir.Value(name=name, type=ir.TensorType(self.dtype), shape=value.shape, const_value=tensor)
        self._graph_of(value).register_initializer(made)
        for node, index in narrow:
            node.replace_input_with(index, made)

    def _end(self, graph: ir.Graph, index: int, value: ir.Value) -> None:
        """An output in the type and under the name that it had."""
        wanted = graph is self.main and value.name in self.choice.ends
        if self.choice.home.get(value, wanted) == wanted:
            return
        name, to = str(value.name), self.dtype if wanted else FLOAT
        if value.producer() is not None:  # an input that is given out keeps its name, and so has another than the output
            value.name = self._name(f"{name}.{'fp32' if wanted else self.suffix}")
        given = ir.Value(name=name, type=ir.TensorType(to), shape=value.shape)
        graph.append(ir.node("Cast", [value], {"to": int(to)}, outputs=[given], name=self._name(f"{name}.given")))
        graph.outputs[index] = given

    def _name(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return name


def _names(graph: ir.Graph) -> Iterator[str]:
    """Of all that a new name must not meet."""
    values = [*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)]
    yield from (str(value.name) for value in values)
    yield from (str(node.name) for node in graph)
