"""Which library is taken and why, and what each is known to lack."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from importlib import util

import pytest

from ernie_cli import nvml
from ernie_cli.engine import library
from ernie_cli.engine.library import Library
from ernie_cli.engine.options import Options
from ernie_cli.errors import MissingError, UnsupportedError

RTX = Library("tensorrt-rtx", "tensorrt_rtx_bindings", "1.7.1.116", False)
FULL = Library("tensorrt", "tensorrt", "11.3.0.20", True)
NO_GPU = nvml.Driver(problem="no NVIDIA driver: NVML Shared Library Not Found")
GPU = nvml.Driver("580.1", "13.0", (nvml.Gpu(0, "NVIDIA L4", None, "8.9", None, None),))


@pytest.mark.parametrize(
    ("wanted", "installed", "driver", "name", "why"),
    [
        ("auto", ("tensorrt-rtx",), NO_GPU, "tensorrt-rtx", "builds without a GPU"),
        ("auto", ("tensorrt", "tensorrt-rtx"), NO_GPU, "tensorrt-rtx", "builds without a GPU"),
        ("auto", ("tensorrt", "tensorrt-rtx"), GPU, "tensorrt", "NVIDIA L4"),
        ("auto", ("tensorrt-rtx",), GPU, "tensorrt-rtx", "not installed"),
        ("tensorrt-rtx", ("tensorrt", "tensorrt-rtx"), GPU, "tensorrt-rtx", "--engine-library"),
        ("tensorrt", ("tensorrt", "tensorrt-rtx"), GPU, "tensorrt", "--engine-library"),
    ],
)
def test_choice(wanted, installed, driver, name, why, monkeypatch):
    here(monkeypatch, installed, driver)
    chosen, reason = library.choose(wanted)
    assert chosen.name == name and why in reason
    assert chosen.gpu is bool(driver.gpus)


@pytest.mark.parametrize(
    ("wanted", "installed", "driver", "hint"),
    [
        ("auto", (), NO_GPU, "ernie-cli[rtx]"),
        ("auto", ("tensorrt",), NO_GPU, "ernie-cli[rtx]"),
        ("tensorrt", ("tensorrt-rtx",), GPU, "ernie-cli[gpu]"),
        ("tensorrt", ("tensorrt", "tensorrt-rtx"), NO_GPU, "--engine-library tensorrt-rtx"),
        ("tensorrt-rtx", ("tensorrt",), GPU, "ernie-cli[rtx]"),
    ],
)
def test_no_choice(wanted, installed, driver, hint, monkeypatch):
    here(monkeypatch, installed, driver)
    with pytest.raises(MissingError) as caught:
        library.choose(wanted)
    assert hint in caught.value.hint


def here(monkeypatch, installed, driver):
    """This machine with other wheels and another GPU."""
    of_module = {module: name for name, (modules, _) in library.LIBRARIES.items() for module in modules[:1]}
    monkeypatch.setattr(
        library.importlib.util,
        "find_spec",
        lambda module: util.spec_from_file_location(module, "x.py") if of_module.get(module) in installed else None,
    )
    monkeypatch.setattr(nvml, "read", lambda: driver)


@pytest.mark.parametrize(
    ("which", "options", "said"),
    [
        (RTX, Options(timing_cache="t.cache"), "--timing-cache: not in TensorRT-RTX 1.7: it times no kernels"),
        (RTX, Options(version_compatible=True), "--version-compatible: not in TensorRT-RTX 1.7: "),
        (RTX, Options(hardware_compatible="ampere-plus"), "--hardware-compatible: not in TensorRT-RTX 1.7: --portable"),
        (FULL, Options(portable=True), "--portable: not in TensorRT 11.3: "),
    ],
)
def test_what_a_library_lacks_is_said_before_any_work(which, options, said):
    with pytest.raises(UnsupportedError) as caught:
        library.check(which, options)
    assert said in caught.value.message
    assert caught.value.hint == f"leave {said.partition(':')[0]} out"


def test_all_that_it_lacks_at_once():
    with pytest.raises(UnsupportedError, match=r"--timing-cache.*--version-compatible"):
        library.check(RTX, Options(timing_cache="t.cache", version_compatible=True))


@pytest.mark.parametrize(("field", "said"), [("refit", "--refit"), ("strip_weights", "--strip-weights")])
def test_what_needs_a_gpu_even_to_be_built(field, said):
    with pytest.raises(MissingError, match=f"{said}: not in TensorRT-RTX 1.7 without a GPU"):
        library.check(RTX, Options(**{field: True}))
    library.check(replace(RTX, gpu=True), Options(**{field: True}))


def test_what_both_have(capsys):
    both = Options(workspace=1 << 30, effort=5, weight_streaming=True)
    library.check(RTX, both)
    library.check(FULL, replace(both, strip_weights=True))
    assert capsys.readouterr().err == ""


def test_a_known_issue_of_one_release_is_told(capsys):
    library.check(FULL, Options(refit=True))
    assert "loses a bias" in capsys.readouterr().err


def test_looking_loads_nothing():
    code = "import sys; from ernie_cli.engine import library; library.find('tensorrt-rtx', gpu=False); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in loaded if name.startswith(("tensorrt", "onnx", "torch"))]
