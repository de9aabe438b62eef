"""What an ONNX file may not be: one line, the right class of error, before anything is made of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_models import mlp, model, run

from ernie_cli.errors import InputError, UnsupportedError
from ernie_cli.onnxgraph.load import load
from ernie_cli.onnxgraph.operators import operators

F = TensorProto.FLOAT
node = helper.make_node


def test_a_whole_model(saved: Callable[..., Path]) -> None:
    for external in (False, True):
        path = saved(mlp(), external=external)
        found = load(path)
        assert [(op, domain, names) for op, domain, names in operators(found)] == [
            ("MatMul", "", ("first", "last")),
            ("Relu", "", ("relu",)),
        ]
        x = np.ones((2, 4), np.float32)
        wanted = run(path, {"x": x})
        weights = {name: value.const_value.numpy() for name, value in found.graph.initializers.items()}
        np.testing.assert_allclose(np.maximum(x @ weights["w"], 0) @ weights["v"], wanted[0], rtol=1e-5)


def test_lengths_below_nothing_mean_any(saved: Callable[..., Path]) -> None:
    proto = mlp()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    axis = load(saved(proto)).graph.inputs[0].shape[0]
    assert not isinstance(axis, int) and axis.value is None


def unnamed_input(proto: Any) -> None:
    proto.graph.node[1].input[0] = "nothing"


def cycle(proto: Any) -> None:
    proto.graph.node[0].input[0] = "y"


def made_twice(proto: Any) -> None:
    proto.graph.node[2].output[0] = "h"


def same_initializer(proto: Any) -> None:
    proto.graph.initializer[1].name = "w"


def no_outputs(proto: Any) -> None:
    del proto.graph.output[:]


def output_of_nothing(proto: Any) -> None:
    proto.graph.output[0].name = "z"


def no_graph(proto: Any) -> None:
    proto.ClearField("graph")


def no_version(proto: Any) -> None:
    proto.ClearField("ir_version")


def short_tensor(proto: Any) -> None:
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-1]


def terabytes(proto: Any) -> None:
    proto.graph.initializer[0].dims[:] = [1 << 40, 1 << 40]


def negative(proto: Any) -> None:
    proto.graph.initializer[0].dims[:] = [-4, -8]


def unknown_type(proto: Any) -> None:
    proto.graph.initializer[0].data_type = 99


def self_reference(proto: Any) -> None:
    proto.graph.node[1].input[0] = "r"


def too_many_inputs(proto: Any) -> None:
    proto.graph.node[1].input.append("x")


def wrong_attribute(proto: Any) -> None:
    proto.graph.node[1].op_type = "Elu"
    proto.graph.node[1].attribute.add(name="alpha", type=onnx.AttributeProto.INT, i=1)


def sparse(proto: Any) -> None:
    proto.graph.sparse_initializer.add()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (unnamed_input, "reads `nothing`, which nothing produces"),
        (cycle, "cycle: `first` (MatMul) →"),
        (self_reference, "cycle: `relu` (Relu) → `relu`"),
        (made_twice, "`h` is made twice"),
        (same_initializer, "two of its initializers are named `w`"),
        (no_outputs, "no outputs"),
        (output_of_nothing, "the graph's output reads `z`"),
        (no_graph, "no graph"),
        (no_version, "no ir_version"),
        (short_tensor, "takes 128 bytes and has 127"),
        (terabytes, "impossible shape"),
        (negative, "impossible shape"),
        (unknown_type, "unknown type 99"),
        (too_many_inputs, "has 2 inputs"),
        (wrong_attribute, "of another type"),
        (sparse, "sparse"),
    ],
)
def test_damage_is_told(damage: Callable[[Any], None], said: str, saved: Callable[..., Path]) -> None:
    proto = mlp()
    damage(proto)
    with pytest.raises(InputError, match=said.replace("(", r"\(").replace(")", r"\)")) as caught:
        load(saved(proto))
    assert "\n" not in caught.value.message and caught.value.hint


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"no model", b"\x08\x0a" * 50, "cut"])
def test_garbage(content: Any, saved: Callable[..., Path]) -> None:
    path = saved(mlp())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content == "cut" else content)
    with pytest.raises(InputError):
        load(path)


def external(proto: Any, **entries: str) -> None:
    for tensor in proto.graph.initializer:
        known = {entry.key: entry.value for entry in tensor.external_data} | (entries if tensor.name == "w" else {})
        del tensor.external_data[:]
        for key, value in known.items():
            tensor.external_data.add(key=key, value=value)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"location": "gone.bin"}, "missing"),
        ({"location": "../w.bin"}, "would leave the folder"),
        ({"location": "/etc/passwd"}, "would leave the folder"),
        ({"location": ""}, "would leave the folder"),
        ({"location": "link.bin"}, "a link that leaves"),
        ({"location": "fifo"}, "missing"),
        ({"location": "model.onnx", "offset": "0"}, "names itself"),
        ({"offset": "200"}, "truncated"),
        ({"offset": "-1"}, "impossible place"),
        ({"offset": "9" * 30}, "impossible place"),
        ({"offset": "４"}, "impossible place"),
        ({"length": "127"}, "has 127 in"),
        ({"length": str(1 << 62)}, "has 46"),
        ({"offset": "64"}, "share a part"),
    ],
)
def test_external_data(entries: dict[str, str], said: str, saved: Callable[..., Path], tmp_path: Path) -> None:
    path = saved(mlp(), external=True)
    (tmp_path / "link.bin").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "fifo")
    proto = onnx.load(path, load_external_data=False)
    external(proto, **entries)
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(InputError, match=said):
        load(path)


def test_tied_weights_share_a_range(saved: Callable[..., Path]) -> None:
    proto = mlp()
    proto.graph.initializer[1].CopyFrom(proto.graph.initializer[0])
    proto.graph.initializer[1].name, proto.graph.initializer[1].dims[:] = "v", [8, 4]
    path = saved(proto, external=True)
    stored = onnx.load(path, load_external_data=False)
    del stored.graph.initializer[1].external_data[:]
    stored.graph.initializer[1].external_data.extend(stored.graph.initializer[0].external_data)
    path.write_bytes(stored.SerializeToString())
    assert load(path).graph.initializers["v"].const_value.shape == [8, 4]


def test_unknown_operators_all_at_once(saved: Callable[..., Path]) -> None:
    nodes = [
        node("FusedMatMul", ["x", "x"], ["a"], "fused", domain="com.microsoft"),
        node("Secret", ["a"], ["b"], "s1", domain="acme"),
        node("Secret", ["b"], ["c"], "s2", domain="acme"),
        node("Whatever", ["c"], ["d"], "w"),
        node("Upsample", ["d", "x"], ["e"], "old"),
        node("Gelu", ["e"], ["f"], "young"),
        node("Thing", ["f"], ["y"], "t", domain="nowhere"),
    ]
    path = saved(model(nodes, {"x": (F, [2, 2])}, {"y": F}, imports=["com.microsoft", "acme"]))
    with pytest.raises(UnsupportedError) as caught:
        load(path)
    for word in ("6 unknown", "com.microsoft::FusedMatMul × 1 (fused), a contrib operator of ONNX Runtime", "acme::Secret × 2 (s1, s2)",
                 "Whatever", "Upsample × 1 (old), deprecated", "not yet in opset 17", "nowhere"):  # fmt: skip
        assert word in caught.value.message
    assert len(operators(load(path, known_operators=False))) == 6


def test_an_opset_of_the_future(saved: Callable[..., Path]) -> None:
    with pytest.raises(UnsupportedError, match="opset 99 is newer"):
        load(saved(mlp(opset=99)))


@pytest.mark.parametrize("opset", [13, 21, 24, 26])
def test_opsets_that_onnx_may_not_know_yet(opset: int, saved: Callable[..., Path]) -> None:
    proto = model([node("Swish", ["x"], ["y"], "s")] if opset >= 24 else [node("Relu", ["x"], ["y"])], {"x": (F, [2])}, {"y": F}, opset)
    assert load(saved(proto)).graph.opset_imports[""] == opset


def function(name: str, calls: list[str]) -> onnx.FunctionProto:
    nodes = [node(call, ["a"], [f"v{i}"], domain="local" if call.startswith("f") else "") for i, call in enumerate(calls)]
    return helper.make_function("local", name, ["a"], ["v0"], nodes, [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)])


@pytest.mark.parametrize(
    ("functions", "said"),
    [
        ([function("f", ["f"])], "calls itself"),
        ([function("f", ["f2"]), function("f2", ["f"])], "calls itself"),
        ([function("f", ["Relu"]), function("f", ["Relu"])], "same domain and name"),
        ([*(function(f"f{i}" if i else "f", [f"f{i + 1}"] * 9) for i in range(12)), function("f12", ["Relu"])], "nodes"),
        ([helper.make_function("local", "f", ["a"], ["b"], [node("Relu", ["q"], ["b"])], [helper.make_opsetid("", 17)])], "reads `q`"),
    ],
)
def test_functions_that_never_end(functions: list[onnx.FunctionProto], said: str, saved: Callable[..., Path]) -> None:
    proto = model([node("f", ["x"], ["y"], domain="local")], {"x": (F, [2])}, {"y": F}, imports=["local"], functions=functions)
    with pytest.raises(InputError, match=said):
        load(saved(proto))


def branch(value: str) -> onnx.GraphProto:
    return helper.make_graph([node("Relu", [value], ["inner"])], "branch", [], [helper.make_tensor_value_info("inner", F, None)])


def test_subgraphs_see_outer_names_and_only_those(saved: Callable[..., Path]) -> None:
    for name, fine in (("x", True), ("z", False)):
        nodes = [node("If", ["c"], ["y"], "choose", then_branch=branch(name), else_branch=branch("x"))]
        path = saved(model(nodes, {"c": (TensorProto.BOOL, []), "x": (F, [2])}, {"y": F}))
        if fine:
            assert ("Relu", "", ("inner", "inner")) in operators(load(path))
        else:
            with pytest.raises(InputError, match="`inner` \\(Relu\\) reads `z`"):
                load(path)


def test_branches_give_as_much_as_is_taken(saved: Callable[..., Path]) -> None:
    nodes = [node("If", ["c"], ["y", "z"], "choose", then_branch=branch("x"), else_branch=branch("x"))]
    with pytest.raises(InputError, match=r"`choose` has a `[a-z_]*` of 0 inputs and 1 outputs, not 0 and 2"):
        load(saved(model(nodes, {"c": (TensorProto.BOOL, []), "x": (F, [2])}, {"y": F})))


@pytest.mark.parametrize(("inputs", "outputs", "fine"), [(["x"], ["y"], True), (["x", "x"], ["y"], False), (["x"], ["y", "z"], False)])
def test_calls_fit_their_functions(inputs: list[str], outputs: list[str], fine: bool, saved: Callable[..., Path]) -> None:
    """A call may take fewer outputs than the function has."""
    body = [node("Relu", ["a"], ["v0"]), node("Neg", ["a"], ["v1"])]
    made = helper.make_function("local", "f", ["a"], ["v0", "v1"][: 2 if fine else 1], body, [helper.make_opsetid("", 17)])
    path = saved(
        model([node("f", inputs, outputs, "call", domain="local")], {"x": (F, [2])}, {"y": F}, imports=["local"], functions=[made])
    )
    if fine:
        assert len(next(iter(load(path).graph)).outputs) == 2
    else:
        with pytest.raises(InputError, match="more than its function f"):
            load(path)


def test_names_that_are_no_text(saved: Callable[..., Path]) -> None:
    path = saved(mlp())
    path.write_bytes(path.read_bytes().replace(b"first", b"f\xffrst"))
    with pytest.raises(InputError, match="NodeProto's `name` is no text"):
        load(path)


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field as it stands in a protobuf file."""
    size, length = len(content), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


