"""`lower(model, opset)`: the same computation in an older opset, and in fewer operators where the reader knows few.

The rules stand in lower_attention.py, lower_expand.py (operator → simpler ones) and lower_down.py (operator → its older self).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from ..coverage import OpUse
from ..errors import InputError, UnsupportedError, UsageError
from ..need import need
from . import inference, lower_attention, lower_down, lower_expand
from .operators import name_of, newest, schema
from .proto import AGAIN
from .rewriter import Cannot, Rewriter

if TYPE_CHECKING:
    from .lower_expand import Rule

#: operator → how to write it in others.
EXPAND: dict[str, Rule] = {**lower_expand.RULES, **lower_attention.RULES}
#: The oldest opset this can go down to: Squeeze, Unsqueeze, ReduceSum and Softmax are what they are now from 13 on.
OLDEST = 13
_KEPT, _DOWN, _EXPANDED = "kept", "older form", "written out"


def lower(model: ir.Model, opset: int, *, known: Collection[str] | None = None) -> ir.Model:
    """Bring `model` down to `opset` (13 or later), in place, and return it. A model that is older already keeps its opset.

    known: the operators that the reader knows; others are written out, too. Local functions are inlined. Inputs, outputs and
    their order stay. Raises UnsupportedError (exit 4) that names every operator which cannot be expressed, with its nodes.
    """
    missing = [use for use in coverage(model, opset, known=known) if not use.how]
    if missing:
        said = [f"{use.operator} × {len(use.nodes)} ({', '.join(use.nodes[:3])}): {use.why}" for use in missing]
        what = f"opset {opset} cannot express {len(missing)} operator{'s' if len(missing) > 1 else ''}: {'; '.join(said)}"
        raise UnsupportedError(what, "export the model again with a lower opset, or without them")
    return model


def coverage(model: ir.Model, opset: int, *, known: Collection[str] | None = None) -> list[OpUse]:
    """Lower `model` in place as far as it goes, and tell what became of each operator. For `--check`: the model is used up."""
    if not OLDEST <= opset <= newest():
        raise UsageError(f"opset {opset} is out of range", f"choose {OLDEST} to {newest()}")
    _inline(model)
    present = model.graph.opset_imports.get("", 0)
    work = _Lowering(model, opset if present > opset else present, known)
    work.run(model.graph)
    if present > opset:
        model.graph.opset_imports[""] = opset
    need("onnx_ir.passes.common").RemoveUnusedNodesPass()(model)
    return work.uses()


class _Lowering:
    """One pass over a model: each node is kept, turned into its older self, or replaced by others, which are looked at in turn."""

    def __init__(self, model: ir.Model, opset: int, known: Collection[str] | None) -> None:
        self.opset, self.known, self.source = opset, known, model.graph.opset_imports.get("", 0)
        inference.infer(model)
        taken = {value.name for graph in (model.graph, *model.graph.subgraphs()) for node in graph for value in node.outputs if value.name}
        taken |= {name for graph in (model.graph, *model.graph.subgraphs()) for name in graph.initializers}
        taken |= {value.name for graph in (model.graph, *model.graph.subgraphs()) for value in graph.inputs if value.name}
        self.rewriter = Rewriter(opset, taken)
        self._found: dict[tuple[str, str, str], list[str]] = {}

    def uses(self) -> list[OpUse]:
        return [OpUse(operator, tuple(names), how, why) for (operator, how, why), names in sorted(self._found.items())]

    def run(self, graph: ir.Graph) -> None:
        for node in list(graph):
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.GRAPH:
                    self.run(attribute.as_graph())
            operator = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"
            name = name_of(node)
            try:
                how, why = self._lower(node, 0), ""
            except Cannot as err:
                how, why = "", str(err)
            self._found.setdefault((operator, how, why), []).append(name)

    def _lower(self, node: ir.Node, depth: int) -> str:
        if node.domain not in ("", "ai.onnx"):
            raise Cannot("not of the standard")
        older = schema(node.op_type, "", self.opset)
        wanted = self.known is None or node.op_type in self.known
        if older is not None and wanted and not older.deprecated:
            how = self._down(node, older, depth)
            if how:
                return how
        rule = EXPAND.get(node.op_type)
        if rule is None or depth > 4:
            raise Cannot("not known there" if older is not None else f"came after opset {self.opset}")
        self.rewriter.begin(node)
        self._replace(node, rule(self.rewriter), depth)
        return _EXPANDED

    def _down(self, node: ir.Node, older: object, depth: int) -> str:
        """Make the node one of the older opset; "" where it must be written out after all."""
        version = older.since_version  # type: ignore[attr-defined]
        changed = False
        if node.op_type == "GroupNormalization" and self.source >= 21 > self.opset:
            return ""  # its scale was per group, then per channel
        for opset, rule in sorted(lower_down.RULES.get(node.op_type, {}).items(), reverse=True):
            if version < opset <= self.source:
                self.rewriter.begin(node)
                values = rule(self.rewriter)
                if values is not None:
                    self._replace(node, values, depth)
                    return _DOWN
                self._insert(node, depth)
                changed = True
        try:
            changed |= _conform(node, older)
        except Cannot:
            if node.op_type in EXPAND:
                return ""
            raise
        return _DOWN if changed else _KEPT

    def _insert(self, node: ir.Node, depth: int) -> None:
        graph = node.graph
        assert graph is not None
        emitted = self.rewriter.emitted
        graph.insert_before(node, emitted)
        for made in emitted:
            self._lower(made, depth + 1)

    def _replace(self, node: ir.Node, values: Sequence[ir.Value | None], depth: int) -> None:
        """Let `values` stand for the node's outputs, under the same names where the graph gives them out."""
        emitted = list(self.rewriter.emitted)
        graph = node.graph
        assert graph is not None
        graph.insert_before(node, emitted)
        for output, value in zip(node.outputs, (*values, *[None] * len(node.outputs)), strict=False):
            if not output.uses() and not output.is_graph_output():
                continue
            if value is None:
                raise Cannot(f"its output `{output.name}` is not made")
            self._stand_for(output, value, node)
        graph.remove(node, safe=True)
        for made in emitted:
            self._lower(made, depth + 1)

    def _stand_for(self, output: ir.Value, value: ir.Value, node: ir.Node) -> None:
        if output.is_graph_output() and (
            value.producer() is None or value.is_graph_output() or value.producer() not in self.rewriter.emitted
        ):
            copy = ir.node("Identity", [value], outputs=[ir.Value(type=output.type, shape=output.shape)], name=f"{name_of(node)}.same")
            assert node.graph is not None
            node.graph.insert_before(node, [copy])
            value = copy.outputs[0]
        value.type, value.shape = output.type or value.type, output.shape if output.shape is not None else value.shape
        if output.is_graph_output():
            name, output.name = output.name, self.rewriter.name(f"{output.name}.before")
            value.name = name
        ir.convenience.replace_all_uses_with([output], [value], replace_graph_outputs=True)


