"""What a quantisation is said to take on disk, against what lies there when most does: just before anything is removed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from ernie_cli import host, nano, route
from ernie_cli.checkpoint.carry import PAPERS_BYTES
from ernie_cli.errors import ResourceError, UnsupportedError
from ernie_cli.quant import quantize
from ernie_cli.quant.options import Options
from ernie_cli.quant.plan import plan


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model as an ONNX folder."""
    options = route.Options(verify=False)
    return route.convert(nano.path(), to="onnx", out=tmp_path_factory.mktemp("nano") / "onnx", options=options).path


#: Beside it, what is measured at the end needs the float model, too.
BRIEF = {"measure": False, "samples": 4}


@pytest.mark.parametrize(
    ("source", "scheme", "given"),
    [
        ("checkpoint", "int4", BRIEF),
        ("checkpoint", "int8-weight", {"samples": 4}),
        ("checkpoint", "int8", BRIEF),
        ("checkpoint", "int4", {**BRIEF, "method": "awq", "random_calibration": True}),
        ("checkpoint", "int4", {**BRIEF, "method": "gptq", "random_calibration": True}),
        ("onnx", "int4", {**BRIEF, "mix": "auto"}),
        ("onnx", "int8", BRIEF),
        ("onnx", "fp8", {**BRIEF, "smooth": "off"}),
        ("onnx", "int8-kv", BRIEF),
    ],
    ids=["streamed", "measured", "converted and smoothed", "awq", "gptq", "mixed", "smoothed", "calibrated", "cache"],
)
def test_what_is_foreseen_is_what_is_taken(source, scheme, given, onnx, tmp_path, peak):
    todo = plan(nano.path() if source == "checkpoint" else onnx, to=scheme, out=tmp_path / "out", options=Options(**given))
    quantize.run(todo)
    print(f"{scheme} of a {source}: {todo.bytes_needed / 1e6:.2f} MB foreseen, {peak() / 1e6:.2f} MB taken")
    assert peak() <= todo.bytes_needed <= 1.4 * peak() + PAPERS_BYTES


@pytest.mark.parametrize("given", [{"method": "gptq", "random_calibration": True}, {"max_drop": "50%"}], ids=["gptq", "max-drop"])
def test_what_waits_beside_a_larger_model_is_counted(given, tmp_path, peak):
    """Six matrices, 57 MB: more than what papers are allowed hides."""
    from onnx import TensorProto, helper, numpy_helper, save

    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.standard_normal((1536, 1536), dtype=np.float32) / 40, f"w{at}") for at in range(6)]
    nodes = [helper.make_node("MatMul", [f"x{at}", f"w{at}"], [f"x{at + 1}"], name=f"mm{at}") for at in range(6)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1536]) for name in ("x0", "x6")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    (tmp_path / "source").mkdir()
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), tmp_path / "source" / "model.onnx")
    before = peak()
    options = Options(measure=False, samples=2, random_calibration=True, **{k: v for k, v in given.items() if k != "random_calibration"})
    todo = plan(tmp_path / "source" / "model.onnx", to="int4", out=tmp_path / "out", options=options)
    quantize.run(todo)
    assert peak() - before <= todo.bytes_needed


def test_what_is_carried_is_counted_in_every_folder(tmp_path, tmp_path_factory, peak):
    source = tmp_path_factory.mktemp("heavy") / "hf"
    shutil.copytree(nano.path(), source)
    (source / "notes.txt").write_bytes(bytes(8_000_000))
    for at, (scheme, given) in enumerate((("int8", {}), ("int4", {"method": "awq", "random_calibration": True}))):
        todo = plan(source, to=scheme, out=tmp_path / str(at), options=Options(**BRIEF, **given))
        before = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
        quantize.run(todo)
        assert peak() - before <= todo.bytes_needed


@pytest.mark.parametrize("scheme", ["int4", "int8"])
def test_what_is_quantised_already_is_said_by_the_plan(scheme, onnx, tmp_path):
    made = quantize.quantize(onnx, "int8-weight", tmp_path / "made", Options(measure=False))
    with pytest.raises(UnsupportedError, match="it is quantised already"):
        plan(made.path, to=scheme, out=tmp_path / "out")


def test_a_disk_too_small_is_said_before_any_work(onnx, tmp_path, monkeypatch):
    needed = plan(onnx, to="int4", out=tmp_path / "out").bytes_needed
    monkeypatch.setattr(host, "disk_free", lambda path: needed - 1)
    with pytest.raises(ResourceError, match=r"are needed, .* are free"):
        plan(onnx, to="int4", out=tmp_path / "out")
    monkeypatch.setattr(host, "disk_free", lambda path: needed)
    assert plan(onnx, to="int4", out=tmp_path / "out").bytes_needed == needed
    assert not any(tmp_path.iterdir())
