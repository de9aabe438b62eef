"""Types and shapes of every value, by onnx's own inference, with operators it does not know yet standing in as simpler ones."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from ..need import need

#: The newest opset whose operators the oldest supported onnx can infer.
_OPSET = 21
#: Operators it does not know → for each output, the input that has its type and rank.
_LIKE: dict[str, tuple[int, ...]] = {
    "Attention": (0, 1, 2, 0), "RMSNormalization": (0,), "RotaryEmbedding": (0,), "Swish": (0,), "TensorScatter": (0,), "CumProd": (0,),
    "BitCast": (),
}  # fmt: skip


def infer(model: ir.Model) -> None:
    """Fill in types and shapes of values that have none, as far as they can be known. Weights are not looked at."""
    onnx = need("onnx")
    proto = _stand_in(model)
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except Exception:  # noqa: BLE001 — best effort: rules say what they miss
        return
    for graph, source in zip(_graphs(model.graph), _proto_graphs(inferred.graph), strict=True):
        known = {info.name: info for info in (*source.value_info, *source.output)}
        for node in graph:
            for value in node.outputs:
                if value.name in known:
                    _take(value, known[value.name])


def _take(value: ir.Value, info: Any) -> None:
    try:
        kind, shape = ir.serde.deserialize_type_proto_for_type(info.type), ir.serde.deserialize_type_proto_for_shape(info.type)
    except (ValueError, TypeError, NotImplementedError):
        return
    value.type = value.type or kind
    value.shape = value.shape if value.shape is not None else shape


def _stand_in(model: ir.Model) -> Any:
    """The model as protobuf, without weights, in an opset that any onnx knows."""
    proto = need("onnx").ModelProto()
    proto.ir_version = min(model.ir_version or 10, 10)
    for domain, version in model.graph.opset_imports.items():
        proto.opset_import.add(domain=domain, version=min(version, _OPSET) if domain in ("", "ai.onnx") else version)
    _fill(proto.graph, model.graph)
    return proto


def _fill(proto: Any, graph: ir.Graph) -> None:
    proto.name = graph.name or "graph"
    proto.input.extend(ir.serde.serialize_value(value) for value in graph.inputs)
    proto.output.extend(ir.serde.serialize_value(value) for value in graph.outputs)
    listed = {value.name for value in graph.inputs}
    for name, value in graph.initializers.items():
        tensor = value.const_value
        if tensor is None:
            continue
        if tensor.dtype != ir.DataType.STRING and tensor.nbytes <= 1024:  # shapes and axes matter, weights do not, texts have no size
            proto.initializer.append(ir.serde.serialize_tensor(tensor))
            proto.initializer[-1].name = name
        elif name not in listed:
            stub = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()))
            proto.input.append(ir.serde.serialize_value(stub))
    for node in graph:
        _add(proto, node)
        for value in node.outputs:
            if value.name and value.type is not None and not value.is_graph_output():
                proto.value_info.append(ir.serde.serialize_value(value))


def _add(proto: Any, node: ir.Node) -> None:
    like = _LIKE.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if like is not None:
        for value, source in zip(node.outputs, like, strict=False):
            given = node.inputs[source] if source < len(node.inputs) else None
            if value.name and given is not None:
                proto.node.add(op_type="Identity", input=[given.name], output=[value.name])
        return
    added = proto.node.add()
    added.op_type, added.domain, added.name = node.op_type, node.domain, node.name or ""
    added.input.extend("" if value is None else value.name or "" for value in node.inputs)
    added.output.extend(value.name or "" for value in node.outputs)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            inner = added.attribute.add(name=attribute.name, type=ir.AttributeType.GRAPH.value)
            _fill(inner.g, attribute.as_graph())
        elif attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().nbytes > 1 << 16:
            kind = attribute.as_tensor()
            added.op_type, added.domain = "Constant", ""
            _as_input(proto, added, kind)
            return
        else:
            added.attribute.append(ir.serde.serialize_attribute(attribute))


def _as_input(proto: Any, node: Any, tensor: ir.TensorProtocol) -> None:
    """A large Constant becomes an input of the stand-in."""
    stub = ir.Value(name=node.output[0], type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()))
    proto.node.pop()
    proto.input.append(ir.serde.serialize_value(stub))


def _graphs(graph: ir.Graph) -> list[ir.Graph]:
    """The graph and those inside its nodes, in the order of `_proto_graphs`."""
    inner = [sub for node in graph for attribute in node.attributes.values() for sub in _of(attribute)]
    return [graph, *(found for sub in inner for found in _graphs(sub))]


def _of(attribute: ir.Attr) -> list[ir.Graph]:
    return [attribute.as_graph()] if attribute.type == ir.AttributeType.GRAPH else []


def _proto_graphs(graph: Any) -> list[Any]:
    inner = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return [graph, *(found for sub in inner for found in _proto_graphs(sub))]
