"""What the generated TorchScript holds to: open axes, constants as weights, names that lead back, all or nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graphs import converted, parsed, same, written

from ernie_cli.coverage import refuse
from ernie_cli.errors import UnsupportedError
from ernie_cli.route import Options
from ernie_cli.torchscript import from_onnx
from ernie_cli.torchscript.emit import alive
from ernie_cli.torchscript.module import NAMES
from ernie_cli.torchscript.names import Names
from ernie_cli.torchscript.node import literal

#: The shape arithmetic that exporters write for x.view(batch, length, 2, -1).transpose(1, 2).
HEADS = """agraph (float[B, T, 8] x) => (float[B, 2, T, 4] y) {
    shape = Shape(x)
    zero = Constant<value = int64 {0}>()
    one = Constant<value = int64 {1}>()
    batch = Gather<axis = 0>(shape, zero)
    length = Gather<axis = 0>(shape, one)
    at = Constant<value = int64[1] {0}>()
    b = Unsqueeze(batch, at)
    t = Unsqueeze(length, at)
    two = Constant<value = int64[1] {2}>()
    rest = Constant<value = int64[1] {-1}>()
    wanted = Concat<axis = 0>(b, t, two, rest)
    apart = Reshape(x, wanted)
    y = Transpose<perm = [0, 2, 1, 3]>(apart)
}"""


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def test_lengths_stay_open_and_are_ints(tmp_path: Path) -> None:
    module = same(HEADS, tmp_path, *({"x": floats(b, t, 8)} for b, t in ((1, 1), (2, 5), (3, 17))))
    assert "torch.cat" not in module.code, "shapes are followed as ints, not computed as tensors"


def test_a_shape_that_only_the_run_knows(tmp_path: Path) -> None:
    text = "agraph (float[A, B] x, int64[K] shape) => (float[C, D, E] y) { y = Reshape(x, shape) }"
    same(text, tmp_path, *({"x": floats(4, 6), "shape": np.array(shape)} for shape in ([0, 3, -1], [2, 2, 6])))


@pytest.mark.parametrize("dtype", ["float", "float16", "double", "int32"])
def test_types_are_kept(tmp_path: Path, dtype: str) -> None:
    text = f"agraph ({dtype}[N] x) => ({dtype}[N] y, {dtype}[N] z) {{ y = Add(x, x) \n z = Div(y, x) }}"
    array = (floats(7) * 10 + 40).astype({"float": "float32", "double": "float64"}.get(dtype, dtype))
    same(text, tmp_path, {"x": array}, rtol=1e-3 if dtype == "float16" else 1e-6)


def test_bfloat16_weights_stay_bfloat16(tmp_path: Path) -> None:
    text = "agraph (bfloat16[N] x) => (bfloat16[N] y) <bfloat16[1] w = {16320}> { y = Mul(x, w) }"  # the bits of 1.5
    module = converted(text, tmp_path)
    assert module.state_dict()["w"].dtype == torch.bfloat16
    assert module(torch.tensor([2.0], dtype=torch.bfloat16)).tolist() == [3.0]


def test_a_model_without_our_code(tmp_path: Path) -> None:
    """A plain process with torch alone loads and runs the archive, helpers of ours included."""
    converted("agraph (float[N, N] x, int64[A, B] at) => (float[A, B] y) { y = GatherElements<axis = 0>(x, at) }", tmp_path)
    code = (
        "import sys, torch; m = torch.jit.load(sys.argv[1]); print(m(torch.eye(3), torch.tensor([[-1, 1, 2]])).tolist());"
        "assert not any(name.startswith('ernie') for name in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-c", code, str(tmp_path / "out" / "model.pt")], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[[0.0, 1.0, 1.0]]"


def test_names_lead_back_to_the_onnx_values(tmp_path: Path) -> None:
    import onnx

    names = ("in.put:0", "mid/dle.1", "y")
    nodes = [onnx.helper.make_node("Exp", names[:1], names[1:2]), onnx.helper.make_node("Neg", names[1:2], names[2:])]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(nodes, "g", [value(names[0], 1, ["N"])], [value("y", 1, ["N"])])
    converted(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), tmp_path)
    extra = {NAMES: ""}
    module = torch.jit.load(str(tmp_path / "out" / "model.pt"), _extra_files=extra)
    values = json.loads(extra[NAMES])
    found = {output.debugName().split(".")[0] for node in module.inlined_graph.nodes() for output in node.outputs()}
    assert values["mid_dle_1"] == ["mid/dle.1", "Exp"]
    assert "mid_dle_1" in found


def test_everything_unsupported_is_told_at_once(tmp_path: Path) -> None:
    text = """<ir_version: 9, opset_import: ["" : 18, "acme.ops" : 1]>
    agraph (float[N] x) => (float[N] y, float[N] z) {
        a = acme.ops.Magic(x)
        y = acme.ops.Trick(a)
        z = Exp(x)
    }"""
    uses = from_onnx.coverage(written(parsed(text), tmp_path), Options())
    assert {use.operator: bool(use.how) for use in uses} == {"Exp": True, "acme.ops::Magic": False, "acme.ops::Trick": False}
    with pytest.raises(UnsupportedError, match=r"Magic.*Trick"):
        refuse(uses, "onnx_to_torchscript")


def test_local_functions_and_function_operators_are_expanded(tmp_path: Path) -> None:
    text = """<ir_version: 9, opset_import: ["" : 18, "local" : 1]>
    agraph (float[N] x) => (float[N] y) { y = local.twice <times = 3.0> (x) }
    <domain: "local", opset_import: ["" : 18]>
    twice <times> (a) => (c) { f = Constant<value_float: float = @times>() \n c = Mul(a, f) }"""
    same(parsed(text), tmp_path, {"x": floats(5)})


def test_weights_in_another_file(tmp_path: Path) -> None:
    import onnx

    weight = np.arange(4096, dtype=np.float32).reshape(64, 64) / 4096
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node], "g", [value("x", 1, ["N", 64])], [value("y", 1, ["N", 64])], [onnx.numpy_helper.from_array(weight, "w")]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    (tmp_path / "in").mkdir()
    onnx.save(model, str(tmp_path / "in" / "model.onnx"), save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "out").mkdir()
    from ernie_cli.model import Model

    from_onnx.convert(Model.open(tmp_path / "in"), tmp_path / "out", Options())
    module = torch.jit.load(str(tmp_path / "out" / "model.pt"))
    np.testing.assert_array_equal(module.state_dict()["w"].numpy(), weight)


def test_names_are_identifiers_and_taken_once() -> None:
    names = Names()
    assert [names.new(wish) for wish in ("a.b", "a/b", "1", "for", "torch", "op_x", "")] == [
        "a_b",
        "a_b_2",
        "v_1",
        "for_2",
        "torch_2",
        "v_op_x",
        "v",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1, "1"), (True, "True"), (None, "None"), (float("-inf"), 'float("-inf")'), ([1, [2.5]], "[1, [2.5]]"), (np.array([1, 2]), "[1, 2]")],
)
def test_literals(value: Any, text: str) -> None:
    assert literal(value) == text


def test_lines_whose_results_nothing_uses_are_left_out() -> None:
    lines = ["    a = x", "    b = a + 1", "    if c:", "        d = a", "    return a"]
    assert alive(lines) == ["    a = x", "    if c:", "        d = a", "    return a"]
