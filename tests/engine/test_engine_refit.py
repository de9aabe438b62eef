"""New weights for an engine: who takes none, and on a GPU that they are in it afterwards."""

from __future__ import annotations

import onnx
import pytest
from engine_folders import edit, write_engine, write_graph
from onnx import numpy_helper
from test_engine_builder import mlp

from ernie_cli import device, nvml
from ernie_cli.engine import build, refit
from ernie_cli.engine.options import Options
from ernie_cli.errors import InputError, MissingError, UnsupportedError
from ernie_cli.model import Model

GPU = nvml.Driver("580.1", "13.0", (nvml.Gpu(0, "NVIDIA L4", None, "8.9", None, None),))


def takes_weights(folder) -> Model:
    made = write_engine(folder)
    return edit(folder, lambda told: told["engine"].update(flags=["REFIT"])) or made


def test_an_engine_built_without_it(tmp_path):
    engine = write_engine(tmp_path / "engine")
    with pytest.raises(UnsupportedError, match="without --refit") as caught:
        refit.refit(engine, write_graph(tmp_path / "other"), tmp_path / "out")
    assert "--refit" in caught.value.hint and not (tmp_path / "out").exists()


def test_weights_come_from_onnx(tmp_path):
    engine = takes_weights(tmp_path / "engine")
    with pytest.raises(UnsupportedError, match="weights come from an ONNX model"):
        refit.refit(engine, engine, tmp_path / "out")


@pytest.mark.skipif(bool(nvml.read().gpus), reason="says what is missing where there is no GPU")
def test_without_a_gpu(tmp_path):
    with pytest.raises(MissingError, match="on a GPU"):
        refit.refit(takes_weights(tmp_path / "engine"), write_graph(tmp_path / "other"), tmp_path / "out")


def test_a_damaged_plan_is_not_even_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(refit.nvml, "read", lambda: GPU)
    monkeypatch.setattr(refit, "answer", lambda *_: pytest.fail("the library was asked"))
    engine = takes_weights(tmp_path / "engine")
    engine.main_file().write_bytes(b"x" * engine.main_file().stat().st_size)
    pytest.importorskip("tensorrt_rtx_bindings", reason="needs the TensorRT-RTX wheels: pip install 'ernie-cli[rtx]'")
    with pytest.raises(InputError, match="sha256"):
        refit.refit(engine, write_graph(tmp_path / "other"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.gpu
@pytest.mark.parametrize("flag", ["refit", "strip_weights"])
def test_weights_are_exchanged(flag, tmp_path):
    """Not run here: there is no GPU. --strip-weights takes back the same weights only, --refit any."""
    graph = mlp(tmp_path / "m.onnx", rows=4)
    options = Options(effort=0, library="tensorrt-rtx", verify=False, **{flag: True})
    build.build(graph, device.AUTO, tmp_path / "engine", options)
    other = onnx.load(graph)
    if flag == "refit":
        other.graph.initializer[0].CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(other.graph.initializer[0]), "w"))
    onnx.save(other, tmp_path / "other.onnx")
    made = build.again(tmp_path / "engine", refit_from=tmp_path / "other.onnx", out=tmp_path / "out")
    assert made.manifest["checks"][0]["passed"] is True
    assert made.manifest["files"]["model.plan"] != Model.open(tmp_path / "engine").manifest["files"]["model.plan"]