@pytest.mark.parametrize(("depth", "fine"), [(20, True), (60, False), (5000, False)])
def test_deep_nesting(depth: int, fine: bool, saved: Callable[..., Path]) -> None:
    proto = model(
        [node("If", ["c"], ["y"], then_branch=branch("x"), else_branch=branch("x"))], {"c": (TensorProto.BOOL, []), "x": (F, [2])}, {"y": F}
    )
    other = next(a for a in proto.graph.node[0].attribute if a.name == "else_branch").SerializeToString()
    graph = branch("x").SerializeToString()
    output = field(12, helper.make_tensor_value_info("inner", F, None).SerializeToString())
    for _ in range(depth):  # GraphProto.node = 1, NodeProto.attribute = 5, AttributeProto.g = 6; type 5 is GRAPH
        nested = field(1, b"then_branch") + field(6, graph) + b"\xa0\x01\x05"
        graph = (
            field(1, field(1, b"c") + field(2, b"inner") + field(4, b"If") + field(5, nested) + field(5, other)) + field(2, b"g") + output
        )
    path = saved(mlp())
    proto.ClearField("graph")
    given = model([], {"c": (TensorProto.BOOL, []), "x": (F, [2])}, {"inner": F}).graph
    given.ClearField("output")
    path.write_bytes(proto.SerializeToString() + field(7, graph + given.SerializeToString()))
    if fine:
        assert len(operators(load(path))) == 2
    else:
        with pytest.raises(InputError):
            load(path)


def test_nodes_out_of_order_are_put_in_order(saved: Callable[..., Path]) -> None:
    proto = mlp()
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    assert [node.name for node in load(saved(proto)).graph] == ["first", "relu", "last"]


def test_large_weights_are_not_read(tmp_path: Path) -> None:
    """3 GB of holes: loading takes no memory for them."""
    proto = mlp()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.dims[:], tensor.data_location = [4, 200_000_000], TensorProto.EXTERNAL
    for key, value in (("location", "w.bin"), ("offset", "0"), ("length", str(3_200_000_000))):
        tensor.external_data.add(key=key, value=value)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with (tmp_path / "w.bin").open("wb") as handle:
        handle.truncate(3_200_000_000)
    # What it holds while the model is loaded, not its peak: that begins with the peak of the process it was forked from.
    code = "import psutil, sys; from ernie_cli.onnxgraph.load import load; m = load(sys.argv[1]); print(psutil.Process().memory_info().rss)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "m.onnx")], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 400e6
