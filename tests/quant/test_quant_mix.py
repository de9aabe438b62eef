"""Which layers a mix keeps at 8 bits."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from ernie_cli.quant import layers, mix
from ernie_cli.quant.scheme import WeightFormat, find

ERRORS = {"a": 0.01, "b": 0.5, "c": 0.2, "head": 0.001}


@pytest.mark.parametrize(
    ("sizes", "bits", "expected"),
    (
        ({"a": 100, "b": 100, "c": 100, "head": 900}, 4.0, {"head"}),
        ({"a": 100, "b": 100, "c": 100, "head": 900}, 5.4, {"head", "b"}),
        ({"a": 100, "b": 100, "c": 100, "head": 900}, 6.7, {"head", "b", "c"}),
        ({"a": 100, "b": 100, "c": 100, "head": 900}, 8.0, {"head", "a", "b", "c"}),
        ({"a": 10, "b": 1000, "c": 100, "head": 10}, 4.5, {"head", "c", "a"}),
    ),
    ids=("no bits to spend", "the worst", "the two worst", "all", "the worst is too large"),
)
def test_the_worst_layers_that_the_bits_allow(sizes: dict[str, int], bits: float, expected: set[str]) -> None:
    chosen = mix.choose(ERRORS, sizes, {"head"}, bits)
    assert set(chosen) == expected and set(chosen.values()) == {WeightFormat("int8")}
    body = [name for name in sizes if name != "head"]
    assert sum(sizes[name] * (8 if name in chosen else 4) for name in body) <= bits * sum(sizes[name] for name in body) + 1e-9


def test_layers_without_loss_stay() -> None:
    assert not mix.choose({"a": 0.0}, {"a": 10}, set(), 8.0)


def test_the_head_is_what_gives_the_output() -> None:
    node = onnx.helper.make_node
    weight = onnx.numpy_helper.from_array(np.ones((32, 32), np.float32), "w")
    bias = onnx.numpy_helper.from_array(np.ones(32, np.float32), "b")
    nodes = [
        node("MatMul", ["x", "w"], ["first"], name="first"),
        node("Relu", ["first"], ["h"]),
        node("MatMul", ["h", "w"], ["last"], name="last"),
        node("Add", ["last", "b"], ["biased"]),
        node("Cast", ["biased"], ["y"], to=onnx.TensorProto.FLOAT),
    ]
    info = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 32]) for name in "xy"]
    graph = onnx.helper.make_graph(nodes, "g", info[:1], info[1:], [weight, bias])
    model = ir.from_proto(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10))
    assert mix.heads(layers.find(model, find("int4"))) == {"last"}
