"""Writes an ONNX graph as the source text of a TorchScript `forward` method, one line per node. Compiling it is module.py's."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .control import CONTROL
from .names import TAKEN, Names
from .node import Fact, Function, Node, Unmapped
from .ops import Rule, rules
from .shapes import Shapes

#: Longer constants are weights: no rule looks into them.
SMALL = 65_536
TYPES = {"sequence": "List[Tensor]", "optional": "Optional[Tensor]", "optional_sequence": "Optional[List[Tensor]]"}
#: What these make is no tensor, whether or not shape inference knows.
SEQUENCES = frozenset({"SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase", "SplitToSequence", "SequenceMap"})


@dataclass
class Written:
    """A graph as text. tensors: buffer → onnx_ir tensor. functions: name in the text → Python function. values: variable → (ONNX
    value, operator that made it), in order. uses: (operator, node's name, the text or None, why not) of every node."""

    text: str = ""
    tensors: dict[str, Any] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    values: dict[str, tuple[str, str]] = field(default_factory=dict)
    uses: list[tuple[str, str, str | None, str]] = field(default_factory=list)


class Writer:
    """Writes one model. `lines` grows by a line or, for control flow, a block per node; rules are looked up in ops/."""

    def __init__(self, graph: Any, opset: int, taken: Sequence[str] = ()) -> None:
        self.graph, self.opset, self.rules = graph, opset, rules()
        self.out = Written()
        self.names, self.weights = Names(), Names(TAKEN | frozenset(taken))
        self.variables: dict[int, str] = {}
        self.kinds: dict[int, str] = {}
        self.constants: dict[int, np.ndarray] = {}
        self.lines: list[str] = []
        self.indent = 1
        self.device = Node.device
        self.shapes = Shapes(self.line, self.names.new)

    def write(self) -> Written:
        """The whole method. Nodes that have no mapping leave a line that does not compile and are told in `uses`."""
        inputs = [value for value in self.graph.inputs if value.name not in self.graph.initializers]
        for value in inputs:
            self.name(value, "")
            if self.device == Node.device and self.kinds[id(value)] == "tensor":
                self.device = f"{self.variables[id(value)]}.device"
        self.body(self.graph)
        outputs = [self.variable(value) for value in self.graph.outputs]
        arguments = "".join(f", {self.variables[id(value)]}: {self.type_of(value)}" for value in inputs)
        self.line(f"return {', '.join(outputs)}")
        lines = alive(self.lines)
        self.out.text = f"def forward(self{arguments}):\n" + "\n".join(lines) + "\n"
        words = set(re.findall(r"\w+", self.out.text))
        self.out.values = {name: made for name, made in self.out.values.items() if name in words}
        self.out.tensors = {name: tensor for name, tensor in self.out.tensors.items() if name in words}
        return self.out

    def body(self, graph: Any) -> None:
        """The lines of a graph or subgraph, at the indentation that is current."""
        for value in graph.initializers.values():
            self.weight(value, value.const_value)
        for node in graph:
            self.node(node)

    def line(self, text: str) -> None:
        self.lines.append("    " * self.indent + text)

    def name(self, value: Any, operator: str) -> str:
        """A new variable for a value."""
        name = self.names.new(value.name or "v")
        self.variables[id(value)] = name
        self.kinds[id(value)] = self.kind(value, operator)
        self.out.values[name] = (value.name or "", operator)
        return name

    def alias(self, value: Any, variable: str) -> None:
        """A value that another variable or expression holds already."""
        self.variables[id(value)] = variable
        self.kinds[id(value)] = self.kind(value, "")

    def variable(self, value: Any) -> str:
        return self.variables.get(id(value), "None") if value is not None else "None"

    def weight(self, value: Any, tensor: Any) -> None:
        """A constant becomes a buffer, and where small it is known to the rules."""
        name = self.weights.new(value.name or "constant")
        self.out.tensors[name] = tensor
        self.alias(value, f"self.{name}")
        if tensor.size <= SMALL and tensor.dtype.name != "STRING":
            self.constants[id(value)] = tensor.numpy()
            self.shapes.set_constant(value, self.constants[id(value)])

    def kind(self, value: Any, operator: str) -> str:
        """Which of TYPES a value is, "tensor" for most."""
        import onnx_ir as ir

        kind = value.type
        if isinstance(kind, ir.OptionalType):
            return "optional_sequence" if isinstance(kind.elem_type, ir.SequenceType) else "optional"
        return "sequence" if isinstance(kind, ir.SequenceType) or operator in SEQUENCES else "tensor"

    def type_of(self, value: Any) -> str:
        return TYPES.get(self.kinds[id(value)], "Tensor")

    def fact(self, value: Any) -> Fact:
        """What is known of a value."""
        if value is None:
            return Fact()
        kind = self.kinds.get(id(value), "tensor")
        shape = None if value.shape is None else tuple(n if isinstance(n, int) else n.value for n in value.shape)
        const = self.constants.get(id(value))
        dtype = _numpy_name(value.dtype)
        if const is not None:
            shape, dtype = const.shape, const.dtype.name
        items = self.shapes.get(value)
        return Fact(dtype, shape, const, kind, None if items is None or const is not None else items.texts)

    def node(self, node: Any) -> None:
        """One node: its line, or its block. What cannot be written is told in `uses`."""
        try:
            if node.domain not in ("", "ai.onnx"):
                raise Unmapped(f"no domain named `{node.domain}` is known")
            if any(value is not None and _numpy_name(value.dtype) == "string" for value in node.inputs):
                raise Unmapped("strings: torch has no tensors of them")
            if node.op_type == "Constant":
                self.weight(node.outputs[0], constant(node))
            elif node.op_type in CONTROL:
                CONTROL[node.op_type](self, node)
                self.out.uses.append((node.op_type, node.name or "", CONTROL[node.op_type].__name__.removeprefix("write_"), ""))
            elif node.op_type in self.rules:
                self.ruled(node, self.rules[node.op_type])
            else:
                raise Unmapped("no rule")
        except Unmapped as err:
            self.missing(node, str(err))
        except Exception as err:  # noqa: BLE001 - attributes that are missing or of a wrong kind end in any of them
            self.missing(node, f"not as ONNX defines it? {type(err).__name__}: {err}")

    def ruled(self, node: Any, rule: Rule) -> None:
        """A node as the expression of its rule."""
        seen = self.seen(node)
        text = rule(seen)
        self.out.uses.append((node.op_type, node.name or "", text, ""))
        self.assign(node, text)
        if seen.inputs:
            self.shapes.follow(node, seen.x(0), seen.shape(0), [fact.const for fact in seen.facts])

    def missing(self, node: Any, why: str) -> None:
        operator = f"{node.domain}::{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
        self.out.uses.append((operator, node.name or "", None, why))
        for value in node.outputs:
            self.name(value, node.op_type)

    def assign(self, node: Any, text: str) -> None:
        """`a, b = text`; a value that is only a variable again needs no line."""
        outputs = list(node.outputs)
        if len(outputs) == 1 and (text.isidentifier() or _is_weight(text)) and text not in ("None", "True"):
            self.alias(outputs[0], text)
            source = node.inputs[0]
            if source is not None and id(source) in self.constants and self.variable(source) == text:
                self.constants[id(outputs[0])] = self.constants[id(source)]
            return
        names = [self.name(value, node.op_type) for value in outputs]
        if len(names) == 1 and self.kinds[id(outputs[0])] != "tensor":
            names = [f"{names[0]}: {self.type_of(outputs[0])}"]
        self.line(f"{', '.join(names)} = {text}")

    def seen(self, node: Any) -> Node:
        """A node as its rule sees it."""
        inputs = tuple(None if value is None else self.variable(value) for value in node.inputs)
        return Node(
            op=node.op_type,
            name=node.name or "",
            opset=node.version or self.opset,
            inputs=inputs,
            outputs=tuple(value.name or None for value in node.outputs),
            attributes={name: _plain(attribute) for name, attribute in node.attributes.items() if _plain(attribute) is not None},
            facts=tuple(self.fact(value) for value in node.inputs),
            out_facts=tuple(self.fact(value) for value in node.outputs),
            functions=self.out.functions,
            device=self.device,
        )


def alive(lines: Sequence[str]) -> list[str]:
    """The lines without those of the outermost block whose results nothing uses: shapes that were followed as ints, mostly."""
    used = Counter(word for line in lines for word in set(re.findall(r"\w+", line)))
    kept = []
    for line in reversed(lines):
        found = re.match(r"    (\w+(?:, \w+)*)(?:: [\w\[\]]+)? = ", line)
        if found and all(used[name] == 1 for name in found[1].split(", ")):
            used.subtract(set(re.findall(r"\w+", line)))
        else:
            kept.append(line)
    return kept[::-1]


def constant(node: Any) -> Any:
    """The tensor of a Constant node, whichever attribute gives it. Raises Unmapped for sparse ones."""
    import onnx_ir as ir

    if "value" in node.attributes:
        return node.attributes["value"].value
    types = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}
    for name, dtype in types.items():
        if name in node.attributes:
            return ir.tensor(np.array(node.attributes[name].value, dtype))
    if "value_string" in node.attributes or "value_strings" in node.attributes:
        value = node.attributes.get("value_string", node.attributes.get("value_strings")).value
        return ir.StringTensor(np.array(value, dtype=object).reshape(-1) if isinstance(value, Sequence) else value)
    raise Unmapped("sparse constants")


def _plain(attribute: Any) -> Any:
    """An attribute as a Python value; None for graphs and types, which control flow reads by itself."""
    import onnx_ir as ir

    if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS, ir.AttributeType.TYPE_PROTO, ir.AttributeType.SPARSE_TENSOR):
        return None
    if attribute.type == ir.AttributeType.TENSOR:
        return attribute.value.numpy()
    return list(attribute.value) if isinstance(attribute.value, tuple | list) else attribute.value


def _numpy_name(dtype: Any) -> str | None:
    """ir.DataType → "float32", "bfloat16", "int4" …; "string"; None where unknown."""
    if dtype is None or dtype.name == "UNDEFINED":
        return None
    return "string" if dtype.name == "STRING" else str(dtype.numpy().name)


def _is_weight(text: str) -> bool:
    return text.startswith("self.") and text[5:].isidentifier()


def opset_of(model: Any) -> int:
    """The version of the default domain that a model imports."""
    imports: Mapping[str, int] = model.graph.opset_imports
    return int(imports.get("", imports.get("ai.onnx", 1)))
