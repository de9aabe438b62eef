"""Decides for every node of a float32 graph whether it computes in 16 bits, and why not. Changes nothing: that is lower_precision.py's.

The tables are in lower_precision_rules.py. Values of float32 get their producer's choice; graph inputs stay as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import onnx_ir as ir

from . import lower_precision_rules as rules
from .narrowed import Extent, extent, limits
from .operators import name_of

FLOAT = ir.DataType.FLOAT
STANDARD = ("", "ai.onnx")
#: What integers are exact in float16, too.
_SMALL = (ir.DataType.BOOL, ir.DataType.INT8, ir.DataType.UINT8)
#: Steps back from an angle or a count that are looked at.
_FAR = 12

_NOTHING = "nothing to do"
_OPERATOR = "powers, sums, angles, coordinates, chance"
_INTEGERS = "made of whole numbers"
_NEXT = "next to powers, sums and whole numbers"
_RANGE = "constants beyond the type's end"
_CONTROL = "ends of If, Loop and Scan"


class Choice:
    """narrow: nodes that compute in `dtype`. home: values of float32 → whether they will be narrow. kept: reason → nodes that stay.

    beyond: values made of constants that `dtype` cannot hold. ends: graph inputs and outputs that become narrow. wide: values that
    must not.
    """

    def __init__(self, model: ir.Model, dtype: ir.DataType, ends: Collection[str] = (), wide: Collection[str] = ()) -> None:
        self.main, self.dtype, self.ends, self.wide = model.graph, dtype, frozenset(ends), frozenset(wide)
        self.opset = model.graph.opset_imports.get("", 0) or model.graph.opset_imports.get("ai.onnx", 0)
        self.most, self.tiny = limits(dtype)
        self.narrow: set[ir.Node] = set()
        self.home: dict[ir.Value, bool] = {}
        self.beyond: set[ir.Value] = set()
        self.kept: dict[str, list[str]] = {}
        self._heavy: set[ir.Value] = set()
        self._exact = _counted(model.graph)
        self._extents: dict[ir.Value, Extent] = {}
        self._sort(model.graph)

    def wants(self, node: ir.Node) -> Iterator[tuple[int, ir.Value, bool]]:
        """(index, value, whether it must be narrow) of a node's inputs of float32; none of those that take what they are given."""
        if node.op_type in rules.ANY and node.domain in STANDARD:
            return
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype == FLOAT:
                yield index, value, node in self.narrow and rules.takes(node, index, self.opset, self.dtype)

    def _sort(self, graph: ir.Graph) -> None:
        """Every node of `graph`, and of the graphs inside its nodes, in order."""
        for value in graph.inputs:
            if value.dtype == FLOAT:
                self.home[value] = graph is self.main and value.name in self.ends
        for node in graph:
            why = self._why_wide(node)
            for inner in inside(node):
                self._sort(inner)
            if not why:
                self.narrow.add(node)
            elif why != _NOTHING:
                self.kept.setdefault(why, []).append(name_of(node))
            for index, value in enumerate(node.outputs):
                if value.dtype == FLOAT:
                    self.home[value] = not why and (makes(node) or rules.takes(node, index, self.opset, self.dtype, output=True))
            self._mark(node, why)

    def _mark(self, node: ir.Node, why: str) -> None:
        """What the nodes behind must know of this one's results."""
        moved = node.inputs[0] if node.op_type in rules.MOVES and node.inputs else None
        if node.op_type in rules.HEAVY or why == _INTEGERS or moved in self._heavy:
            self._heavy.update(node.outputs)
        if why == _RANGE or moved in self.beyond:
            self.beyond.update(node.outputs)

    def _why_wide(self, node: ir.Node) -> str:
        """Why a node stays in float32, "" where it does not."""
        values = [value for value in (*node.inputs, *node.outputs) if value is not None and value.name]
        unknown = any(not isinstance(value.type, ir.TensorType) or value.dtype in (None, ir.DataType.UNDEFINED) for value in values)
        if not unknown and not any(value.dtype == FLOAT for value in values) and node.op_type not in rules.CONTROL:
            return _NOTHING
        if node.domain not in STANDARD:
            return f"operators of {node.domain}"
        if node.op_type in rules.CONTROL:
            return _CONTROL
        if unknown:
            return "types nobody knows, and sequences"
        if node.op_type == "Cast":
            return self._why_wide_cast(node)
        if node.op_type in rules.WIDE or _scatters(node):
            return _OPERATOR
        if any(value.name in self.wide for value in values):
            return "numbers beyond the type's end"
        return "what counts: positions, coordinates, sizes" if node in self._exact else self._why_wide_here(node)

    def _why_wide_cast(self, node: ir.Node) -> str:
        source = node.inputs[0]
        if node.attributes.get_int("to", 0) != FLOAT or source is None or source.dtype == FLOAT:
            return _NOTHING  # takes what it is given
        return "" if source.dtype in _SMALL and node not in self._exact else _INTEGERS

    def _why_wide_here(self, node: ir.Node) -> str:
        """By what it is given."""
        given = {index: value for index, value in enumerate(node.inputs) if value is not None and value.dtype == FLOAT}
        if node.op_type == "ConstantOfShape":
            return self._why_wide_fill(node)
        if not given:
            return "makes float32 of other types"
        if node.op_type in rules.MOVES and node.inputs[0] in self._heavy:
            return _NEXT
        if node.op_type in rules.ELEMENTWISE and any(value in self._heavy and not _scalar(value) for value in given.values()):
            return _NEXT
        for index, value in given.items():
            if why := self._why_wide_constant(node, index, value):
                return why
        takes = [rules.takes(node, index, self.opset, self.dtype) for index in given]
        return "" if any(takes) else f"operators that take no {self.dtype.name.lower()} in opset {self.opset}"

    def _why_wide_fill(self, node: ir.Node) -> str:
        found = node.attributes.get("value")
        number = float(found.as_tensor().numpy().reshape(-1)[0]) if found is not None else 0.0
        return "" if number == 0 or self.tiny <= abs(number) <= self.most or not np.isfinite(number) else _RANGE

    def _why_wide_constant(self, node: ir.Node, index: int, value: ir.Value) -> str:
        """Whether a constant of the node leaves the narrow type's range."""
        if not constant(value):
            return ""
        if value not in self._extents:
            assert value.const_value is not None
            self._extents[value] = extent(value.const_value)
        found = self._extents[value]
        if 0 < found.magnitude < self.tiny and index < 2 and node.op_type not in rules.BOUNDS | rules.ADDENDS:
            return f"constants that are all below {self.tiny:.2g}"
        if found.magnitude <= self.most or node.op_type in rules.BOUNDS:
            return ""
        return "" if node.op_type in rules.MASKED and found.most <= self.most and found.least <= rules.MASK else _RANGE


