"""What a quantisation is said to take on disk, against what lies there when most does: just before anything is removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ernie_cli import host, nano, route
from ernie_cli.errors import ResourceError
from ernie_cli.quant import disk, quantize
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
    assert peak() <= todo.bytes_needed <= 1.4 * peak() + disk.PAPERS_BYTES


def test_a_disk_too_small_is_said_before_any_work(onnx, tmp_path, monkeypatch):
    needed = plan(onnx, to="int4", out=tmp_path / "out").bytes_needed
    monkeypatch.setattr(host, "disk_free", lambda path: needed - 1)
    with pytest.raises(ResourceError, match=r"are needed, .* are free"):
        plan(onnx, to="int4", out=tmp_path / "out")
    monkeypatch.setattr(host, "disk_free", lambda path: needed)
    assert plan(onnx, to="int4", out=tmp_path / "out").bytes_needed == needed
    assert not any(tmp_path.iterdir())
