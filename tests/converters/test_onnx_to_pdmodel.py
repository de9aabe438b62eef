"""ONNX models built as Paddle programs: round trips, operators against ONNX's own tests, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from ernie_cli.converters import onnx_to_pdmodel, pdmodel_to_onnx
from onnx import TensorProto, helper, numpy_helper
from paddle_nodes import cases
from paddle_programs import feeds, programs

from ernie_cli.app import main
from ernie_cli.model import Model
from ernie_cli.pdmodel.child import Child
from ernie_cli.route import Options
from ernie_cli.runtime.graphs import open_graph


def difference(one: Path, other: Path) -> float:
    """The largest relative difference between the outputs at two sizes; names, shapes and types must be the same."""
    sessions = [open_graph(Model.open(path)) for path in (one, other)]
    worst = 0.0
    for batch, length in ((2, 40), (1, 33)):
        given = feeds(sessions[0].inputs, batch, length)
        want, got = (session.run(given) for session in sessions)
        assert {n: (v.shape, v.dtype) for n, v in got.items()} == {n: (v.shape, v.dtype) for n, v in want.items()}
        worst = max(worst, *(relative(got[name], value) for name, value in want.items()))
    for session in sessions:
        session.close()
    return worst


def relative(got: np.ndarray, want: np.ndarray) -> float:
    largest = float(np.abs(want.astype("f8")).max(initial=1e-9))
    return float(np.abs(got.astype("f8") - want.astype("f8")).max(initial=0.0)) / largest


@pytest.mark.parametrize("name", ["typed", "encoder", "gru", "detector", "segmenter"])
def test_there_and_back(name: str, tmp_path: Path) -> None:
    source = programs() / "pir" / name
    model = Model.open(source)
    for edge in (pdmodel_to_onnx, onnx_to_pdmodel):
        out = tmp_path / edge.__name__
        out.mkdir()
        model = edge.convert(model, out, Options())
    assert sorted(path.name for path in model.path.iterdir())[:2] == ["ernie.json", "model.json"]
    assert difference(source, model.path) < 1e-4


def test_steps_have_the_names_of_the_onnx_model(tmp_path: Path) -> None:
    file = save(tmp_path, [helper.make_node("Relu", ["x"], ["inner value"]), helper.make_node("Neg", ["inner value"], ["y"])])
    session = open_graph(built(file, tmp_path))
    steps = {step.name: step.operator for step in session.steps({"x": np.ones((1, 3), np.float32)})}
    session.close()
    assert steps["inner value"] == "pd_op.relu" and "y" in steps


def save(
    folder: Path, nodes: list[onnx.NodeProto], kind: int = TensorProto.FLOAT, inputs: tuple[str, ...] = ("x",), opset: int = 17
) -> Path:
    """An ONNX file with these nodes, inputs [batch, 3] and the output `y`."""
    given = [helper.make_tensor_value_info(name, kind, ["batch", 3]) for name in inputs]
    graph = helper.make_graph(nodes, "one", given, [helper.make_tensor_value_info("y", kind, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, str(folder / "source.onnx"))
    return folder / "source.onnx"


def built(file: Path, folder: Path) -> Model:
    (folder / "out").mkdir()
    return onnx_to_pdmodel.convert(Model.open(file), folder / "out", Options())


def test_half_precision_is_computed_wider_where_there_is_no_cuda(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.arange(9, dtype=np.float16).reshape(3, 3), "w")
    file = save(tmp_path, [helper.make_node("MatMul", ["x", "w"], ["y"])], TensorProto.FLOAT16)
    proto = onnx.load(str(file))
    proto.graph.initializer.append(weight)
    onnx.save(proto, str(file))
    session = open_graph(built(file, tmp_path))
    found = session.run({"x": np.ones((2, 3), np.float16)})["y"]
    session.close()
    assert found.dtype == np.float16 and found.tolist() == [[9, 12, 15]] * 2
    assert (tmp_path / "out" / "model.pdiparams").stat().st_size < 100  # the weights are stored as they were


def test_an_input_that_nothing_needs_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = built(save(tmp_path, [helper.make_node("Relu", ["x"], ["y"])], inputs=("x", "unused")), tmp_path)
    session = open_graph(model)
    session.close()
    assert [spec.name for spec in session.inputs] == ["x"]
    assert "no output depends on the inputs unused" in capsys.readouterr().err


def test_names_are_never_run_as_code(tmp_path: Path) -> None:
    name = f"x = open({str(tmp_path / 'gotcha')!r}, 'w')"
    file = save(
        tmp_path, [helper.make_node("Relu", [name], ["a\nimport os"]), helper.make_node("Neg", ["a\nimport os"], ["y"])], inputs=(name,)
    )
    session = open_graph(built(file, tmp_path))
    assert session.run({name: np.ones((1, 3), np.float32)})["y"].tolist() == [[-1, -1, -1]]
    session.close()
    assert not (tmp_path / "gotcha").exists()


def test_operators_without_a_mapping_are_named_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = [helper.make_node("Det", ["x"], ["a"]), helper.make_node("STFT", ["x", "s"], ["b"]), helper.make_node("Relu", ["x"], ["y"])]
    nodes.insert(0, helper.make_node("Constant", [], ["s"], value_int=1))
    nodes[-1].input[0] = "b"
    nodes[2].input[0] = "a"
    file = save(tmp_path, nodes)
    assert main(["convert", str(file), "--to", "pdmodel", "-o", str(tmp_path / "out"), "--no-verify"]) == 4
    said = capsys.readouterr().err
    assert "Det" in said and "STFT" in said and not (tmp_path / "out").exists()


#: Every how manieth of ONNX's node tests runs here. All of them: `python tests/converters/paddle_nodes.py`.
EVERY = 9


def test_onnx_own_node_tests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is not refused computes what ONNX says."""
    with Child() as child:
        results = child.call("paddle_nodes:run", folders=cases()[::EVERY], scratch=str(tmp_path))
    wrong = {name: said for name, said in results.items() if said.startswith("wrong")}
    passed = sum(said == "passed" for said in results.values())
    with capsys.disabled():
        print(f"\nonnx → pdmodel: {passed} of {len(results)} of ONNX's node tests pass, {len(results) - passed} are refused")
    assert not wrong
    assert passed > 0.75 * len(results)
