"""Which nodes of a graph are layers, and which are not."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from ernie_cli.errors import UsageError
from ernie_cli.quant import layers
from ernie_cli.quant.scheme import Scheme, WeightFormat

EVERY = Scheme("every", "all that can be", WeightFormat("int8"), operators=("MatMul", "Gemm", "Conv", "ConvTranspose"))


def _graph(*nodes: onnx.NodeProto, inputs: tuple[str, ...] = ("x",), outputs: tuple[str, ...] = (), **arrays: np.ndarray) -> ir.Model:
    known = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, arrays[name].shape if name in arrays else None) for name in inputs]
    last = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (nodes[-1].output[0], *outputs)]
    graph = helper.make_graph(list(nodes), "g", given, last, known)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))


def _w(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def _one(op: str, weight: np.ndarray, **attributes: object) -> ir.Model:
    return _graph(helper.make_node(op, ["x", "w"], ["y"], name="n", **attributes), w=weight)


@pytest.mark.parametrize(
    "op, shape, attributes, axes",
    [
        ("MatMul", (4, 6), {}, (0, 1)),
        ("Gemm", (4, 6), {}, (0, 1)),
        ("Gemm", (6, 4), {"transB": 1}, (1, 0)),
        ("Conv", (6, 4, 3, 3), {}, (1, 0)),
        ("Conv", (6, 1, 3), {"group": 6}, (1, 0)),
        ("ConvTranspose", (4, 6, 3, 3), {}, (0, 1)),
        ("MatMul", (3, 4, 6), {}, None),  # one matrix for each of a batch
        ("MatMul", (4,), {}, None),
        ("MatMul", (0, 6), {}, None),
        ("Gemm", (4, 6), {"transA": 1}, None),
        ("ConvTranspose", (4, 3, 3, 3), {"group": 2}, None),
        ("Add", (4, 6), {}, None),
    ],
)
def test_axes(op, shape, attributes, axes):
    found = layers.find(_one(op, _w(*shape), **attributes), EVERY)
    assert [(layer.sum_axis, layer.channel_axis, layer.name) for layer in found] == ([(*axes, "n")] if axes else [])


@pytest.mark.parametrize("dtype, taken", [(np.float32, True), (np.float16, True), (np.float64, False), (np.int32, False)])
def test_types(dtype, taken):
    assert len(layers.find(_one("MatMul", _w(4, 6, dtype=dtype)), EVERY)) == taken


def test_a_matrix_reads_in_out_whichever_way_it_lies():
    weight = _w(6, 4)
    (layer,) = layers.find(_one("Gemm", weight, transB=1), EVERY)
    np.testing.assert_array_equal(layer.read(), weight.T)
    assert layer.shape == (6, 4)


def test_what_a_caller_may_replace_is_no_constant():
    model = _graph(helper.make_node("MatMul", ["x", "w"], ["y"]), inputs=("x", "w"), w=_w(4, 6))
    assert layers.find(model, EVERY) == []


def test_names_come_from_the_node_or_from_what_it_gives():
    model = _graph(
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"), helper.make_node("MatMul", ["a", "v"], ["b"]), w=_w(4, 6), v=_w(6, 4)
    )
    assert [layer.name for layer in layers.find(model, EVERY)] == ["first", "b"]


@pytest.mark.parametrize(
    "name", ["model.layers.1.mlp.gate", "model.layers.1.mlp.router", "model.layers.1.mlp.gate.weight", "a/router/MatMul"]
)
def test_routers_stay_in_float(name):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name=name), helper.make_node("MatMul", ["x", "w"], ["z"], name="mlp.gate_proj")]
    assert [layer.name for layer in layers.find(_graph(*nodes, w=_w(4, 4)), EVERY)] == ["mlp.gate_proj"]


@pytest.mark.parametrize(
    "include, exclude, want",
    [
        ((), (), ["up", "down", "head", "conv"]),
        (("up|down",), (), ["up", "down"]),
        ((), ("head",), ["up", "down", "conv"]),
        (("Conv",), (), ["conv"]),
        ((), ("MatMul", "Gemm"), ["conv"]),
        (("u", "head"), ("^up$",), ["head"]),
    ],
)
def test_include_and_exclude(include, exclude, want):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="up"),
        helper.make_node("MatMul", ["a", "w"], ["b"], name="down"),
        helper.make_node("Gemm", ["b", "w"], ["c"], name="head"),
        helper.make_node("Conv", ["c", "k"], ["d"], name="conv"),
    ]
    assert [layer.name for layer in layers.find(_graph(*nodes, w=_w(4, 4), k=_w(4, 4, 3)), EVERY, include, exclude)] == want


@pytest.mark.parametrize("pattern, says", [("(", "no regular expression"), ("nothing_like_it", "meets no layer")])
def test_patterns_that_are_none_or_meet_nothing(pattern, says):
    for given in ({"include": (pattern,)}, {"exclude": (pattern,)}):
        with pytest.raises(UsageError, match=says):
            layers.find(_one("MatMul", _w(4, 6)), EVERY, **given)


def test_layers_inside_branches_are_found():
    inner = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["then_y"], name="inner")],
        "then",
        [],
        [helper.make_tensor_value_info("then_y", TensorProto.FLOAT, None)],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["else_y"])], "else", [], [helper.make_tensor_value_info("else_y", TensorProto.FLOAT, None)]
    )
    node = helper.make_node("If", ["flag"], ["y"], then_branch=inner, else_branch=other)
    assert [layer.name for layer in layers.find(_graph(node, inputs=("x", "flag"), w=_w(4, 6)), EVERY)] == ["inner"]


_PAIR = helper.make_node("DequantizeLinear", ["q", "s"], ["w"])


@pytest.mark.parametrize(
    "nodes, arrays, want",
    [
        ([], {}, False),
        ([_PAIR], {"q": np.ones((4, 6), np.int8), "s": np.float32(1).reshape(())}, True),
        (
            [helper.make_node("Constant", [], ["q"], value=numpy_helper.from_array(np.ones((4, 6), np.int8))), _PAIR],
            {"s": np.ones((), np.float32)},
            True,
        ),
        ([helper.make_node("QuantizeLinear", ["x", "s"], ["q"]), _PAIR], {"s": np.ones((), np.float32)}, False),  # an activation alone
        ([helper.make_node("MatMulInteger", ["q", "q"], ["z"])], {"q": np.ones((4, 4), np.int8)}, True),
        ([helper.make_node("MatMulNBits", ["x", "q"], ["z"], domain="com.microsoft")], {"q": np.ones((4, 4), np.uint8)}, True),
        ([helper.make_node("QLinearConv", ["x"], ["z"])], {}, True),
        ([helper.make_node("GatherBlockQuantized", ["x"], ["z"], domain="com.microsoft")], {}, True),
    ],
)
def test_quantised_already(nodes, arrays, want):
    assert layers.already(_graph(*nodes, helper.make_node("Relu", ["x"], ["y"]), **arrays)) is want