def makes(node: ir.Node) -> bool:
    """Whether the type of what a node gives is one of its attributes."""
    return node.op_type in ("Cast", "ConstantOfShape")


def constant(value: ir.Value) -> bool:
    """Whether a value is an initializer that nobody can replace from outside."""
    return value.const_value is not None and value.is_initializer() and not value.is_graph_input()


def inside(node: ir.Node) -> list[ir.Graph]:
    """The graphs in a node's attributes."""
    return [attribute.as_graph() for attribute in node.attributes.values() if attribute.type == ir.AttributeType.GRAPH]


def _scatters(node: ir.Node) -> bool:
    """Whether a node adds or multiplies where it writes, as often as an index comes again."""
    return node.op_type.startswith("Scatter") and node.attributes.get_string("reduction", "none") != "none"


def _scalar(value: ir.Value) -> bool:
    return value.shape is not None and all(length == 1 for length in value.shape)


def _counted(graph: ir.Graph) -> set[ir.Node]:
    """Nodes on the way to an angle, a whole number or a size: they must be exact."""
    found: set[ir.Node] = set()
    for node in graph.all_nodes():
        if node.op_type in rules.ANGLES:
            cone = _cone(node.inputs[0], rules.ELEMENTWISE | rules.MOVES | rules.PRODUCTS)
            found |= cone if any(each.op_type == "Cast" for each in cone) else set()
        elif node.op_type == "Cast" and not ir.DataType(node.attributes.get_int("to", 1)).is_floating_point():
            found |= _cone(node.inputs[0], rules.ELEMENTWISE | rules.MOVES)
        elif node.op_type in rules.SIZED:
            for value in node.inputs[rules.SIZED[node.op_type] :]:
                found |= _cone(value, rules.ELEMENTWISE | rules.MOVES)
    return found


def _cone(value: ir.Value | None, through: frozenset[str]) -> set[ir.Node]:
    """Nodes of these kinds that `value` is computed by, back to the first of another kind."""
    found: set[ir.Node] = set()
    pending = [(value, 0)]
    while pending:
        at, steps = pending.pop()
        node = at.producer() if at is not None else None
        if node is None or node in found or node.op_type not in through or steps > _FAR:
            continue
        found.add(node)
        if node.op_type != "Cast":
            pending += [(each, steps + 1) for each in node.inputs]
    return found
