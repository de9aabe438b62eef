"""What the NVIDIA driver says about itself and its GPUs, through NVML. No driver, or half of one, is a normal answer.

Which profile a GPU belongs to is `device.py`'s affair.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Gpu:
    """One GPU. None where the driver does not say (a Jetson's NVML has no memory figures, for one)."""

    index: int
    name: str
    uuid: str | None
    compute_capability: str | None
    memory_bytes: int | None
    memory_free_bytes: int | None


@dataclass(frozen=True)
class Driver:
    """version: the driver's own, cuda: the newest CUDA it serves; problem: why there is nothing more, "" where all is well."""

    version: str | None = None
    cuda: str | None = None
    gpus: tuple[Gpu, ...] = ()
    problem: str = ""


def read() -> Driver:
    """Ask NVML once. Never raises: what went wrong is in `problem`."""
    try:
        import pynvml
    except ImportError as err:
        return Driver(problem=f"the Python module pynvml does not load: {err}")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as err:
        return Driver(problem=f"no NVIDIA driver: {err}")
    try:
        return _driver(pynvml)
    finally:
        _ask(pynvml, pynvml.nvmlShutdown)


def _driver(nvml: Any) -> Driver:
    gpus = tuple(_gpu(nvml, index) for index in range(_ask(nvml, nvml.nvmlDeviceGetCount) or 0))
    cuda = _ask(nvml, nvml.nvmlSystemGetCudaDriverVersion)  # 13010 is CUDA 13.1
    return Driver(
        version=_text(_ask(nvml, nvml.nvmlSystemGetDriverVersion)),
        cuda=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
        gpus=gpus,
        problem="" if gpus else "a driver, but no GPU that it lets us see",
    )


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = _ask(nvml, nvml.nvmlDeviceGetHandleByIndex, index)
    if handle is None:
        return Gpu(index, "a GPU that does not answer", None, None, None, None)
    memory = _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    capability = _ask(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
    return Gpu(
        index=index,
        name=_text(_ask(nvml, nvml.nvmlDeviceGetName, handle)) or "a GPU without a name",
        uuid=_text(_ask(nvml, nvml.nvmlDeviceGetUUID, handle)),
        compute_capability="{}.{}".format(*capability) if capability else None,
        memory_bytes=int(memory.total) if memory else None,
        memory_free_bytes=int(memory.free) if memory else None,
    )


def _ask(nvml: Any, question: Callable[..., Any], *args: Any) -> Any:
    """The answer, or None where this driver or GPU has none. NVML fails per question, and each may be missing alone."""
    try:
        return question(*args)
    except nvml.NVMLError:
        return None


def _text(value: str | bytes | None) -> str | None:
    """Older releases of the binding return bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
