"""Function operators without a rule of their own are replaced by their bodies, as ONNX defines them. So are a model's own functions."""

from __future__ import annotations

from typing import Any

from ..need import need
from .control import CONTROL
from .ops import rules

#: Bodies may use function operators themselves; none is nested deeper.
DEEPEST = 8


def expand(model: Any) -> set[str]:
    """Replace in place. Returns the operators that were expanded ("domain::name" outside of the default domain)."""
    done: set[str] = set()
    for _ in range(DEEPEST):
        _define(model, done)
        if not model.functions:
            return done
        _inline(model)
    return done


def name_of(node: Any) -> str:
    return str(node.op_type) if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def _define(model: Any, done: set[str]) -> None:
    """Give each node that has no rule but a body a function of its own: bodies depend on types and attributes."""
    known = {*rules(), *CONTROL, "Constant"}
    graphs = [model.graph, *(function.graph for function in model.functions.values())]
    own = {(function.domain, function.name) for function in model.functions.values()}
    for number, node in enumerate([node for graph in graphs for node in graph.all_nodes()]):
        if (node.domain in ("", "ai.onnx") and node.op_type in known) or (node.domain, node.op_type) in own:
            continue
        function = _body(node, model)
        if function is None:
            continue
        done.add(name_of(node))
        function.domain, function.name = "ernie.expanded", f"{node.op_type}_{len(done)}_{number}"
        model.functions[function.identifier()] = function
        node.domain, node.op_type = function.domain, function.name
        model.graph.opset_imports.setdefault(function.domain, 1)


def _body(node: Any, model: Any) -> Any:
    """The operator's body as an ir.Function, with its defaults filled in; None where ONNX defines none."""
    onnx, ir = need("onnx"), need("onnx_ir")
    opset = node.version or model.graph.opset_imports.get(node.domain) or model.graph.opset_imports.get("", 1)
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return None
    if schema.has_function:
        proto = schema.function_body
    elif schema.has_context_dependent_function:
        types = [
            (ir.serde.serialize_value(value).type if value is not None else onnx.TypeProto()).SerializeToString() for value in node.inputs
        ]
        proto = onnx.FunctionProto.FromString(schema.get_context_dependent_function(ir.to_proto(node).SerializeToString(), types))
    else:
        return None
    for name, attribute in schema.attributes.items():
        if name not in node.attributes and attribute.default_value.name:
            node.attributes.add(ir.serde.deserialize_attribute(attribute.default_value))
    return ir.serde.deserialize_function(proto)


def _inline(model: Any) -> None:
    """Every function's body in place of its calls. Nodes remember the opset of the function that they come from."""
    passes = need("onnx_ir.passes.common")
    for function in model.functions.values():
        for node in function.all_nodes():
            node.version = node.version or function.opset_imports.get(node.domain)
        for domain in list(function.opset_imports):
            function.opset_imports[domain] = model.graph.opset_imports.setdefault(domain, function.opset_imports[domain])
    passes.InlinePass()(model)
    model.functions.clear()
