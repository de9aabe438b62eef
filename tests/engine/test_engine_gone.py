"""Why a node is gone, as far as the graph tells: one graph per reason, by hand. And the names that nodes go by."""

from __future__ import annotations

import onnx
import pytest
from onnx import helper

from ernie_cli.engine import gone
from ernie_cli.engine.nodes import distinct, flat, tell_apart
from ernie_cli.onnxgraph import structure

FLOAT = onnx.TensorProto.FLOAT


def model(*nodes, outputs=("y",), functions=()):
    """Input x, an initialiser w, both float32 [4]."""
    weight = helper.make_tensor("w", FLOAT, [4], [1.0, 2.0, 3.0, 4.0])
    values = [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", FLOAT, [4])], values, [weight])
    return helper.make_model(graph, functions=functions, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("local", 1)])


def node(operator, inputs, output, **attributes):
    return helper.make_node(operator, inputs.split(), [output], name=attributes.pop("name", output), **attributes)


def why(*nodes, **more):
    """Name of a node → the reason the graph gives."""
    graph = flat(model(*nodes, **more))
    return dict(zip((each.label for each in graph.nodes), gone.reasons(graph), strict=True))


@pytest.mark.parametrize(
    ("nodes", "name", "reason"),
    [
        ([node("Exp", "x", "y")], "y", ""),
        ([node("Exp", "x", "y"), node("Exp", "x", "unread")], "unread", gone.DEAD),
        ([node("Exp", "x", "y"), node("Exp", "x", "a"), node("Neg", "a", "b")], "a", gone.DEAD),
        ([node("Constant", "", "c", value_float=1.0), node("Add", "x c", "y")], "c", gone.FOLDED),
        ([node("Neg", "w", "c"), node("Add", "x c", "y")], "c", gone.FOLDED),
        ([node("Neg", "w", "c"), node("Shape", "c", "s"), node("Expand", "x s", "y")], "s", gone.FOLDED),
        ([node("RandomNormalLike", "w", "c"), node("Add", "x c", "y")], "c", ""),
        ([node("Shape", "x", "s"), node("Expand", "w s", "y")], "s", gone.SHAPE),
        ([node("Shape", "x", "s"), node("Mul", "s s", "p"), node("Expand", "w p", "y")], "p", gone.SHAPE),
        ([node("Transpose", "x", "t"), node("Exp", "t", "y")], "t", gone.LAYOUT),
        ([node("Transpose", "x", "t", domain="other"), node("Exp", "t", "y")], "t", ""),
        ([node("Neg", "b", "y"), node("Exp", "a", "b"), node("Neg", "w", "a")], "b", gone.FOLDED),  # not in order
    ],
)
def test_reasons(nodes, name, reason):
    assert why(*nodes)[name] == reason


def twins(*nodes):
    """Name of a node → name of the first that computes the same, where that is another."""
    graph = flat(model(*nodes))
    return {graph.nodes[place].label: graph.nodes[twin].label for place, twin in enumerate(gone.twins(graph)) if twin != place}


def scale(name, value):
    return node("Constant", "", name, value_float=value)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([node("Exp", "x", "a"), node("Exp", "x", "b"), node("Add", "a b", "y")], {"b": "a"}),
        ([node("Exp", "x", "a"), node("Neg", "x", "b"), node("Add", "a b", "y")], {}),
        ([node("Cast", "x", "a", to=10), node("Cast", "x", "b", to=16), node("Add", "a b", "y")], {}),
        ([node("RandomNormalLike", "x", "a"), node("RandomNormalLike", "x", "b"), node("Add", "a b", "y")], {}),
        (
            [node("Exp", "x", "a"), node("Exp", "x", "b"), node("Neg", "a", "c"), node("Neg", "b", "d"), node("Add", "c d", "y")],
            {"b": "a", "d": "c"},
        ),
        (
            [scale("s", 0.5), scale("t", 0.5), node("Mul", "x s", "a"), node("Mul", "x t", "b"), node("Add", "a b", "y")],
            {"t": "s", "b": "a"},
        ),
        ([scale("s", 0.5), scale("t", 0.25), node("Mul", "x s", "a"), node("Mul", "x t", "b"), node("Add", "a b", "y")], {}),
    ],
)
def test_twins(nodes, expected):
    assert twins(*nodes) == expected


