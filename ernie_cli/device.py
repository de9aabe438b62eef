"""Devices: profiles/*.toml → Device; `detect` says which one this machine is, and why.

Facts only. What a device can build or run is the business of whoever builds or runs.
"""

from __future__ import annotations

import difflib
import importlib.resources
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from . import host, nvml
from .errors import ErnieError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

AUTO = "auto"


@dataclass(frozen=True)
class Device:
    """A kind of machine, as its maker describes it. None: unknown, or the device has no such thing.

    Figures are peaks without sparsity: *_tflops in 10¹² floating-point operations per second, *_tops likewise in
    integers, with tensor cores where there are any. GB are 10⁹ bytes. `unconfirmed` holds figures by the same names
    that no datasheet at hand confirms: never print a conclusion from one as a fact.
    """

    name: str
    title: str
    kind: str  # "cpu" or "cuda"
    source: str
    compute_capability: str | None = None
    memory_gb: float | None = None
    memory_shared: bool = False  # with the processor
    bandwidth_gb_per_s: float | None = None
    fp32_tflops: float | None = None
    fp16_tflops: float | None = None
    bf16_tflops: float | None = None
    int8_tops: float | None = None
    fp8_tflops: float | None = None
    fp4_tflops: float | None = None
    l2_mb: float | None = None
    watts_min: float | None = None
    watts_max: float | None = None
    nvml_names: tuple[str, ...] = ()  # what the driver calls it
    board: str | None = None  # part of what a single-board computer calls itself
    unconfirmed: Mapping[str, float] = field(default_factory=dict)


def names() -> list[str]:
    """Every profile's name, sorted."""
    return sorted(entry.name.removesuffix(".toml") for entry in _folder().iterdir() if entry.name.endswith(".toml"))


def load(name: str) -> Device:
    """The device of a profile, or this machine's own for `auto`.

    Raises UsageError (exit 2) where there is no such profile.
    """
    if name == AUTO:
        return detect()[0]
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name.lower(), known, 1)
        hint = f"did you mean `--device {near[0]}`?" if near else f"one of: {', '.join([AUTO, *known])}"
        raise UsageError(f"no device named `{name}`", hint)
    facts = _facts(name)
    unknown = sorted(set(facts) - {each.name for each in fields(Device)})
    if unknown:
        raise ErnieError(f"profiles/{name}.toml: unknown key `{unknown[0]}`", "the keys are the fields of ernie_cli.device.Device")
    return Device(name=name, **{**facts, "nvml_names": tuple(facts.get("nvml_names", ()))})


def detect(driver: nvml.Driver | None = None) -> tuple[Device, str]:
    """(this machine's device, why it was taken): the first GPU that CUDA may use, else the processor.

    `driver`: what NVML said, for callers that have asked already.
    """
    on_board = host.board()
    for device in map(load, names() if on_board else ()):
        if device.board and device.board in on_board:
            return _with_memory(device, host.memory().total), f"the board is a {on_board}"
    driver = driver or nvml.read()
    gpu, why_not = _visible(driver)
    if gpu is None:
        return _with_memory(load("cpu"), host.memory().total), why_not
    profile = next((name for name in names() if gpu.name in load(name).nvml_names), None)
    if profile:
        return _with_memory(load(profile), gpu.memory_bytes), f"the driver reports {gpu.name}"
    unknown = Device("gpu", gpu.name, "cuda", "the driver", compute_capability=gpu.compute_capability)
    return _with_memory(unknown, gpu.memory_bytes), f"no profile for {gpu.name}: only what its driver says is known"


def _visible(driver: nvml.Driver) -> tuple[nvml.Gpu | None, str]:
    """The GPU a CUDA program would get first (NVML itself ignores CUDA_VISIBLE_DEVICES), or why there is none."""
    if not driver.gpus:
        return None, driver.problem
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return driver.gpus[0], ""
    first = wanted.split(",")[0].strip()
    for gpu in driver.gpus:
        if first == str(gpu.index) or (first.startswith("GPU-") and (gpu.uuid or "").startswith(first)):
            return gpu, ""
    return None, f"CUDA_VISIBLE_DEVICES={wanted} hides the GPU"


def _with_memory(device: Device, measured_bytes: int | None) -> Device:
    """The same device with the memory that is really there: cards are sold with several sizes, containers get a share."""
    return replace(device, memory_gb=round(measured_bytes / 1e9, 1)) if measured_bytes else device


def _facts(name: str) -> dict[str, Any]:
    """A profile's table, laid over the one that its `like` names: a variant is written as its difference."""
    facts = tomllib.loads(_folder().joinpath(f"{name}.toml").read_text(encoding="utf-8"))
    like = facts.pop("like", None)
    if like is None:
        return facts
    base = _facts(like)
    doubts = {key: value for key, value in base.pop("unconfirmed", {}).items() if key not in facts}
    return {**base, **facts, "unconfirmed": {**doubts, **facts.get("unconfirmed", {})}}


def _folder() -> Any:
    return importlib.resources.files("ernie_cli.profiles")
