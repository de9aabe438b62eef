"""Parity of an engine: why it is not checked here, what it is compared with, and how the verdict reaches its papers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from engine_folders import edit, write_engine, write_graph
from onnx import TensorProto, helper, numpy_helper

from ernie_cli import nvml
from ernie_cli.app import main
from ernie_cli.engine import library, origin, verify
from ernie_cli.errors import InputError, MissingError, QualityError, UnsupportedError
from ernie_cli.model import Model, write_manifest
from ernie_cli.runtime import tensorrt_admission

RTX = library.find("tensorrt-rtx", gpu=False)


@pytest.fixture
def engine(tmp_path: Path) -> Model:
    return write_engine(tmp_path / "engine", version=RTX.version if RTX else "")


def capability(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.setattr(tensorrt_admission, "capability", lambda index=0: value)


def test_why_not(engine: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    capability(monkeypatch, None)
    assert verify.why_not(engine) == "no GPU here"
    capability(monkeypatch, "9.0")
    if RTX is None:
        assert verify.why_not(engine).endswith("is not installed here")
        return
    assert verify.why_not(engine) == "built for GPUs of compute capability 8.9, and this GPU's is 9.0"
    stripped = edit(engine.path, lambda told: told["engine"].update(flags=["STRIP_PLAN"]))
    assert verify.why_not(stripped) == "its weights were left out"
    refitted = edit(engine.path, lambda told: told["engine"].update(weights={"path": "x"}))
    assert "compute capability" in verify.why_not(refitted)


@pytest.mark.skipif(bool(nvml.read().gpus), reason="there is a GPU here")
def test_without_a_gpu_the_record_stays_as_it_is(engine: Model, capsys: pytest.CaptureFixture[str]) -> None:
    before = (engine.path / "ernie.json").read_bytes()
    with pytest.raises(MissingError, match="no GPU here"):
        verify.verify(engine.path)
    assert main(["build", "--verify", str(engine.path)]) == 5
    assert "cannot be verified here" in capsys.readouterr().err
    assert (engine.path / "ernie.json").read_bytes() == before


def test_damage_is_told_on_any_machine(engine: Model, capsys: pytest.CaptureFixture[str]) -> None:
    plan = engine.main_file()
    content = bytearray(plan.read_bytes())
    content[len(content) // 2] ^= 1
    plan.write_bytes(content)
    assert main(["build", "--verify", str(engine.path)]) == 3
    assert "sha256" in capsys.readouterr().err


def test_only_engines_are_verified(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="no engine"):
        verify.verify(write_graph(tmp_path / "onnx").path)


# --- what it was built from -------------------------------------------------------------------------------------------


def test_the_source_is_found_where_it_was(engine: Model) -> None:
    with origin.graph_of(engine) as graph:
        assert graph.path == engine.path.with_name("engine-onnx")


def test_the_source_is_found_beside_the_engine(engine: Model, tmp_path: Path) -> None:
    """Both were copied to the device."""
    there = tmp_path / "device"
    shutil.copytree(engine.path, there / "engine")
    shutil.move(tmp_path / "engine-onnx", there / "engine-onnx")
    with origin.graph_of(Model.open(there / "engine")) as graph:
        assert graph.path == there / "engine-onnx"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: shutil.rmtree(folder), "no such file"),
        (lambda folder: (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes() + b"\0\0"), "another size"),
        (lambda folder: (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:-1] + b"?"), "is another"),
    ],
)
def test_another_source_is_refused(engine: Model, change: Any, said: str) -> None:
    change(engine.path.with_name("engine-onnx"))
    with pytest.raises(InputError, match=said) as raised, origin.graph_of(engine):
        pass
    assert "copy it to" in raised.value.hint


def test_papers_without_digests_prove_nothing(engine: Model) -> None:
    bare = edit(engine.path, lambda told: told["engine"]["source"].update(files={}))
    with pytest.raises(InputError, match="no digests"), origin.graph_of(bare):
        pass


def test_after_a_refit_it_is_the_new_weights_graph(engine: Model, tmp_path: Path) -> None:
    from ernie_cli.model import fingerprint

    other = write_graph(tmp_path / "other")
    told = {"path": str(other.path), "format": "onnx", "fingerprint": fingerprint(other.path)}
    refitted = edit(engine.path, lambda papers: papers["engine"].update(weights=told))
    with origin.graph_of(refitted) as graph:
        assert graph.path == other.path
    (other.path / "model.onnx").write_bytes(b"another")
    with pytest.raises(InputError, match="any more"), origin.graph_of(refitted):
        pass


# --- the comparison of graph models, with another ONNX model in the engine's place ------------------------------------


def net(folder: Path, factor: float = 1.0, *, batch: int | str = "batch") -> Model:
    """x [batch, 3, H, W] → a convolution, mean of each picture → y [batch, 5]."""
    weight = numpy_helper.from_array(np.float32(factor) * np.random.default_rng(0).normal(size=(5, 3, 3, 3)).astype(np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("GlobalAveragePool", ["c"], ["p"])]
    nodes.append(helper.make_node("Flatten", ["p"], ["y"]))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", [batch, 3, "h", "w"]), ("y", [batch, 5]))
    ]
    folder.mkdir()
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "model.onnx")
    write_manifest(folder, format="onnx", precision="fp32", main="model.onnx")
    return Model.open(folder)


def with_profiles(model: Model, *profiles: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]) -> Model:
    """The model with the papers of an engine that takes these (least, best, most) of x."""
    told = [{"name": str(number), "inputs": {"x": [list(shape) for shape in each]}} for number, each in enumerate(profiles)]
    return edit(model.path, lambda papers: papers.update(engine={"profiles": told}))


def test_every_end_of_every_profile_is_compared(tmp_path: Path) -> None:
    small, best, large = (1, 3, 10, 12), (2, 3, 14, 14), (4, 3, 16, 18)
    made = with_profiles(net(tmp_path / "made"), (small, best, large), (best, best, best))
    record = verify.check(made, net(tmp_path / "source"))
    assert record["passed"] and record["edge"] == "onnx_to_engine"
    seen = [record, *record["at_other_shapes"]]
    assert [each["shapes"]["x"] for each in seen] == ["2x3x14x14", "1x3x10x12", "4x3x16x18"]
    assert all(case["shapes"]["x"] == [int(n) for n in each["shapes"]["x"].split("x")] for each in seen for case in each["cases"])


def test_a_model_of_fixed_shapes_is_compared_once(tmp_path: Path) -> None:
    made = edit(net(tmp_path / "made").path, lambda papers: papers.update(engine={"profiles": []}))
    assert "at_other_shapes" not in verify.check(made, net(tmp_path / "source"))


def test_another_model_is_not_the_same(tmp_path: Path) -> None:
    made = with_profiles(net(tmp_path / "made", factor=1.01), ((1, 3, 10, 12), (2, 3, 14, 14), (4, 3, 16, 18)))
    with pytest.raises(QualityError, match="output `y`"):
        verify.check(made, net(tmp_path / "source"))


# --- the verdict ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("passed", [True, False])
def test_the_verdict_takes_the_open_records_place(engine: Model, passed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run itself is a GPU's; what becomes of its record is not."""
    opened = [{"name": "other", "passed": True}, {"name": "parity", "passed": None, "why": "no GPU here"}]
    edit(engine.path, lambda told: told.update(checks=opened, made_by={"command": "build", "time": "then"}))
    before = json.loads((engine.path / "ernie.json").read_text())

    def check(made: Model, graph: Model) -> dict[str, Any]:
        assert graph.path == engine.path.with_name("engine-onnx")
        if not passed:
            raise QualityError("not the same model")
        return {"name": "parity", "passed": True}

    monkeypatch.setattr(verify, "why_not", lambda model: "")
    monkeypatch.setattr(verify, "check", check)
    if passed:
        assert verify.verify(engine.path).manifest["checks"][-1]["passed"] is True
    else:
        with pytest.raises(QualityError):
            verify.verify(engine.path)
    after = json.loads((engine.path / "ernie.json").read_text())
    assert [(each["name"], each["passed"]) for each in after.pop("checks")] == [("other", True), ("parity", passed)]
    assert after["made_by"]["time"] == "then"
    assert {**before, "checks": None, "made_by": None} == {**after, "checks": None, "made_by": None}
    Model.open(engine.path)


def test_limits_are_those_of_what_computes(tmp_path: Path) -> None:
    quantised = write_graph(tmp_path / "int8")  # activations too
    assert verify.precision_of(quantised) == "bf16"
    papers = {"precision": "int8-weight", "quantization": {"scheme": "int8-weight"}}
    assert verify.precision_of(edit(quantised.path, lambda told: told.update(papers))) == "fp16"
    assert verify.precision_of(net(tmp_path / "net")) == "fp32"
