"""`ernie convert` as a script or makefile meets it: plans, repeats, refusals and exit codes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from forks import ernie
from kills import Kills

from ernie_cli.app import main


def convert(*words: object) -> int:
    return main(["convert", *map(str, words)])


def test_json_is_one_object_with_the_record(checkpoint, tmp_path, capsys):
    folder, _ = checkpoint()
    assert convert(folder, "--to", "onnx", "-o", tmp_path / "o", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    check = result["checks"][0]
    assert check["passed"] is True
    assert check["prefill"]["max_rel"] <= 1e-4
    assert check["cached decode"]["max_rel"] <= 1e-4
    assert result["made_from"]["format"] == "hf"
    assert result["files"]["model.onnx"]["size"] == (tmp_path / "o" / "model.onnx").stat().st_size


def test_a_second_identical_run_does_nothing(checkpoint, tmp_path, capsys):
    folder, _ = checkpoint()
    out = tmp_path / "o"
    assert convert(folder, "--to", "onnx", "-o", out) == 0
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert convert(folder, "--to", "onnx", "-o", out) == 0
    assert "up to date" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


@pytest.mark.parametrize("change", ["--force", "--dtype=fp16", "the source", "a file lost"])
def test_what_makes_it_work_again(change, checkpoint, tmp_path, capsys):
    folder, _ = checkpoint()
    out = tmp_path / "o"
    assert convert(folder, "--to", "onnx", "-o", out) == 0
    before = (out / "ernie.json").stat().st_mtime_ns
    if change == "the source":
        checkpoint(seed=1)
    if change == "a file lost":
        (out / "model.onnx").unlink()
    assert convert(folder, "--to", "onnx", "-o", out, *([change] if change.startswith("--") else [])) == 0
    assert "up to date" not in capsys.readouterr().err
    assert (out / "ernie.json").stat().st_mtime_ns > before


def test_dry_run_plans_and_writes_nothing(checkpoint, tmp_path, capsys):
    folder, _ = checkpoint()
    assert convert(folder, "--to", "onnx", "-o", tmp_path / "o", "--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["route"] == ["hf_to_onnx"]
    assert plan["bytes_needed"] > 500_000
    assert not (tmp_path / "o").exists()


def test_only_standard_operators_and_no_second_copy_of_tied_weights(checkpoint, tmp_path):
    folder, _ = checkpoint()
    for kv_cache, opset in (("static", 24), ("growing", 23)):
        assert convert(folder, "--to", "onnx", "--kv-cache", kv_cache, "-o", tmp_path / kv_cache) == 0
        graph = onnx.load(tmp_path / kv_cache / "model.onnx")
        assert {(entry.domain, entry.version) for entry in graph.opset_import} == {("", opset)}
        assert {node.domain for node in graph.graph.node} == {""}
        assert [t.name for t in graph.graph.initializer if 320 in t.dims] == ["model.embed_tokens.weight"]
        newest = onnx.defs.onnx_opset_version()
        if newest >= opset:  # onnx 1.17 knows opset 22 at most
            onnx.checker.check_model(graph, full_check=True)


def test_large_models_keep_their_weights_beside_the_graph(checkpoint, tmp_path):
    folder, _ = checkpoint(vocab_size=200_000, hidden_size=96)
    assert convert(folder, "--to", "onnx", "-o", tmp_path / "o") == 0
    assert (tmp_path / "o" / "model.onnx.data").stat().st_size > 70_000_000
    assert (tmp_path / "o" / "model.onnx").stat().st_size < 1_000_000


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nowhere", "--to", "onnx"], 3, "no such file or folder"),
        (["{hf}", "--to", "hf"], 2, "is hf already"),
        (["{hf}", "--to", "engine"], 2, "engine"),
        (["{hf}", "--to", "onnx", "-o", "{hf}/inside"], 2, "inside each other"),
        (["{hf}", "--to", "onnx", "-o", "{mine}"], 2, "not made by ernie"),
        (["{hf}"], 2, "--to"),
    ],
)
def test_refusals(words, code, said, checkpoint, tmp_path, capsys, monkeypatch):
    folder, _ = checkpoint()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    monkeypatch.chdir(tmp_path)
    assert convert(*(word.format(hf=folder, mine=mine) for word in words)) == code
    assert said in capsys.readouterr().err
    assert (mine / "thesis.txt").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "mine"]


def _truncate(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", (folder / "model.safetensors").stat().st_size // 2)


def _poison(folder: Path) -> None:
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-4:] = np.float32(np.nan).tobytes()
    file.write_bytes(data)


def _config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (_truncate, 3),
        (_poison, 3),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), 3),
        (lambda folder: (folder / "config.json").write_text("{"), 3),
        (lambda folder: (folder / "config.json").unlink(), 3),
        (lambda folder: _config(folder, hidden_size=128), 3),
        (lambda folder: _config(folder, model_type="llama"), 4),
        (lambda folder: _config(folder, model_type="ernie4_5_moe"), 4),
    ],
)
def test_broken_input_is_one_clear_line_and_leaves_nothing(damage, code, checkpoint, tmp_path, capsys):
    folder, _ = checkpoint()
    damage(folder)
    assert convert(folder, "--to", "onnx", "-o", tmp_path / "o") == code
    said = capsys.readouterr().err.strip().splitlines()
    assert [line.split(":")[0] for line in said if line.startswith(("error", "hint"))] == ["error", "hint"]
    assert "Traceback" not in "\n".join(said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf"]


def test_no_space_is_known_before_work(checkpoint, tmp_path, capsys, monkeypatch):
    folder, _ = checkpoint()
    monkeypatch.setattr("ernie_cli.host.disk_free", lambda path: 1000)
    assert convert(folder, "--to", "onnx", "-o", tmp_path / "o") == 7
    assert "free" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_kill_at_random_moments_never_leaves_half_a_model(checkpoint, tmp_path):
    """`kill -9` on twenty working processes; after each, the output is absent or whole, and the same command then succeeds."""
    folder, _ = checkpoint(vocab_size=15_000, hidden_size=128, num_hidden_layers=4)
    out, partial = tmp_path / "o", tmp_path / "o.partial"
    words = ["convert", str(folder), "--to", "onnx", "-o", str(out), "--force", "-q"]
    command = [sys.executable, "-m", "ernie_cli", *words]
    subprocess.run(command, check=True, capture_output=True)
    assert ernie(*words).wait() == 0  # loads the libraries
    start = time.monotonic()
    assert ernie(*words).wait() == 0
    kills = Kills(time.monotonic() - start)
    wanted = json.loads((out / "ernie.json").read_text())["files"]
    while kills.landed < 20:
        if kills.landed % 2:  # every second time with nothing there before
            shutil.rmtree(out, ignore_errors=True)
        # From its first moment on, or from when it begins to write.
        kills.strike(ernie(*words), begun=lambda: kills.landed < 5 or partial.exists())
        if out.exists():
            assert json.loads((out / "ernie.json").read_text())["files"] == wanted
            assert all((out / name).stat().st_size == facts["size"] for name, facts in wanted.items())
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert json.loads((out / "ernie.json").read_text())["files"] == wanted
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "o"]


def test_a_missing_checker_is_known_before_work(checkpoint, tmp_path, capsys, monkeypatch):
    folder, _ = checkpoint()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # what an install without [cpu] looks like to `import`
    assert convert(folder, "--to", "onnx", "-o", tmp_path / "o") == 5
    assert "ernie-cli[cpu]" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf"]
    assert convert(folder, "--to", "onnx", "--no-verify", "-o", tmp_path / "o") == 0
