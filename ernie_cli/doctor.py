"""Looks at this machine and this installation: what is here, what each command could do with it, what would enable the rest.

Reports only. Heavy packages are found by their metadata; onnxruntime alone is imported, to hear which providers it has.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from . import __version__, device, host, nvml
from .need import EXTRAS
from .runtime.open import cache_folder

#: module → the distributions that may provide it. Where several are installed at once they overwrite each other's files.
_DISTRIBUTIONS = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-qnn"),
    "tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
    "tensorrt_rtx_bindings": ("tensorrt-rtx-cu12-bindings", "tensorrt-rtx-cu13-bindings"),
    "torch": ("torch",),
    "transformers": ("transformers",),
    "paddle": ("paddlepaddle", "paddlepaddle-gpu"),
    "paddle2onnx": ("paddle2onnx",),
    "onnx": ("onnx",),
    "onnx_ir": ("onnx-ir",),
}


@dataclass(frozen=True)
class Package:
    """A package that a command can use. `version` is None where it is absent, "?" where it has no metadata."""

    module: str
    distribution: str
    version: str | None
    extra: str
    also: tuple[str, ...] = ()  # other distributions of the same module, installed beside it
    problem: str = ""  # why it does not load, where that was tried
    providers: tuple[str, ...] = ()  # onnxruntime's


@dataclass(frozen=True)
class Ability:
    """What one command could do here. status: ok, limited or missing; enable: the command that brings the rest, or ""."""

    command: str
    status: str
    why: str
    enable: str = ""


@dataclass(frozen=True)
class Report:
    """All that `ernie doctor` found."""

    ernie: str
    python: str
    platform: str
    cpu: host.Cpu
    memory: host.Memory
    disks: dict[str, int]  # path → bytes free
    driver: nvml.Driver
    device: str
    device_reason: str
    packages: tuple[Package, ...]
    abilities: tuple[Ability, ...]
    warnings: tuple[str, ...]

    def data(self) -> dict[str, Any]:
        """The report as plain JSON types."""
        return asdict(self)


def examine() -> Report:
    """Look at everything. Never raises for what it finds: an absent or broken part is a finding."""
    packages = tuple(_package(module) for module in _DISTRIBUTIONS)
    driver = nvml.read()
    here, reason = device.detect(driver)
    return Report(
        ernie=__version__,
        python=f"{platform.python_version()} ({sys.executable})",
        platform=platform.platform(),
        cpu=host.cpu(),
        memory=host.memory(),
        disks={str(path): host.disk_free(path) for path in (Path.cwd(), cache_folder())},
        driver=driver,
        device=here.name,
        device_reason=reason,
        packages=packages,
        abilities=tuple(abilities({package.module: package for package in packages}, gpu=here.title if here.kind == "cuda" else "")),
        warnings=tuple(conflicts(packages)),
    )


def _package(module: str) -> Package:
    found = [(name, number) for name in _DISTRIBUTIONS[module] if (number := _version(name))]
    if not found and importlib.util.find_spec(module) is None:
        return Package(module, _DISTRIBUTIONS[module][0], None, EXTRAS.get(module, ""))
    (name, number), *others = found or [(module, "?")]
    problem, providers = _onnxruntime() if module == "onnxruntime" else ("", ())
    return Package(module, name, number, EXTRAS.get(module, ""), tuple(other for other, _ in others), problem, providers)


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _onnxruntime() -> tuple[str, tuple[str, ...]]:
    """(why it does not load, the execution providers it was built with)."""
    try:
        import onnxruntime
    except (ImportError, OSError, AttributeError, RuntimeError, ValueError) as err:  # all seen from broken native libraries
        return f"{type(err).__name__}: {err}", ()
    return "", tuple(name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers())


def abilities(packages: dict[str, Package], gpu: str) -> Iterator[Ability]:
    """What each command could do with these packages. gpu: the name of the GPU, "" without one."""
    runtime = packages["onnxruntime"]
    enable_cpu = "pip install 'ernie-cli[cpu]'"
    yield Ability("download", "ok", "from Hugging Face, ModelScope and AI Studio")
    if runtime.version and not runtime.problem:
        yield Ability("convert", "ok", "hf ↔ paddle, hf and paddle → onnx, each checked against its source")
    else:
        yield Ability("convert", "limited", "→ onnx goes unchecked (--no-verify): the check runs in onnxruntime", enable_cpu)
    if runtime.version and not runtime.problem:
        yield Ability("quantize", "ok", "every scheme, from checkpoints and ONNX, measured on this machine")
        yield Ability("eval", "ok", "perplexity, exact match, KL and agreement with a second model")
    else:
        what = "weights alone, and nothing is measured (--no-measure): models run in onnxruntime"
        yield Ability("quantize", "limited", what, enable_cpu)
        yield Ability("eval", "missing", "models run in onnxruntime", enable_cpu)
    yield _build(packages["tensorrt"].version if gpu else None, packages["tensorrt_rtx_bindings"].version)
    yield Ability("inspect", "ok", "every format, without its runtime")
    yield _run(runtime, gpu, enable_cpu)


def _build(tensorrt: str | None, rtx: str | None) -> Ability:
    """tensorrt: its version where there is a GPU that it could build for."""
    if tensorrt:
        return Ability("build", "ok", f"for this GPU, with TensorRT {tensorrt}")
    if rtx:
        return Ability("build", "ok", f"for GPUs that need not be here, with TensorRT-RTX {rtx}")
    return Ability("build", "missing", "no library that builds engines is installed", "pip install 'ernie-cli[rtx]'")


def _run(runtime: Package, gpu: str, enable_cpu: str) -> Ability:
    if runtime.version is None:
        return Ability("run", "missing", "no backend is installed", enable_cpu)
    if runtime.problem:
        return Ability(
            "run", "missing", f"onnxruntime does not load: {runtime.problem}", f"pip install --force-reinstall {runtime.distribution}"
        )
    if gpu and "CUDA" not in runtime.providers:
        enable = f"pip uninstall -y {runtime.distribution} && pip install 'ernie-cli[gpu]'"
        return Ability("run", "limited", f"on the processor only: this onnxruntime cannot use the {gpu}", enable)
    return Ability("run", "ok", f"on {gpu or 'the processor'}, in onnxruntime {runtime.version}")


def conflicts(packages: tuple[Package, ...]) -> Iterator[str]:
    """Known combinations of packages that break each other, each with the way out."""
    for package in packages:
        if package.also:
            both = " ".join((package.distribution, *package.also))
            what = f"{both.replace(' ', ' and ')} are both installed and overwrite each other's files"
            yield f"{what}: pip uninstall -y {both} && pip install 'ernie-cli[{package.extra}]'"
    versions = {package.module: package.version for package in packages}
    if versions["paddle2onnx"] and _newer_than_1_17(versions["onnx"] or ""):
        yield f"paddle2onnx fails with onnx {versions['onnx']}: pip install 'onnx>=1.16.1,<=1.17'"
    if versions["tensorrt"] and not os.path.exists("/dev/nvidiactl") and not host.board():
        what = "tensorrt is installed, but cannot build engines without an NVIDIA GPU in the machine; tensorrt-rtx can"
        yield f"{what}: pip install 'ernie-cli[rtx]'"


def _newer_than_1_17(number: str) -> bool:
    major, minor, *_ = [int(part) for part in number.split(".") if part.isdigit()] + [0, 0]
    return (major, minor) > (1, 17)