def test_twins_by_equal_initialisers():
    proto = model(node("Mul", "x w", "a"), node("Mul", "x v", "b"), node("Mul", "x u", "c"), node("Sum", "a b c", "y"))
    proto.graph.initializer.append(helper.make_tensor("v", FLOAT, [4], [1.0, 2.0, 3.0, 4.0]))
    proto.graph.initializer.append(helper.make_tensor("u", FLOAT, [4], [1.0, 2.0, 3.0, 5.0]))
    assert gone.twins(flat(proto)) == [0, 0, 2, 3]


def test_weights_that_may_stay_narrow():
    """DequantizeLinear of constants and what is constant after it → those that use it."""
    proto = model(
        node("DequantizeLinear", "w w", "d"),
        node("Transpose", "d", "t"),
        node("Add", "x t", "y"),
        node("Neg", "w", "n"),
        node("DequantizeLinear", "x w", "e"),
    )
    assert gone.widening(flat(proto)) == {0: {2}, 1: {2}}


def body(*nodes, output):
    return helper.make_graph(nodes, "body", [], [helper.make_tensor_value_info(output, FLOAT, None)])


def test_nodes_inside_nodes_live_and_die_with_what_is_handed_out():
    then = body(node("Exp", "x", "t"), node("Neg", "x", "unread"), output="t")
    other = body(node("Neg", "w", "e"), output="e")
    found = why(node("Greater", "x w", "more"), helper.make_node("If", ["more"], ["y"], name="if", then_branch=then, else_branch=other))
    assert found == {
        "more": "",
        "if": gone.HOLDS,
        "t | body (then_branch) | if (If)": "",
        "unread | body (then_branch) | if (If)": gone.DEAD,
        "e | body (else_branch) | if (If)": gone.FOLDED,
    }


def test_nodes_of_local_functions_count_once_for_every_call():
    """And each call reads what it is given: the second of these only constants."""
    function = helper.make_function(
        "local", "F", ["a"], ["c"], [node("Exp", "a", "b"), node("Neg", "b", "c")], [helper.make_opsetid("", 18)]
    )
    calls = [node("F", "x", "one", domain="local"), node("F", "w", "two", domain="local"), node("Add", "one two", "y")]
    assert why(*calls, functions=[function]) == {
        "one": gone.HOLDS,
        "b | one (F)": "",
        "c | one (F)": "",
        "two": gone.FOLDED,
        "b | two (F)": gone.FOLDED,
        "c | two (F)": gone.FOLDED,
        "y": "",
    }


def test_a_call_without_what_it_may_leave_out():
    function = helper.make_function(
        "local", "F", ["a", "b"], ["c", "d"], [node("Clip", "a b", "c"), node("Neg", "a", "d")], [helper.make_opsetid("", 18)]
    )
    assert why(node("F", "x", "y", domain="local"), functions=[function]) == {"y": gone.HOLDS, "c | y (F)": "", "d | y (F)": gone.DEAD}


def test_functions_are_not_taken_for_operators_of_the_same_name():
    """TensorRT's parser looks at the name alone: a function Relu of another domain would silently become a Relu."""
    relu = helper.make_function("local", "Relu", ["a"], ["b"], [node("Neg", "a", "b")], [helper.make_opsetid("", 18)])
    proto = model(node("Relu", "x", "a"), node("Relu", "a", "y", domain="local"), functions=[relu])
    tell_apart(proto)
    assert [(each.domain, each.op_type) for each in proto.graph.node] == [("", "Relu"), ("local", "local.Relu")]
    assert [(each.domain, each.name) for each in proto.functions] == [("local", "local.Relu")]
    assert structure.check(proto, "model.onnx")
    assert [each.label for each in flat(proto).nodes] == ["a", "y", "b | y (local.Relu)"]


def test_names():
    """TensorRT calls a node without a name after its output; names that several have are told apart, others stay."""
    proto = model(node("Exp", "x", "a", name=""), node("Neg", "a", "b", name="n"), node("Neg", "b", "y", name="n"))
    tell_apart(proto)
    assert [each.name for each in proto.graph.node] == ["", "n", "n#2"]
    assert [each.name for each in flat(proto).nodes] == ["node_of_a", "n", "n#2"]


@pytest.mark.parametrize(("names", "made"), [("a b a a", "a b a#2 a#3"), ("a a#2 a", "a a#2 a#2'"), ("a a a#2", "a a#2' a#2"), ("", "")])
def test_distinct(names, made):
    assert list(distinct(names.split())) == made.split()
