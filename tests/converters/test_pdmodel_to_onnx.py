"""Paddle programs exported to ONNX: the same numbers, names and axes; what cannot be exported is told at once."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import onnx
import pytest
from ernie_cli.converters import pdmodel_to_onnx
from paddle_programs import feeds, programs

from ernie_cli.app import main
from ernie_cli.errors import UsageError
from ernie_cli.model import Model
from ernie_cli.route import Options
from ernie_cli.runtime.graphs import open_graph


def exported(name: str, out: Path, **options: object) -> Model:
    out.mkdir()
    return pdmodel_to_onnx.convert(Model.open(programs() / name), out, Options(**options))  # type: ignore[arg-type]


def difference(one: Path, other: Path) -> float:
    """The largest relative difference between the outputs at two sizes; names, shapes and types must be the same."""
    sessions = [open_graph(Model.open(path)) for path in (one, other)]
    worst = 0.0
    for batch, length in ((2, 40), (1, 33)):
        given = feeds(sessions[0].inputs, batch, length)
        want, got = (session.run(given) for session in sessions)
        assert {n: (v.shape, v.dtype) for n, v in got.items()} == {n: (v.shape, v.dtype) for n, v in want.items()}
        worst = max(worst, *(relative(got[name], value) for name, value in want.items()))
    for session in sessions:
        session.close()
    return worst


def relative(got: np.ndarray, want: np.ndarray) -> float:
    largest = float(np.abs(want.astype("f8")).max(initial=1e-9))
    return float(np.abs(got.astype("f8") - want.astype("f8")).max(initial=0.0)) / largest


@pytest.mark.parametrize("name", ["pir/lstm", "pir/crnn", "pir/strict", "legacy/shufflenet"])
def test_the_numbers_are_the_same_at_other_sizes(name: str, tmp_path: Path) -> None:
    made = exported(name, tmp_path / "out")
    assert difference(programs() / name, made.path) < 1e-5


def test_axes_stay_dynamic_and_have_names(tmp_path: Path) -> None:
    proto = onnx.load(str(exported("pir/encoder", tmp_path / "out").main_file()))
    axes = {value.name: [dim.dim_param for dim in value.type.tensor_type.shape.dim] for value in proto.graph.input}
    assert axes == {"ids": ["batch", "dim1"], "mask": ["batch", "dim1"]}


def test_the_opset_is_told_and_can_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = exported("pir/mlp", tmp_path / "out")
    assert onnx.load(str(made.main_file())).opset_import[0].version == pdmodel_to_onnx.OPSET
    assert f"using opset {pdmodel_to_onnx.OPSET} (the newest" in capsys.readouterr().err
    chosen = exported("pir/mlp", tmp_path / "older", opset=14)
    assert onnx.load(str(chosen.main_file())).opset_import[0].version == 14
    with pytest.raises(UsageError, match="opsets 7 to 21"):
        exported("pir/mlp", tmp_path / "no", opset=30)


def test_every_operator_without_a_mapping_is_named_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(programs() / "pir/unmapped"), "--to", "onnx", "-o", str(tmp_path / "out")]) == 4
    said = capsys.readouterr().err
    assert all(operator in said for operator in ("pd_op.svd", "pd_op.lgamma", "pd_op.inverse", "pd_op.digamma"))
    assert list(tmp_path.iterdir()) == []


def test_check_lists_every_operator(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    uses = pdmodel_to_onnx.coverage(Model.open(programs() / "pir/detector"), Options())
    assert {use.operator: use.how for use in uses}["pd_op.multiclass_nms3"] == "paddle2onnx multiclass_nms3"
    assert all(use.how for use in uses)
    legacy = pdmodel_to_onnx.coverage(Model.open(programs() / "legacy/shufflenet"), Options())
    assert legacy and all(use.how and use.nodes for use in legacy)


def test_nothing_is_installed(cold_start: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pip that leaves a mark stands where any pip would be looked for."""
    mark, folder = tmp_path / "called", tmp_path / "bin"
    folder.mkdir()
    for name in ("pip", "pip3", "python", "python3", "uv", "conda"):
        (folder / name).write_text(f"#!/bin/sh\necho $0 $@ >> {mark}\nexit 1\n")
        (folder / name).chmod(stat.S_IRWXU)
    (folder / "pip.py").write_text(f"open({str(mark)!r}, 'a').write('module')\n")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.syspath_prepend(str(folder))
    exported("pir/mlp", tmp_path / "out")
    assert not mark.exists()


@pytest.mark.parametrize("damage", ["truncated", "another"])
def test_damaged_parameters_are_one_line_and_leave_nothing(damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = Path(shutil.copytree(programs() / "pir/encoder", tmp_path / "model"))
    data = (source / "model.pdiparams").read_bytes()[:-9]
    (source / "model.pdiparams").write_bytes(data if damage == "truncated" else (programs() / "pir/lstm/model.pdiparams").read_bytes())
    assert main(["convert", str(source), "--to", "onnx", "-o", str(tmp_path / "out")]) == 3
    said = capsys.readouterr().err.strip().splitlines()
    assert [line.split(":")[0] for line in said] == ["error", "hint"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_whole_command(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["convert", str(programs() / "pir/detector"), "--to", "onnx", "-o", str(out)]) == 0
    manifest = json.loads((out / "ernie.json").read_text())
    assert manifest["main"] == "model.onnx" and manifest["checks"][0]["passed"]
    assert sorted(path.name for path in out.iterdir()) == ["ernie.json", "model.onnx"]
