"""SIGTERM and SIGHUP, as from a supervisor, a container's end or a closed terminal: what is half done is put away, and they are told."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tiny_checkpoint import make_checkpoint

from ernie_cli import nano

ERNIE = (sys.executable, "-m", "ernie_cli")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that takes a second or two to convert and check."""
    make_checkpoint(folder := tmp_path_factory.mktemp("wide") / "hf", hidden_size=1024, intermediate_size=4096, vocab_size=16384)
    return folder


def end(command: list[str], sign: Path, number: signal.Signals) -> tuple[int, str]:
    """Run it, send the signal as soon as `sign` is there; (exit code, stderr)."""
    process = subprocess.Popen([*ERNIE, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not sign.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_conversion_leaves_nothing(number, wide, tmp_path):
    code, said = end(["convert", str(wide), "--to", "onnx", "-o", str(tmp_path / "out")], tmp_path / "out.partial", number)
    assert code == 128 + number and "error: terminated" in said and "Traceback" not in said
    assert not any(tmp_path.iterdir())


def test_a_build_leaves_nothing_and_no_process(tmp_path):
    pytest.importorskip("tensorrt_rtx_bindings", reason="needs the TensorRT-RTX wheels: pip install 'ernie-cli[rtx]'")
    command = ["build", str(nano.path()), "--device", "rtx4090", "--no-verify", "-o", str(tmp_path / "out")]
    code, said = end(command, tmp_path / "out.partial" / "build.log", signal.SIGTERM)
    assert code == 143 and "error: terminated" in said and "Traceback" not in said
    assert not any(tmp_path.iterdir())
    assert not [each for each in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(each.info["cmdline"] or ())]


def test_who_has_them_ignored_is_not_ended(tmp_path):
    """nohup."""
    command = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *ERNIE, "convert", str(nano.path()), "--to", "onnx", "-o", str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (tmp_path / "out.partial").exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 0 and (tmp_path / "out" / "ernie.json").is_file()
