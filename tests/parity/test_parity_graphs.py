"""Right conversions pass and say what was tried; sizes, names, types and numbers that are not the source's do not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import parity_nets as nets
import pytest
from onnx import TensorProto, helper
from parity_doubles import attribute, drop_bias, edited, nudge

from ernie_cli import console
from ernie_cli.errors import UsageError
from ernie_cli.model import Model
from ernie_cli.parity import bisect, graphs, table
from ernie_cli.route import Options

NETS = [nets.mlp, nets.cnn, nets.transformer, nets.lstm]


def check(source: Path, made: Path, **options: object) -> dict[str, object]:
    return graphs.check(Model.open(source), Model.open(made), Options(**options), name="onnx → onnx")


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.__name__)
def test_a_model_is_itself(net, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = net(tmp_path / "a" / "model.onnx")
    record = check(file, file)
    assert record["passed"] and record["against"] == ["onnxruntime (cpu)"] * 2
    assert [case["case"] for case in record["cases"]][:3] == ["typical", "typical, other numbers", "minimum"]
    assert all(output["max_rel"] == 0 and not output["problems"] for output in record["outputs"].values())
    assert record["limits"]["precision"] == "fp32" and record["seconds"] >= 0 and record["peak_memory_mb"] > 0
    assert json.loads(json.dumps(record)) == record
    console.result(table.render(record))
    assert "passed" in capsys.readouterr().out


def test_every_dynamic_axis_has_a_run_of_its_own(tmp_path: Path) -> None:
    file = nets.cnn(tmp_path / "model.onnx")
    assert {case["case"]: tuple(case["sizes"].values()) for case in check(file, file)["cases"]} == {
        "typical": (2, 64, 64),
        "typical, other numbers": (2, 64, 64),
        "minimum": (1, 32, 32),
        "batch of one": (1, 64, 64),
        "another batch": (3, 64, 64),
        "another height": (2, 97, 64),
        "another width": (2, 64, 97),
    }


def simple(path: Path, *nodes: object, weights: dict[str, np.ndarray] | None = None, inputs: object = None, outputs: object = None) -> Path:
    """A graph of `x` [n, 4] → `y` [n, 4] unless told otherwise."""
    net = nets.Net()
    net.nodes = list(nodes)
    for name, array in (weights or {}).items():
        net.constant(name, array)
    return net.save(path, inputs or [nets.value("x", "n", 4)], outputs or [nets.value("y", "n", 4)])


def node(operator: str, inputs: str, output: str, **attributes: object) -> object:
    return helper.make_node(operator, inputs.split(), [output], name=output, **attributes)


def test_a_lost_dynamic_axis(tmp_path: Path) -> None:
    """The usual way to lose a batch: a traced size in a Reshape."""
    source = simple(tmp_path / "a.onnx", node("Relu", "x", "r"), node("Neg", "r", "y"))
    shape = {"shape": np.array([2, 4])}
    made = simple(tmp_path / "b.onnx", node("Relu", "x", "r"), node("Reshape", "r shape", "s"), node("Neg", "s", "y"), weights=shape)
    with pytest.raises(graphs.ParityError, match=r"does not take x \[1, 4\] \(minimum\), which the source takes") as caught:
        check(source, made)
    assert caught.value.exit_code == 6
    assert [each["case"] for each in caught.value.record["refused"]] == ["minimum", "another n"]


def test_sizes_that_the_source_refuses_are_dropped_with_a_note(tmp_path: Path) -> None:
    weights = {"shape": np.array([2, 4])}
    source = simple(tmp_path / "a.onnx", node("Reshape", "x shape", "r"), node("Neg", "r", "y"), weights=weights)
    record = check(source, source)
    assert {case["sizes"]["n"] for case in record["cases"]} == {2}
    assert "the source refuses n=3" in record["notes"]


PICTURES = {"inputs": [nets.value("x", "n", 3, "h", "w")], "outputs": [nets.value("y", "n", 3, 1, 1)]}


def test_small_pictures_that_the_target_alone_refuses_prove_nothing(tmp_path: Path) -> None:
    """A pool wider than the picture: ONNX Runtime may make something of it, others refuse it. Larger pictures of any size pass."""
    source = simple(tmp_path / "a.onnx", node("GlobalAveragePool", "x", "y"), **PICTURES)
    nodes = [node("MaxPool", "x", "p", kernel_shape=[40, 40]), node("GlobalAveragePool", "p", "g"), node("Mul", "g zero", "z")]
    nodes += [node("GlobalAveragePool", "x", "a"), node("Add", "a z", "y")]
    made = simple(tmp_path / "b.onnx", *nodes, weights={"zero": np.float32(0)}, **PICTURES)
    record = check(source, made)
    assert record["passed"] and record["refused"] == []
    assert record["notes"] == ["minimum says nothing: the target takes larger pictures of any size, this small one it refuses"]


def test_sizes_at_which_the_source_computes_on_nothing_prove_nothing(tmp_path: Path) -> None:
    weights = {"from": np.array([32]), "to": np.array([9999]), "axis": np.array([2]), "axes": np.array([2, 3]), "none": np.int64(0)}
    cut = [node("Slice", "x from to axis", "cut"), node("ReduceSum", "cut axes", "sum")]
    source = simple(tmp_path / "a.onnx", *cut, node("Identity", "sum", "y"), weights=weights, **PICTURES)
    odd = [node("Size", "cut", "size"), node("Equal", "size none", "empty"), node("Cast", "empty", "one", to=TensorProto.FLOAT)]
    record = check(source, simple(tmp_path / "b.onnx", *cut, *odd, node("Add", "sum one", "y"), weights=weights, **PICTURES))
    assert "minimum says nothing: `cut` is empty in the source" in record["notes"]


def test_a_source_that_takes_nothing_asks_for_inputs(tmp_path: Path) -> None:
    source = simple(tmp_path / "a.onnx", node("Reshape", "x shape", "y"), weights={"shape": np.array([1711, 4])})
    with pytest.raises(UsageError, match="takes none of the inputs") as caught:
        check(source, source)
    assert "--inputs" in caught.value.hint


def test_inputs_and_outputs_of_other_names_are_paired_in_order(tmp_path: Path) -> None:
    source = simple(tmp_path / "a.onnx", node("Relu", "x", "y"))
    made = simple(tmp_path / "b.onnx", node("Relu", "x.1", "9"), inputs=[nets.value("x.1", "n", 4)], outputs=[nets.value("9", "n", 4)])
    record = check(source, made)
    assert record["notes"] == ["inputs are paired by their order: x = x.1", "outputs are paired by their order: y = 9"]


def test_a_missing_output(tmp_path: Path) -> None:
    both = [nets.value("y", "n", 4), nets.value("z", "n", 4)]
    source = simple(tmp_path / "a.onnx", node("Relu", "x", "y"), node("Neg", "x", "z"), outputs=both)
    with pytest.raises(graphs.ParityError, match="outputs are not the source's"):
        check(source, simple(tmp_path / "b.onnx", node("Relu", "x", "y")))


def test_a_target_that_does_not_open(tmp_path: Path) -> None:
    source = simple(tmp_path / "a.onnx", node("Relu", "x", "y"))
    with pytest.raises(graphs.ParityError, match="does not open"):
        check(source, edited(source, tmp_path / "b.onnx", lambda graph: graph.node[0].input.append("nothing")))


def test_another_integer_width_is_a_note_another_value_a_failure(tmp_path: Path) -> None:
    ends = {"inputs": [nets.value("x", "n", 4)], "outputs": [nets.value("y", "n", 1, dtype=nets.INT64)]}
    source = simple(tmp_path / "a.onnx", node("ArgMax", "x", "y", axis=1), **ends)
    narrow = {**ends, "outputs": [nets.value("y", "n", 1, dtype=TensorProto.INT32)]}
    nodes = node("ArgMax", "x", "i", axis=1), node("Cast", "i", "y", to=TensorProto.INT32)
    assert "output `y` is int32 where the source's is int64" in check(source, simple(tmp_path / "b.onnx", *nodes, **narrow))["notes"]
    with pytest.raises(graphs.ParityError, match="integers must be equal"):
        check(source, simple(tmp_path / "c.onnx", node("ArgMin", "x", "y", axis=1), **ends))


def test_nan_in_both_is_noted_in_the_target_alone_refused(tmp_path: Path) -> None:
    root = simple(tmp_path / "a.onnx", node("Sqrt", "x", "y"))
    assert any("NaN" in note for note in check(root, root)["notes"])
    positive = simple(tmp_path / "b.onnx", node("Abs", "x", "a"), node("Sqrt", "a", "y"))
    with pytest.raises(graphs.ParityError, match=r"NaN where the source has none.*`a` \(Abs\)"):
        check(positive, root)


def test_saturated_outputs_get_other_inputs(tmp_path: Path) -> None:
    """Where every input is driven into one corner, an error in the weights before it does not show."""
    weights = {"w": np.full(4, 2, np.float32), "b": np.float32(-20)}
    nodes = node("Mul", "x w", "m"), node("Add", "m b", "shifted"), node("Relu", "shifted", "y")
    source = simple(tmp_path / "a.onnx", *nodes, weights=weights)
    record = check(source, source)
    assert "typical, inputs × 10" in [case["case"] for case in record["cases"]]
    made = edited(source, tmp_path / "b.onnx", nudge("w", 2, 1.0))
    with pytest.raises(graphs.ParityError):
        check(source, made)


def test_constant_outputs_are_noted(tmp_path: Path) -> None:
    source = simple(tmp_path / "a.onnx", node("Mul", "x zero", "y"), weights={"zero": np.zeros(4, np.float32)})
    assert any("hardly depends on the inputs" in note for note in check(source, source)["notes"])


def test_tolerances_of_the_user(tmp_path: Path) -> None:
    source = nets.mlp(tmp_path / "a.onnx")
    made = edited(source, tmp_path / "b.onnx", nudge("fc3.bias", 2, 1e-2))
    for options in ({"atol": ("0.02",)}, {"rtol": ("y=0.1",)}):
        record = check(source, made, **options)
        assert record["passed"] and "own" in record["limits"]
    for options in ({}, {"atol": ("1e-3",)}, {"rtol": ("1e-6",)}):
        with pytest.raises(graphs.ParityError):
            check(source, made, **options)
    with pytest.raises(UsageError, match="no output named `z`"):
        check(source, made, atol=("z=1",))


def test_inputs_of_the_user(tmp_path: Path) -> None:
    source = nets.mlp(tmp_path / "a.onnx")
    np.savez(tmp_path / "in.npz", x=np.ones((7, 16), np.float32))
    record = check(source, source, inputs_file=str(tmp_path / "in.npz"))
    assert [case["shapes"] for case in record["cases"]] == [{"x": [7, 16]}]
    np.savez(tmp_path / "in.npz", z=np.ones((7, 16), np.float32))
    with pytest.raises(UsageError, match="no array for `x`"):
        check(source, source, inputs_file=str(tmp_path / "in.npz"))


def test_input_specs_pin_an_axis(tmp_path: Path) -> None:
    source = nets.cnn(tmp_path / "a.onnx")
    record = check(source, source, input_specs=("pixels:float32:Nx3x48x40",))
    assert {tuple(case["shapes"]["pixels"][2:]) for case in record["cases"]} == {(48, 40)}
    assert {case["shapes"]["pixels"][0] for case in record["cases"]} == {1, 2, 3}


@pytest.mark.parametrize("wide", [np.float16, np.float64])
def test_other_precisions(wide: type, tmp_path: Path) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(wide))
    ends = {"inputs": [nets.value("x", "n", 4, dtype=kind)], "outputs": [nets.value("y", "n", 4, dtype=kind)]}
    weights = {"w": np.random.default_rng(0).standard_normal((4, 4)).astype(wide)}
    source = simple(tmp_path / "a.onnx", node("MatMul", "x w", "y"), weights=weights, **ends)
    record = check(source, source)
    assert record["limits"]["precision"] == {"float16": "fp16", "float64": "fp64"}[np.dtype(wide).name]
    with pytest.raises(graphs.ParityError):
        check(source, edited(source, tmp_path / "b.onnx", nudge("w", 1, 0.5)))


def test_a_float32_result_of_float16_weights_has_their_rounding(tmp_path: Path) -> None:
    weights = {"w": np.random.default_rng(0).standard_normal((4, 4)).astype(np.float16)}
    nodes = (
        node("Cast", "x", "h", to=TensorProto.FLOAT16),
        node("MatMul", "h w", "m"),
        node("Cast", "m", "y", to=TensorProto.FLOAT),
    )
    source = simple(tmp_path / "a.onnx", *nodes, weights=weights)
    wide = simple(tmp_path / "b.onnx", node("MatMul", "x w", "y"), weights={"w": weights["w"].astype(np.float32)})
    record = check(source, wide)
    assert record["passed"] and record["limits"]["precision"] == "fp16"


def test_a_bisection_that_breaks_does_not_hide_the_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(bisect, "trace", broken)
    source = nets.mlp(tmp_path / "a.onnx")
    with pytest.raises(graphs.ParityError, match="could not be found: ZeroDivisionError: oh"):
        check(source, edited(source, tmp_path / "b.onnx", drop_bias("fc2.bias")))


def test_large_constants_are_kept_beside_the_file(tmp_path: Path) -> None:
    """External data: the copy with every value as an output finds it, too."""
    source = nets.mlp(tmp_path / "a" / "model.onnx")
    made = edited(source, tmp_path / "b" / "model.onnx", attribute("y", transB=1, alpha=0.5))
    onnx.save(onnx.load(made), made, save_as_external_data=True, location="model.data", size_threshold=0)
    with pytest.raises(graphs.ParityError, match=r"`y` \(Gemm of `fc3.weight`, `fc3.bias`\)"):
        check(source, made)
