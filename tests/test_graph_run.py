"""`ernie run MODEL --inputs x.npz`: arrays in, arrays out, compared with reference ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ernie_cli.app import main


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """y = x + 1 and z = whether y > 0, for x float32 [n, 3]."""
    nodes = [helper.make_node("Add", ["x", "one"], ["y"]), helper.make_node("Greater", ["y", "zero"], ["z"])]
    constants = [helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]), helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0])]
    outputs = [helper.make_tensor_value_info("y", 1, ["n", 3]), helper.make_tensor_value_info("z", TensorProto.BOOL, ["n", 3])]
    graph = helper.make_graph(nodes, "net", [helper.make_tensor_value_info("x", 1, ["n", 3])], outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def run(net: Path, *words: object) -> int:
    return main(["run", str(net), *map(str, words)])


@pytest.mark.parametrize("named", [True, False], ids=["by name", "by order"])
def test_outputs_go_into_the_file(net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], named: bool) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3) - 4
    np.savez(tmp_path / "x.npz", x=x) if named else np.savez(tmp_path / "x.npz", x)
    assert run(net, "--inputs", tmp_path / "x.npz", "-o", tmp_path / "y.npz", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    found = np.load(tmp_path / "y.npz")
    assert (found["y"] == x + 1).all() and (found["z"] == (x + 1 > 0)).all()
    assert facts["backend"] == "onnxruntime" and facts["outputs"]["y"] == {
        "dtype": "float32", "shape": [2, 3], "not_finite": 0, "min": -3.0, "mean": -0.5, "max": 2.0,
    }  # fmt: skip


def test_a_reference_is_compared(net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 3), np.float32))
    np.savez(tmp_path / "same.npz", y=np.ones((2, 3), np.float32))
    np.savez(tmp_path / "other.npz", y=np.full((2, 3), 1.5, np.float32))
    assert run(net, "--inputs", tmp_path / "x.npz", "--reference", tmp_path / "same.npz") == 0
    assert capsys.readouterr().out.splitlines()[1].split()[-1] == "ok"
    assert run(net, "--inputs", tmp_path / "x.npz", "--reference", tmp_path / "other.npz", "--json") == 0
    assert json.loads(capsys.readouterr().out)["reference"]["y"]["max_abs"] == 0.5


@pytest.mark.parametrize(
    ("arrays", "words", "code", "said"),
    [
        ({"x": np.zeros((2, 3))}, (), 2, "float32 expected"),
        ({"x": np.zeros((2, 4), np.float32)}, (), 2, "[2, 4]"),
        ({"q": np.zeros((2, 3), np.float32)}, (), 2, "no array for `x`"),
        ({"x": np.zeros((2, 3), np.float32)}, ("-o", "/no/such/y.npz"), 2, "cannot write"),
        ({"x": np.zeros((2, 3), np.float32)}, ("--chat",), 2, "exclude each other"),
        ({"x": np.zeros((2, 3), np.float32)}, ("--reference", "absent.npz"), 3, "no such file"),
        ({"x": np.zeros((2, 3), np.float32)}, ("--backend", "fake"), 2, "no backend named"),
    ],
)
def test_what_does_not_fit_is_refused(
    net: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arrays: dict[str, np.ndarray],
    words: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    assert run(net, "--inputs", tmp_path / "x.npz", *words) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert [line.split(":")[0] for line in lines] == ["error", "hint"] and said in lines[0]
