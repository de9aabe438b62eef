"""TorchScript → ONNX: ONNX Runtime on the exported graph against the eager module, at several sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
import torch
from onnx import TensorProto, helper
from onnx import save as onnx_save
from torchscript_models import module, save

from ernie_cli import route
from ernie_cli.errors import ErnieError, InputError, UnsupportedError, UsageError
from ernie_cli.model import Model
from ernie_cli.runtime.graphs import TensorSpec
from ernie_cli.runtime.onnxruntime import create_session
from ernie_cli.torchscript import export
from ernie_cli.torchscript.arrays import flatten, to_array, to_tensor
from ernie_cli.torchscript.free import Free, Moved, rigid
from ernie_cli.torchscript.load import load
from ernie_cli.torchscript.signature import signature

BATCH, TEXT, PICTURE = {"batch": 3}, {"batch": 3, "length": 9}, {"batch": 3, "height": 31, "width": 40}
#: model, --input, shapes of the ONNX inputs, sizes to run at beside the original ones, tolerance
TABLE: list[tuple[str, tuple[str, ...], list[list[Any]], dict[str, int], float]] = [
    ("mlp", (), [["batch", 8]], BATCH, 1e-5),
    ("cnn", (), [["batch", 3, "height", "width"]], PICTURE, 1e-5),
    ("cnn_traced", (), [["batch", 3, 24, 24]], BATCH, 1e-5),
    ("cnn_frozen", (), [["batch", 3, "height", "width"]], PICTURE, 1e-5),
    ("lstm", (), [["batch", "length"]], TEXT, 1e-5),
    ("flow", (), [["batch", 6]], BATCH, 1e-5),
    ("mixed", (), [["batch", 5], ["batch", 5]], BATCH, 1e-5),
    ("half", (), [["batch", 8]], BATCH, 1e-2),
    ("unused", (), [["batch", 3], ["batch", 3]], BATCH, 1e-6),
    ("bert", (), [["batch", 7], ["batch", 7]], BATCH, 1e-5),
    ("bert", ("input_ids:int64:batchxlength", "attention_mask:int64:batchxlength"), [["batch", "length"]] * 2, TEXT, 1e-5),
    ("vit", (), [["batch", 3, 32, 32]], BATCH, 1e-5),
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("torchscript")
    return lambda name: folder / f"{name}.pt" if (folder / f"{name}.pt").exists() else save(name, folder / f"{name}.pt")


def converted(file: Path, out: Path, **options: Any) -> Model:
    return route.convert(file, to="onnx", out=out, options=route.Options(**options))


def resized(inputs: tuple[torch.Tensor, ...], specs: list[dict[str, Any]], sizes: dict[str, int]) -> list[torch.Tensor]:
    """The inputs cut or repeated to other lengths."""
    found = []
    for tensor, spec in zip(inputs, specs, strict=True):
        for axis, name in enumerate(spec["shape"]):
            length = sizes.get(name, tensor.shape[axis])
            tensor = tensor.index_select(axis, torch.arange(length) % tensor.shape[axis])
        found.append(tensor)
    return found


@pytest.mark.parametrize(
    ("name", "given", "shapes", "sizes", "tolerance"), TABLE, ids=[f"{row[0]}{'-open' * bool(row[1])}" for row in TABLE]
)
def test_onnxruntime_computes_what_torch_computes(
    saved: Callable[[str], Path],
    tmp_path: Path,
    name: str,
    given: tuple[str, ...],
    shapes: list[list[Any]],
    sizes: dict[str, int],
    tolerance: float,
) -> None:
    made = converted(saved(name), tmp_path / "onnx", input_specs=given)
    assert [entry["shape"] for entry in made.manifest["inputs"]] == shapes
    assert all(check["passed"] for check in made.manifest["checks"])
    session, _ = create_session(made.main_file(), "cpu")
    eager, inputs = module(name)
    for tensors in (list(inputs), resized(inputs, made.manifest["inputs"], sizes)):
        with torch.no_grad():
            result = eager(*tensors)
        expected = dict(flatten(dict(result) if hasattr(result, "keys") else result))
        assert [value.name for value in session.get_outputs()] == list(expected)
        feeds = {entry["name"]: to_array(tensor) for entry, tensor in zip(made.manifest["inputs"], tensors, strict=True)}
        for got, want in zip(session.run(None, feeds), expected.values(), strict=True):
            assert got.dtype == to_array(want).dtype
            np.testing.assert_allclose(got.astype(float), to_array(want).astype(float), rtol=tolerance, atol=tolerance)


def test_weights_keep_their_names(saved: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("mlp", "bert"):  # bert gives a dict, and is exported from within a wrapper
        graph = onnx_ir.load(converted(saved(name), tmp_path / name, simplify=False).main_file()).graph
        state = module(name)[0].state_dict()
        assert set(graph.initializers) & set(state)
        assert not [value for value in graph.initializers if value.startswith("ernie_inner")]


def test_all_unsupported_operators_are_named_at_once(
    saved: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = ("x:float32:Nx4x4",)
    with pytest.raises(UnsupportedError) as caught:
        converted(saved("strange"), tmp_path / "onnx", input_specs=given)
    for operator in ("aten::linalg_svd", "aten::special_entr", "aten::i0"):
        assert operator in caught.value.message
    assert "torchscript_models.py:" in caught.value.message
    assert "graph(" not in capfd.readouterr().out  # the exporter's own chatter
    assert not (tmp_path / "onnx").exists()
    uses = route.coverage(route.plan(saved("strange"), to="onnx", out=tmp_path / "onnx"))
    assert sorted(use.operator for use in uses if not use.how) == ["aten::i0", "aten::linalg_svd", "aten::special_entr"]


@pytest.mark.parametrize("name", ["cnn", "lstm", "flow", "bert"])
def test_coverage_refuses_nothing_that_converts(saved: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    uses = route.coverage(route.plan(saved(name), to="onnx", out=tmp_path / "onnx"))
    assert uses and all(use.how and use.nodes for use in uses)


@pytest.mark.parametrize(
    ("options", "error", "says", "hint"),
    [
        ({}, UsageError, "does not tell dtype and shape of `x`", "--input x:"),
        ({"input_specs": ("y:float32:2",)}, UsageError, "no such input", "the inputs are x"),
        ({"input_specs": ("x:float32:5",)}, UsageError, "does not run with x:float32:5", "--input x:float32:5"),
        ({"opset": 99}, UsageError, "opsets", "--opset"),
    ],
)
def test_what_cannot_be_known_is_asked_for(
    saved: Callable[[str], Path], tmp_path: Path, options: dict[str, Any], error: type[ErnieError], says: str, hint: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        converted(saved("strange"), tmp_path / "onnx", **options)
    assert hint in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_an_axis_that_the_module_does_not_leave_open_is_fixed(tmp_path: Path) -> None:
    class Rigid(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(12, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x.reshape(1, 12))

    torch.jit.trace(Rigid(), torch.randn(1, 3, 4)).save(str(tmp_path / "rigid.pt"))
    made = converted(tmp_path / "rigid.pt", tmp_path / "onnx")
    assert made.manifest["inputs"][0]["shape"] == [1, 3, 4]
    assert made.manifest["checks"][0]["fixed"] == {"batch": 1}


def test_lengths_that_the_exporter_must_know_are_asked_for(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.AdaptiveAvgPool2d(4)).eval()
    torch.jit.script(net).save(str(tmp_path / "pooled.pt"))
    with pytest.raises(UnsupportedError, match="cannot write this module") as caught:
        converted(tmp_path / "pooled.pt", tmp_path / "onnx")
    typed = caught.value.hint.partition("--input ")[2]
    assert typed.endswith(":batchx3x32x32")
    made = converted(tmp_path / "pooled.pt", tmp_path / "onnx", input_specs=(typed,))
    assert made.manifest["inputs"][0]["shape"] == ["batch", 3, 32, 32]


def test_an_axis_that_the_exported_graph_does_not_follow_is_noticed(saved: Callable[[str], Path], tmp_path: Path) -> None:
    """The graph here is written by hand: it reshapes to a constant, which is how exporters fix an axis."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 8]) for name in "xy")
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [2, 8])
    graph = helper.make_graph([helper.make_node("Reshape", ["x", "shape"], ["y"])], "fixed", [x], [y], [shape])
    onnx_save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "fixed.onnx")
    model = Model.open(saved("mlp"))
    told = signature(model, *load(saved("mlp")))
    spec = TensorSpec("x", "float32", ("batch", 8))
    axes = Free((spec,), {"batch": 2}, [(2, 8)], {"batch": Moved({"batch": 3}, [(3, 8)])}, {})
    assert export._stuck(tmp_path / "fixed.onnx", axes, told, ["y"]) == ("batch",)
    assert rigid(axes, ("batch",)).specs == (TensorSpec("x", "float32", (2, 8)),)


def test_an_opset_that_was_asked_for(saved: Callable[[str], Path], tmp_path: Path) -> None:
    assert onnx_ir.load(converted(saved("mlp"), tmp_path / "onnx", opset=13).main_file()).opset_imports[""] == 13


def test_a_state_dict_is_no_source(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(InputError, match="without TorchScript code"):
        converted(tmp_path / "weights.pt", tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_optional_inputs_are_taken_where_they_are_named(saved: Callable[[str], Path], tmp_path: Path) -> None:
    made = converted(saved("flow"), tmp_path / "onnx", input_specs=("scale:float32:6",))
    session, _ = create_session(made.main_file(), "cpu")
    eager, (x,) = module("flow")
    scale = np.linspace(-1, 1, 6, dtype=np.float32)
    with torch.no_grad():
        expected = eager(x, to_tensor(scale)).numpy()
    np.testing.assert_allclose(session.run(None, {"x": x.numpy(), "scale": scale})[0], expected, rtol=1e-5, atol=1e-6)
