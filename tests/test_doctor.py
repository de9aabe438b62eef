"""`ernie doctor`: always exit code 0, and every gap comes with the command that closes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from ernie_cli import app, doctor
from ernie_cli.doctor import Package


def packages(**versions: str | None) -> dict[str, Package]:
    """Packages by module; the unnamed ones are absent."""
    return {
        module: Package(module, names[0], versions.get(module), doctor.EXTRAS.get(module, ""))
        for module, names in doctor._DISTRIBUTIONS.items()
    }


def runtime(**changes: object) -> dict[str, Package]:
    facts = {"module": "onnxruntime", "distribution": "onnxruntime", "version": "1.31.1", "extra": "cpu", "providers": ("CPU",), **changes}
    return {**packages(), "onnxruntime": Package(**facts)}  # type: ignore[arg-type]


def test_report_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "processor" in out and "memory" in out and version("onnxruntime") in out
    assert all(len(line) <= 200 and line == line.rstrip() for line in out.splitlines()), "no folded or padded lines in a pipe"


def test_report_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["memory"]["total"] > 0 and found["cpu"]["cores"] >= 1 and found["disks"]
    by_module = {package["module"]: package for package in found["packages"]}
    assert by_module["onnxruntime"]["version"] == version("onnxruntime") and "CPU" in by_module["onnxruntime"]["providers"]
    assert by_module["onnx"]["version"] == version("onnx")


def test_every_command_is_judged() -> None:
    judged = {ability.command for ability in doctor.abilities(packages(), gpu="")}
    assert judged == set(app.COMMANDS) - {"doctor", "devices"}


def test_nothing_heavy_is_imported() -> None:
    code = "import sys; from ernie_cli.app import main; main(['doctor']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "paddle", "tensorrt", "onnx", "huggingface_hub"} & set(done.stderr.split())


@pytest.mark.parametrize(
    ("found", "gpu", "status", "enable"),
    [
        (packages(), "", "missing", "pip install 'ernie-cli[cpu]'"),
        (runtime(), "", "ok", ""),
        (runtime(), "NVIDIA L4", "limited", "pip uninstall -y onnxruntime && pip install 'ernie-cli[gpu]'"),
        (runtime(providers=("CUDA", "CPU")), "NVIDIA L4", "ok", ""),
        (runtime(problem="ImportError: libcudart.so.13"), "", "missing", "pip install --force-reinstall onnxruntime"),
    ],
    ids=["bare", "cpu", "gpu idle", "gpu", "broken"],
)
def test_run(found: dict[str, Package], gpu: str, status: str, enable: str) -> None:
    ability = {ability.command: ability for ability in doctor.abilities(found, gpu)}["run"]
    assert (ability.status, ability.enable) == (status, enable)


@pytest.mark.parametrize(
    ("found", "gpu", "why"),
    [
        (packages(), "", "no library"),
        (packages(tensorrt="10.13.3"), "", "no library"),
        (packages(tensorrt="10.13.3", tensorrt_rtx_bindings="1.7.1"), "", "TensorRT-RTX 1.7.1"),
        (packages(tensorrt="10.13.3", tensorrt_rtx_bindings="1.7.1"), "NVIDIA L4", "TensorRT 10.13.3"),
    ],
    ids=["bare", "no GPU for it", "rtx", "gpu"],
)
def test_build(found: dict[str, Package], gpu: str, why: str) -> None:
    ability = {ability.command: ability for ability in doctor.abilities(found, gpu)}["build"]
    assert why in ability.why and (ability.status == "ok" or "[rtx]" in ability.enable)


def test_convert_without_a_runtime_says_that_it_cannot_check() -> None:
    ability = {ability.command: ability for ability in doctor.abilities(packages(), "")}["convert"]
    assert ability.status == "limited" and "--no-verify" in ability.why and "[cpu]" in ability.enable


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (runtime(also=("onnxruntime-gpu",)), "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'ernie-cli[cpu]'"),
        (packages(paddle2onnx="2.1.0", onnx="1.23.2"), "pip install 'onnx>=1.16.1,<=1.17'"),
        (packages(paddle2onnx="2.1.0", onnx="1.17.0"), None),
        (packages(onnx="1.23.2"), None),
        (runtime(), None),
    ],
    ids=["two runtimes", "newer onnx", "pinned onnx", "no paddle2onnx", "one runtime"],
)
def test_conflicts(found: dict[str, Package], said: str | None) -> None:
    warnings = list(doctor.conflicts(tuple(found.values())))
    assert (not warnings) if said is None else (len(warnings) == 1 and said in warnings[0])


def test_a_broken_runtime_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libfoo.so.1: cannot open shared object file')\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-m", "ernie_cli", "doctor"], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0 and "libfoo.so.1" in done.stdout and "Traceback" not in done.stderr
