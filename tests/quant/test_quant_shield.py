"""8-bit floats as bare ONNX Runtime sessions take them, behind every operator that its fusions see through; and raised opsets."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from ernie_cli.errors import UnsupportedError
from ernie_cli.quant import edit, layers
from ernie_cli.quant.opset import raise_opset
from ernie_cli.quant.scheme import WeightFormat, find
from ernie_cli.quant.shield import shield

IN, OUT = 16, 8

#: operator → (shape of the input, further inputs, attributes): all give float [4, 16] or [1, 4, 16].
BEFORE: dict[str, tuple[list[int], list[Any], dict[str, Any]]] = {
    "Slice": ([4, 32], [[0], [IN], [1]], {}),
    "MaxPool": ([1, 4, 32], [], {"kernel_shape": [2], "strides": [2]}),
    "AveragePool": ([1, 4, 32], [], {"kernel_shape": [2], "strides": [2]}),
    "Squeeze": ([1, 4, IN], [[0]], {}),
    "Unsqueeze": ([4, IN], [[0]], {}),
    "Transpose": ([IN, 4], [], {"perm": [1, 0]}),
    "Reshape": ([2, 2, IN], [[4, IN]], {}),
    "Flatten": ([4, 4, 4], [], {}),
    "Gather": ([4, 3, IN], [0], {"axis": 1}),
    "Expand": ([1, IN], [[4, IN]], {}),
    "Clip": ([4, IN], [], {}),
    "Relu": ([4, IN], [], {}),
    "Sigmoid": ([4, IN], [], {}),
}


def graph(operator: str, opset: int) -> tuple[ir.Model, list[int]]:
    """operator → MatMul, float32."""
    shape, extra, attributes = BEFORE[operator]
    rng = np.random.default_rng(0)
    constants = [numpy_helper.from_array(np.array(value, np.int64), f"c{at}") for at, value in enumerate(extra)]
    constants.append(numpy_helper.from_array(rng.standard_normal((IN, OUT)).astype(np.float32), "weight"))
    nodes = [
        helper.make_node("Tanh", ["x"], ["before"]),
        helper.make_node(operator, ["before", *(f"c{at}" for at in range(len(extra)))], ["moved"], **attributes),
        helper.make_node("MatMul", ["moved", "weight"], ["y"], name="layer"),
    ]
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, given)] for name, given in (("x", shape), ("y", None))]
    proto = helper.make_model(
        helper.make_graph(nodes, "g", *ends, constants), opset_imports=[helper.make_opsetid("", opset)], ir_version=10
    )
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto)), shape


@pytest.mark.parametrize("operator", BEFORE)
def test_a_bare_session_runs_it(operator):
    import onnxruntime as ort

    model, shape = graph(operator, 19)
    x = {"x": np.random.default_rng(1).standard_normal(shape).astype(np.float32)}
    wanted = ort.InferenceSession(ir.to_proto(model).SerializeToString()).run(None, x)[0]
    (layer,) = layers.find(model, find("fp8"))
    edit.quantize_activation(layer.activation, [layer.node], "fp8", 1 / 448)
    edit.quantize_weight(layer, WeightFormat("fp8"), lambda: edit.rounded(layer, WeightFormat("fp8")))
    assert shield(model) == 2
    found = ort.InferenceSession(ir.to_proto(model).SerializeToString()).run(None, x)[0]
    assert np.linalg.norm(found - wanted) < 0.08 * np.linalg.norm(wanted)


def test_graphs_without_8_bit_floats_stay_as_they_are():
    model, _ = graph("Slice", 21)
    (layer,) = layers.find(model, find("int8"))
    edit.quantize_activation(layer.activation, [layer.node], "int8", 1 / 127)
    edit.quantize_weight(layer, WeightFormat("int8"), lambda: edit.rounded(layer, WeightFormat("int8")))
    assert shield(model) == 0


def test_an_opset_is_raised_with_what_its_operators_mean():
    """Axes of a ReduceMean were an attribute until opset 17 and are an input since 18."""
    import onnxruntime as ort

    node = helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=0)
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name, shape in (("x", [2, 3]), ("y", [2]))]
    model = ir.from_proto(
        helper.make_model(helper.make_graph([node], "g", *ends), opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    )
    raise_opset(model, 21)
    assert model.graph.opset_imports[""] == 21
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_allclose(ort.InferenceSession(ir.to_proto(model).SerializeToString()).run(None, {"x": x})[0], [1, 4])


def test_an_opset_that_is_new_enough_stays():
    model, _ = graph("Slice", 21)
    nodes = list(model.graph)
    raise_opset(model, 19)
    assert model.graph.opset_imports[""] == 21 and list(model.graph) == nodes


def test_what_onnx_cannot_convert_is_refused():
    node = helper.make_node("Pad", ["x"], ["y"], paddings=[0, 1])
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name, shape in (("x", [2]), ("y", [3]))]
    model = ir.from_proto(
        helper.make_model(helper.make_graph([node], "g", *ends), opset_imports=[helper.make_opsetid("", 1)], ir_version=3)
    )
    with pytest.raises(UnsupportedError, match="of opset 1,") as caught:
        raise_opset(model, 21)
    assert "export the model with opset 21" in caught.value.hint
