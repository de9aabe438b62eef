"""NVML read through the real binding's exceptions. The library itself is played: drivers differ, and here there may be none."""

from __future__ import annotations

import sys
import types
from typing import Any

import pynvml
import pytest

from ernie_cli import nvml


def driver(**answers: Any) -> Any:
    """A stand-in for the module pynvml: an answer is a value to return or an exception to raise."""
    module = types.ModuleType("pynvml")
    usual = {
        "nvmlInit": None,
        "nvmlShutdown": None,
        "nvmlDeviceGetCount": 1,
        "nvmlSystemGetCudaDriverVersion": 13010,
        "nvmlSystemGetDriverVersion": "580.82.07",
        "nvmlDeviceGetHandleByIndex": object(),
        "nvmlDeviceGetMemoryInfo": types.SimpleNamespace(total=24 * 10**9, free=23 * 10**9),
        "nvmlDeviceGetCudaComputeCapability": (8, 9),
        "nvmlDeviceGetName": "NVIDIA L4",
        "nvmlDeviceGetUUID": "GPU-0a",
    }

    def answer(value: Any) -> Any:
        def ask(*_: Any) -> Any:
            if isinstance(value, Exception):
                raise value
            return value

        return ask

    module.NVMLError = pynvml.NVMLError  # type: ignore[attr-defined]
    for name, value in {**usual, **answers}.items():
        setattr(module, name, answer(value))
    return module


NOT_SUPPORTED = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


def test_a_whole_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", driver())
    found = nvml.read()
    assert (found.version, found.cuda, found.problem) == ("580.82.07", "13.1", "")
    assert found.gpus == (nvml.Gpu(0, "NVIDIA L4", "GPU-0a", "8.9", 24 * 10**9, 23 * 10**9),)


def test_older_bindings_answer_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", driver(nvmlDeviceGetName=b"NVIDIA L4", nvmlSystemGetDriverVersion=b"535.1"))
    found = nvml.read()
    assert (found.gpus[0].name, found.version) == ("NVIDIA L4", "535.1")


@pytest.mark.parametrize(
    "silent",
    [
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetCudaComputeCapability",
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetName",
        "nvmlSystemGetCudaDriverVersion",
    ],
)
def test_each_question_may_go_unanswered(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", driver(**{silent: NOT_SUPPORTED}))
    assert len(nvml.read().gpus) == 1


def test_a_lost_gpu_is_listed_without_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
    monkeypatch.setitem(sys.modules, "pynvml", driver(nvmlDeviceGetHandleByIndex=lost))
    assert nvml.read().gpus[0].memory_bytes is None


@pytest.mark.parametrize("code", ["LIBRARY_NOT_FOUND", "DRIVER_NOT_LOADED", "NO_PERMISSION", "LIB_RM_VERSION_MISMATCH", "UNKNOWN"])
def test_no_driver_is_an_answer(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = pynvml.NVMLError(getattr(pynvml, f"NVML_ERROR_{code}"))
    monkeypatch.setitem(sys.modules, "pynvml", driver(nvmlInit=refusal))
    found = nvml.read()
    assert not found.gpus and found.problem.startswith("no NVIDIA driver: ")


def test_no_binding_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "pynvml" in nvml.read().problem


def test_a_driver_without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", driver(nvmlDeviceGetCount=0))
    assert nvml.read().problem == "a driver, but no GPU that it lets us see"


def test_this_machine_answers() -> None:
    found = nvml.read()
    assert bool(found.gpus) != bool(found.problem)
