"""What a build is said to take on disk, against what lies there when most does: just before anything is removed."""

from __future__ import annotations

import pytest

from ernie_cli import host, nano, route
from ernie_cli.checkpoint.carry import PAPERS_BYTES
from ernie_cli.engine import build, plan
from ernie_cli.engine.options import Options
from ernie_cli.errors import ResourceError

pytest.importorskip("tensorrt_rtx_bindings", reason="needs the TensorRT-RTX wheels: pip install 'ernie-cli[rtx]'")


@pytest.mark.parametrize(("source", "precision"), [("hf", "fp16"), ("hf", "int8"), ("onnx", "fp16"), ("onnx", "int4"), ("onnx", None)])
def test_what_is_foreseen_is_what_is_taken(source, precision, tmp_path, tmp_path_factory, peak):
    """A graph made on the way goes away before the engine is written, where it was quantised."""
    model = nano.path()
    if source == "onnx":
        options = route.Options(dtype="fp32" if precision else "fp16", kv_cache="static", verify=False)
        model = route.convert(model, to="onnx", out=tmp_path_factory.mktemp("source") / "onnx", options=options).path
    todo = plan.plan(
        model, device="rtx4090", out=tmp_path / "out", options=Options(effort=0, verify=False, context=64, precision=precision)
    )
    build.run(todo)
    needed = todo.prediction.disk_bytes
    print(f"{precision} of {source}: {needed / 1e6:.2f} MB foreseen, {peak() / 1e6:.2f} MB taken")
    assert peak() <= needed <= 1.3 * peak() + PAPERS_BYTES


def test_a_disk_too_small_is_said_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "disk_free", lambda path: 1_000_000)
    with pytest.raises(ResourceError, match=r"are needed while it is built, 1\.0 MB are free"):
        plan.plan(nano.path(), device="rtx4090", out=tmp_path / "out")
    assert not any(tmp_path.iterdir())
