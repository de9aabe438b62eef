"""What is written is what was there: one file where it is small, weights outside where it is not, every byte in the manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import close, mlp, model, run

from ernie_cli.onnxgraph import write
from ernie_cli.onnxgraph.load import load

X = {"x": np.ones((2, 4), np.float32)}


def listed(folder: Path) -> dict[str, dict[str, object]]:
    return {
        file.name: {"size": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for file in sorted(folder.iterdir())
    }


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("outside", [False, True])
def test_there_and_back(external: bool, outside: bool, saved: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if outside:
        monkeypatch.setattr(write, "EMBED_BYTES", 0)
        monkeypatch.setattr(write, "_INSIDE_BYTES", 100)
    path, out = saved(mlp(), external=external), tmp_path / "out"
    out.mkdir()
    files = write.save(load(path), out, "net.onnx")
    assert files == listed(out) and list(files) == (["net.onnx", "net.onnx.data"] if outside else ["net.onnx"])
    path.unlink()
    (tmp_path / "w.bin").unlink(missing_ok=True)
    close(run(out / "net.onnx", X), run(mlp().SerializeToString(), X), rtol=0, atol=0)
    load(out / "net.onnx")


def test_weights_in_constant_nodes_go_outside_too(saved: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Paddle's exporter writes them."""
    monkeypatch.setattr(write, "EMBED_BYTES", 0)
    array = np.random.default_rng(0).normal(size=(4, 600)).astype(np.float32)
    nodes = [helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(array)), helper.make_node("MatMul", ["x", "w"], ["y"])]
    path = saved(model(nodes, {"x": (TensorProto.FLOAT, ["n", 4])}, {"y": TensorProto.FLOAT}))
    (tmp_path / "out").mkdir()
    files = write.save(load(path), tmp_path / "out")
    assert files["model.onnx.data"]["size"] == array.nbytes
    close(run(tmp_path / "out/model.onnx", X), run(path, X), rtol=0, atol=0)
    assert not onnx.load(tmp_path / "out/model.onnx", load_external_data=False).graph.initializer[0].raw_data