def _conform(node: ir.Node, older: object) -> bool:
    """Drop attributes that the older operator has not, where they say what it does anyway. Raises Cannot for all else."""
    changed = False
    attributes, limit = older.attributes, older.max_input  # type: ignore[attr-defined]
    for name in [name for name in node.attributes if name not in attributes]:
        value = node.attributes[name].value
        ones = name == "dilations" and all(number == 1 for number in value)
        if not ones and (name not in lower_down.NEUTRAL or value != lower_down.NEUTRAL[name]):
            raise Cannot(f"{name}={value} came after opset {older.since_version}")  # type: ignore[attr-defined]
        node.attributes.pop(name)
        changed = True
    if len(node.inputs) > limit:
        if any(value is not None for value in node.inputs[limit:]):
            raise Cannot(f"its input {limit} came later")
        node.resize_inputs(limit)
    _check_types(node, older)
    return changed


def _check_types(node: ir.Node, older: object) -> None:
    """Raise Cannot where an input or output is of a type that the older operator does not take."""
    for values, formal in ((node.inputs, older.inputs), (node.outputs, older.outputs)):  # type: ignore[attr-defined]
        _check_formal(values, list(formal), older.since_version)  # type: ignore[attr-defined]


def _check_formal(values: Sequence[ir.Value | None], formal: list[Any], version: int) -> None:
    for index, value in enumerate(values):
        if value is None or not isinstance(value.type, ir.TensorType) or not formal:
            continue
        allowed = formal[min(index, len(formal) - 1)].types
        name = f"tensor({_name(value.type.dtype)})"
        if allowed and name not in allowed and value.dtype != ir.DataType.UNDEFINED:
            raise Cannot(f"{_name(value.type.dtype)} came after opset {version}")


def _name(kind: ir.DataType) -> str:
    return {"FLOAT": "float", "DOUBLE": "double"}.get(kind.name, kind.name.lower())


def _inline(model: ir.Model) -> None:
    """Write local functions into the graph. Those of another opset, where the difference touches none of their operators."""
    if not model.functions:
        return
    main = model.graph.opset_imports
    for function in model.functions.values():
        for domain, version in list(function.opset_imports.items()):
            if (
                domain in main
                and main[domain] != version
                and all(_same(node, domain, version, main[domain]) for node in function.all_nodes())
            ):
                function.opset_imports[domain] = main[domain]
    try:
        need("onnx_ir.passes.common").InlinePass()(model)
    except Exception as err:  # ValueError, or its own PassError
        raise InputError(f"its functions cannot be inlined: {str(err.__cause__ or err).splitlines()[0]}", AGAIN) from err


def _same(node: ir.Node, domain: str, one: int, other: int) -> bool:
    first, second = (schema(node.op_type, domain, version) for version in (one, other))
    return node.domain != domain or (first is not None and second is not None and first.since_version == second.since_version)
