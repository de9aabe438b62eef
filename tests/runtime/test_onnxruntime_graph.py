"""Graphs of any kind on ONNX Runtime: every type at the ends, every value in between, and what is refused."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ernie_cli.errors import InputError, UnsupportedError, UsageError
from ernie_cli.model import Model
from ernie_cli.runtime import onnxruntime_graph
from ernie_cli.runtime.graphs import TensorSpec, open_graph

F = TensorProto.FLOAT
TYPES = ["float32", "float64", "float16", "bfloat16", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


def info(name: str, dtype: int = F, shape: list[int | str | None] | None = None):
    return helper.make_tensor_value_info(name, dtype, shape)


def saved(path: Path, nodes, inputs, outputs, weights=(), opset: int = 17, ir_version: int = 8) -> Path:
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), list(weights))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version), path)
    return path


def session(path: Path):
    return open_graph(Model.open(path), threads=1)


def weight(name: str, array) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(array), name)


@pytest.mark.parametrize("dtype", TYPES)
def test_types_at_the_ends(dtype: str, tmp_path: Path) -> None:
    kind = {"bfloat16": TensorProto.BFLOAT16}.get(dtype) or helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    file = saved(
        tmp_path / "m.onnx", [helper.make_node("Identity", ["x"], ["y"])], [info("x", kind, ["n", 2])], [info("y", kind, ["n", 2])]
    )
    opened = session(file)
    assert opened.inputs == (TensorSpec("x", dtype, ("n", 2)),) and opened.outputs == (TensorSpec("y", dtype, ("n", 2)),)
    array = np.array([[0, 1], [1, 0], [1, 1]]).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    got = opened.run({"x": array})["y"]
    assert got.dtype == array.dtype and np.array_equal(got, array)


def test_ranks_scalars_and_empty_arrays(tmp_path: Path) -> None:
    inputs = [info("any"), info("scalar", shape=[]), info("open", shape=[None, "n"])]
    nodes = [helper.make_node("Mul", ["any", "scalar"], ["a"]), helper.make_node("Neg", ["open"], ["b"])]
    opened = session(saved(tmp_path / "m.onnx", nodes, inputs, [info("a"), info("b")]))
    assert [spec.shape for spec in opened.inputs] == [None, (), (None, "n")]
    got = opened.run({"any": np.ones(3, np.float32), "scalar": np.float32(2).reshape(()), "open": np.empty((0, 4), np.float32)})
    assert got["a"].tolist() == [2, 2, 2] and got["b"].shape == (0, 4)


def test_weights_that_old_files_list_as_inputs_are_none(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    file = saved(
        tmp_path / "m.onnx", nodes, [info("x", shape=[1]), info("w", shape=[1])], [info("y")], [weight("w", np.float32([2]))], ir_version=3
    )
    opened = session(file)
    assert [spec.name for spec in opened.inputs] == ["x"]
    assert opened.run({"x": np.float32([1])})["y"].tolist() == [3]


@pytest.mark.parametrize(
    ("feeds", "says"),
    [
        ({}, "no array for `x`"),
        ({"x": np.ones((1, 2), np.float32), "z": np.ones(1)}, "`z` is no input"),
        ({"x": np.ones((1, 2))}, "float64"),
        ({"x": np.ones((1, 3), np.float32)}, r"shape \[1, 3\]"),
        ({"x": np.ones((7, 2), np.float32)}, r"cannot run it on x \[7, 2\]"),
    ],
)
def test_feeds_that_do_not_fit(feeds, says: str, tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    file = saved(tmp_path / "m.onnx", nodes, [info("x", shape=["n", 2])], [info("y")], [weight("shape", np.int64([1, 2]))])
    with pytest.raises(UsageError, match=says):
        session(file).run(feeds)


def test_strings_and_sequences_are_refused(tmp_path: Path) -> None:
    strings = saved(
        tmp_path / "s.onnx",
        [helper.make_node("Identity", ["x"], ["y"])],
        [info("x", TensorProto.STRING, [1])],
        [info("y", TensorProto.STRING, [1])],
    )
    with pytest.raises(UnsupportedError, match="`x` is of string"):
        session(strings)
    made = helper.make_tensor_sequence_value_info("y", F, None)
    sequence = saved(tmp_path / "q.onnx", [helper.make_node("SequenceConstruct", ["x", "x"], ["y"])], [info("x", shape=[1])], [made])
    with pytest.raises(UnsupportedError, match="`y` has the type"):
        session(sequence)


def test_a_broken_file(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x08\x08 nonsense")
    with pytest.raises(InputError):
        session(tmp_path / "m.onnx")


def branchy(path: Path) -> Path:
    """Weights, a sequence, an If that reads an outer value, a node of two outputs, and one nobody reads."""
    then = helper.make_graph([helper.make_node("Add", ["r", "w"], ["t"])], "t", [], [info("t")])
    other = helper.make_graph([helper.make_node("Sub", ["r", "w"], ["e"])], "e", [], [info("e")])
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("If", ["flag"], ["i"], then_branch=then, else_branch=other),
        helper.make_node("SequenceConstruct", ["i", "i"], ["q"]),
        helper.make_node("SequenceAt", ["q", "at"], ["s"]),
        helper.make_node("Split", ["s"], ["one", "two"], axis=0),
        helper.make_node("Neg", ["one"], ["unread"]),
        helper.make_node("Mul", ["one", "two"], ["y"]),
    ]
    inputs = [info("x", shape=["n"]), info("flag", TensorProto.BOOL, [])]
    return saved(path, nodes, inputs, [info("y")], [weight("w", np.float32([1])), weight("at", np.int64(1))])


@pytest.mark.parametrize("at_once", [1, 2, 64])
def test_steps_are_every_value_in_order(at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime_graph, "_FIRST_STEPS", at_once)
    monkeypatch.setattr(onnxruntime_graph, "_GROWTH", 1)
    feeds = {"x": np.float32([-1, 2, 3, 4]), "flag": np.array(True)}
    steps = list(session(branchy(tmp_path / "m.onnx")).steps(feeds))
    assert [(step.name, step.operator, step.inputs) for step in steps] == [
        ("r", "Relu", ("x",)),
        ("i", "If", ("flag", "r", "w")),
        ("q", "SequenceConstruct", ("i",)),
        ("s", "SequenceAt", ("q", "at")),
        ("one", "Split", ("s",)),
        ("two", "Split", ("s",)),
        ("unread", "Neg", ("one",)),
        ("y", "Mul", ("one", "two")),
    ]
    values = {step.name: None if step.value is None else step.value.tolist() for step in steps}
    assert values == {
        "r": [0, 2, 3, 4], "i": [1, 3, 4, 5], "q": None, "s": [1, 3, 4, 5], "one": [1, 3], "two": [4, 5], "unread": [-1, -3], "y": [4, 15],
    }  # fmt: skip


def test_steps_go_around_what_cannot_be_computed(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Reshape", ["a", "shape"], ["broken"]),
        helper.make_node("Neg", ["broken"], ["after"]),
        helper.make_node("Neg", ["a"], ["beside"]),
    ]
    file = saved(tmp_path / "m.onnx", nodes, [info("x", shape=["n"])], [info("after"), info("beside")], [weight("shape", np.int64([5]))])
    steps = {step.name: step.value for step in session(file).steps({"x": np.ones(3, np.float32)})}
    assert list(steps) == ["a", "broken", "after", "beside"]
    assert steps["broken"] is None and steps["after"] is None and steps["beside"].tolist() == [-1, -1, -1]


def test_external_data_and_bfloat16_inside(tmp_path: Path) -> None:
    array = np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16)
    narrow = helper.make_tensor("w", TensorProto.BFLOAT16, array.shape, array.view(np.uint16).tobytes(), raw=True)
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.BFLOAT16),
        helper.make_node("MatMul", ["h", "w"], ["m"]),
        helper.make_node("Cast", ["m"], ["y"], to=F),
    ]
    file = saved(tmp_path / "m.onnx", nodes, [info("x", shape=["n", 2])], [info("y", shape=["n", 3])], [narrow])
    onnx.save(onnx.load(file), file, save_as_external_data=True, location="m.data", size_threshold=0)
    opened = session(file)
    feeds = {"x": np.ones((1, 2), np.float32)}
    assert opened.run(feeds)["y"].tolist() == [[3, 5, 7]]
    assert {step.name: step.value for step in opened.steps(feeds)}["m"].tolist() == [[3, 5, 7]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.data", "m.onnx"]
