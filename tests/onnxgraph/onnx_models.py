"""Small ONNX models by description, and the comparison that every test of this room ends in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


def model(
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, list[Any] | None]],
    outputs: Mapping[str, int],
    opset: int = 17,
    **more: Any,
) -> onnx.ModelProto:
    """inputs: name → (type, shape). outputs: name → type. more: initializers (name → array), functions, imports, ir_version."""
    given = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    made = [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()]
    constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in more.get("initializers", {}).items()]
    graph = helper.make_graph(nodes, "graph", given, made, constants)
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in more.get("imports", []))]
    return helper.make_model(graph, opset_imports=imports, ir_version=more.get("ir_version", 10), functions=more.get("functions", []))


def mlp(**more: Any) -> onnx.ModelProto:
    """y = relu(x @ w) @ v: two nodes in a row that tests damage."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "v"], ["y"], "last"),
    ]
    weights = {"w": rng.normal(size=(4, 8)).astype(np.float32), "v": rng.normal(size=(8, 3)).astype(np.float32)}
    return model(nodes, {"x": (TensorProto.FLOAT, ["batch", 4])}, {"y": TensorProto.FLOAT}, initializers=weights, **more)


def run(source: Path | str | bytes | ir.Model, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Every output, by ONNX Runtime without its optimiser."""
    if isinstance(source, ir.Model):
        proto = ir.serde.serialize_model(source)
        onnx.checker.check_model(proto)
        source = proto.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(source if isinstance(source, bytes) else str(source), options)
    return session.run(None, dict(feeds))


def close(got: list[np.ndarray], wanted: list[np.ndarray], rtol: float = 1e-5, atol: float = 1e-6) -> None:
    assert [(array.shape, array.dtype) for array in got] == [(array.shape, array.dtype) for array in wanted]
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)
