"""Profiles as data, and which one this machine is. The GPU's side is tested on a stand-in for NVML: there may be no GPU here."""

from __future__ import annotations

import re

import pytest

from ernie_cli import device, nvml
from ernie_cli.errors import UsageError

FIGURES = ("memory_gb", "bandwidth_gb_per_s", "fp32_tflops", "fp16_tflops", "bf16_tflops", "int8_tops", "fp8_tflops", "fp4_tflops", "l2_mb")
GPUS = [name for name in device.names() if name != "cpu"]


def gpu(name: str, index: int = 0, uuid: str = "GPU-0a", gigabytes: float | None = 24.5) -> nvml.Gpu:
    n_bytes = int(gigabytes * 1e9) if gigabytes else None
    return nvml.Gpu(index, name, uuid, "8.9", n_bytes, n_bytes)


@pytest.mark.parametrize("name", device.names())
def test_profile_is_complete(name: str) -> None:
    found = device.load(name)
    assert found.name == name and found.title and found.kind in ("cpu", "cuda")
    assert re.match(r"https://\S+$", found.source), "the vendor's public page"
    figures = [getattr(found, figure) for figure in FIGURES]
    assert all(figure is None or figure > 0 for figure in figures)
    assert set(found.unconfirmed) <= set(FIGURES), "doubtful figures go by the names of the sure ones"
    assert not [figure for figure in found.unconfirmed if getattr(found, figure) is not None], "sure or doubtful, not both"


@pytest.mark.parametrize("name", GPUS)
def test_gpu_profile_can_be_recognised(name: str) -> None:
    found = device.load(name)
    assert found.compute_capability and re.match(r"\d+\.\d$", found.compute_capability)
    assert found.memory_gb and found.bandwidth_gb_per_s and found.watts_max
    assert bool(found.nvml_names) != bool(found.board), "a card by its driver's name for it, a board by its own"


def test_no_two_profiles_claim_the_same_hardware() -> None:
    claims = [claim for name in GPUS for claim in (*device.load(name).nvml_names, device.load(name).board) if claim]
    assert len(claims) == len(set(claims))


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [  # devices.md, which read the datasheets
        ("h100", "fp16_tflops", 989),
        ("h200", "fp16_tflops", 989),  # written as its difference from the H100
        ("h200", "memory_gb", 141),
        ("t4", "int8_tops", 130.3),
        ("v100", "int8_tops", None),  # no INT8 tensor cores
        ("l4", "fp16_tflops", None),  # unconfirmed
        ("jetson-orin-nx", "compute_capability", "8.7"),
        ("jetson-orin-nx", "memory_shared", True),
        ("jetson-orin-nano", "watts_max", 25),
    ],
)
def test_facts(name: str, field: str, value: object) -> None:
    assert getattr(device.load(name), field) == value


def test_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(UsageError) as caught:
        device.load("rtx4080")
    assert "rtx4080" in caught.value.message and "--device rtx4090" in caught.value.hint


def test_name_unlike_any_gets_the_list() -> None:
    with pytest.raises(UsageError) as caught:
        device.load("../../etc/passwd")
    assert "h100" in caught.value.hint


def test_auto_is_this_machine() -> None:
    assert device.load("auto") == device.detect()[0]


def test_no_gpu_is_the_cpu_with_its_memory() -> None:
    found, reason = device.detect(nvml.Driver(problem="no NVIDIA driver: Library Not Found"))
    assert found.name == "cpu" and found.memory_gb and found.memory_gb > 0
    assert reason == "no NVIDIA driver: Library Not Found"


def test_known_gpu_is_its_profile_with_the_real_memory() -> None:
    found, reason = device.detect(nvml.Driver(gpus=(gpu("NVIDIA GeForce RTX 4090"),)))
    assert (found.name, found.memory_gb) == ("rtx4090", 24.5)
    assert "NVIDIA GeForce RTX 4090" in reason


@pytest.mark.parametrize(
    "name", ["NVIDIA H100 PCIe", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA L40", "NVIDIA H200 NVL", "Orin (nvgpu)"]
)
def test_a_sibling_is_not_taken_for_the_profile(name: str) -> None:
    found, reason = device.detect(nvml.Driver(gpus=(gpu(name),)))
    assert (found.name, found.title, found.compute_capability, found.bandwidth_gb_per_s) == ("gpu", name, "8.9", None)
    assert reason.startswith("no profile for")


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("0", "l4"), ("1", "t4"), ("1,0", "t4"), ("GPU-1b", "t4"), ("", "cpu"), ("-1", "cpu"), ("GPU-none", "cpu")],
)
def test_cuda_visible_devices_is_respected(visible: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    two = nvml.Driver(gpus=(gpu("NVIDIA L4"), gpu("Tesla T4", 1, "GPU-1b")))
    found, reason = device.detect(two)
    assert found.name == expected and (expected != "cpu" or "CUDA_VISIBLE_DEVICES" in reason)


def test_a_gpu_that_hides_its_memory_keeps_the_profile_s() -> None:
    assert device.detect(nvml.Driver(gpus=(gpu("NVIDIA L4", gigabytes=None),)))[0].memory_gb == 24


@pytest.mark.parametrize("name", [name for name in GPUS if device.load(name).board])
def test_boards_are_known_by_their_own_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called = f"NVIDIA {device.load(name).board} Developer Kit"
    monkeypatch.setattr("ernie_cli.host.board", lambda: called)
    found, reason = device.detect(nvml.Driver())
    assert found.name == name and called in reason
