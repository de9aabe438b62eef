"""Outputs of two graphs over a set of inputs, against the same figures of all arrays at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ernie_cli.errors import InputError, UsageError
from ernie_cli.evaluate import graphs
from ernie_cli.model import Model


def net(folder: Path, name: str, factor: float, *, output: str = "y", width: int = 4, repeat: int = 1) -> Model:
    """y = factor · x, repeated `repeat` times along the last axis."""
    nodes = [helper.make_node("Mul", ["x", "c"], ["m"]), helper.make_node("Concat", ["m"] * repeat, [output], axis=-1)]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])
    y = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", width * repeat])
    weights = [helper.make_tensor("c", TensorProto.FLOAT, [width], np.linspace(1, factor, width))]
    graph = helper.make_graph(nodes, "net", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / name)
    return Model.open(folder / name)


def draw(*rows: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((count, 4)).astype(np.float32)} for count in rows]


@pytest.mark.parametrize("rows", [(12,), (1,) * 12, (5, 7)])
def test_figures_are_those_of_all_samples_at_once(tmp_path: Path, rows: tuple[int, ...]) -> None:
    whole = np.random.default_rng(0).standard_normal((12, 4)).astype(np.float32)
    starts = np.cumsum([0, *rows])
    feeds = [{"x": whole[begin : begin + count]} for begin, count in zip(starts, rows, strict=False)]
    found = graphs.measure(net(tmp_path, "a.onnx", 2.0), net(tmp_path, "b.onnx", 1.5), feeds)["y"]
    want, got = (whole * np.linspace(1, factor, 4, dtype=np.float32) for factor in (2.0, 1.5))
    assert found["cosine"] == pytest.approx((want * got).sum() / np.linalg.norm(want) / np.linalg.norm(got), rel=1e-6)
    assert found["snr_db"] == pytest.approx(20 * np.log10(np.linalg.norm(want) / np.linalg.norm(want - got)), rel=1e-6)
    assert found["top1"] == (want.argmax(-1) == got.argmax(-1)).mean()
    assert found["max_abs"] == pytest.approx(np.abs(want - got).max()) and found["elements"] == 48 and found["not_finite"] == 0


def test_a_model_equals_itself(tmp_path: Path) -> None:
    same = net(tmp_path, "a.onnx", 2.0)
    found = graphs.measure(same, same, draw(3))["y"]
    assert found["snr_db"] is None and found["cosine"] == pytest.approx(1) and found["top1"] == 1 and found["max_abs"] == 0


def test_outputs_of_other_names_are_paired_by_order(tmp_path: Path) -> None:
    found = graphs.measure(net(tmp_path, "a.onnx", 2.0), net(tmp_path, "b.onnx", 2.0, output="z"), draw(3))
    assert list(found) == ["y"] and found["y"]["snr_db"] is None


@pytest.mark.parametrize("extreme", [0.0, 1e30])
def test_extremes(extreme: float) -> None:
    gap = graphs.Gap()
    gap.add(np.full((2, 3), extreme, np.float32), np.full((2, 3), extreme, np.float32))
    assert gap.as_dict()["cosine"] == pytest.approx(1) and gap.as_dict()["snr_db"] is None


def test_what_is_no_number_is_counted_apart() -> None:
    gap = graphs.Gap()
    gap.add(np.array([[1.0, np.nan, np.inf, 4.0]]), np.array([[1.0, np.nan, 2.0, np.nan]]))
    found = gap.as_dict()
    assert found["not_finite"] == 2 and found["snr_db"] is None and found["cosine"] == pytest.approx(1)


def test_zero_against_something() -> None:
    gap = graphs.Gap()
    gap.add(np.zeros((1, 3)), np.ones((1, 3)))
    assert gap.as_dict()["cosine"] == 0 and gap.as_dict()["snr_db"] < -1000


def test_models_that_do_not_belong_together(tmp_path: Path) -> None:
    a, wide = net(tmp_path, "a.onnx", 2.0), net(tmp_path, "wide.onnx", 2.0, repeat=2)
    with pytest.raises(UsageError, match=r"output `y`: .*a.onnx gives \[3, 4\], .*wide.onnx gives \[3, 8\]"):
        graphs.measure(a, wide, draw(3))
    more = helper.make_tensor_value_info("m", TensorProto.FLOAT, ["n", 4])
    proto = onnx.load(tmp_path / "a.onnx")
    proto.graph.output.append(more)
    onnx.save(proto, tmp_path / "two.onnx")
    with pytest.raises(UsageError, match=r"a.onnx has the outputs y; .*two.onnx has y, m"):
        graphs.measure(a, Model.open(tmp_path / "two.onnx"), draw(3))


def test_nothing_to_measure_on(tmp_path: Path) -> None:
    a = net(tmp_path, "a.onnx", 2.0)
    with pytest.raises(InputError, match="no data"):
        graphs.measure(a, a, [])


def narrow_matmul(folder: Path, kind: int, name: str) -> Model:
    """y = x · w with Q/DQ pairs of `kind` around both, scales 1/16."""
    nodes = []
    for value in ("x", "w"):
        nodes += [
            helper.make_node("QuantizeLinear", [value, "s", "z"], [f"{value}_q"]),
            helper.make_node("DequantizeLinear", [f"{value}_q", "s", "z"], [f"{value}_d"]),
        ]
    nodes.append(helper.make_node("MatMul", ["x_d", "w_d"], ["y"]))
    w = np.random.default_rng(1).standard_normal((4, 8)).astype(np.float32)
    weights = [
        helper.make_tensor("s", 1, [], [1 / 16]),
        helper.make_tensor("z", kind, [], [0]),
        helper.make_tensor("w", 1, [4, 8], w.ravel()),
    ]
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, ["n", width]) for end, width in (("x", 4), ("y", 8))]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), folder / name)
    return Model.open(folder / name)


def test_fp8_runs_where_the_runtime_has_no_arithmetic_for_it(tmp_path: Path) -> None:
    """onnxruntime makes operators of such pairs that it then refuses; see runtime/onnxruntime.py."""
    fp8 = narrow_matmul(tmp_path, TensorProto.FLOAT8E4M3FN, "fp8.onnx")
    int8 = narrow_matmul(tmp_path, TensorProto.INT8, "int8.onnx")
    assert graphs.measure(int8, fp8, draw(32))["y"]["cosine"] > 0.99
