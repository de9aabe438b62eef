"""Where ONNX Runtime is to compute: the processor or one GPU, and why. Opening sessions there is onnxruntime_session.py's.

Asks three things in turn, cheapest first: what a person wrote, what this onnxruntime was built for, what GPU the driver shows.
Whether the libraries of that GPU load as well is only known once a session is open.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import device as devices
from .. import nvml
from ..errors import MissingError, UsageError
from ..need import need

CUDA, CPU, TENSORRT = "CUDAExecutionProvider", "CPUExecutionProvider", "TensorrtExecutionProvider"
_INSTALL = "pip install 'ernie-cli[gpu]'"
_REPLACE = f"pip uninstall -y onnxruntime && {_INSTALL}"


@dataclass(frozen=True)
class Place:
    """kind: "cpu" or "cuda", as onnxruntime names devices. number: of the GPU among those that CUDA sees. title: for people.
    why: the reason it was taken. tensorrt: TensorRT's provider goes first. capture: single-token steps may be CUDA graphs."""

    kind: str = "cpu"
    number: int = 0
    title: str = "cpu"
    why: str = ""
    tensorrt: bool = False
    capture: bool = False

    def array(self, content: np.ndarray) -> Any:
        """An OrtValue there with this content: on the CPU over the array's own memory, on a GPU a copy."""
        return need("onnxruntime").OrtValue.ortvalue_from_numpy(content, self.kind, self.number)

    def providers(self) -> list[Any]:
        """What an InferenceSession is given. Nodes that no earlier provider takes run on the CPU."""
        if self.kind == "cpu":
            return [CPU]
        # TF32 keeps 10 bits of float32's 23: who wants that speed converts to fp16 and knows it.
        options = {"device_id": str(self.number), "use_tf32": "0", "enable_cuda_graph": "1" if self.capture else "0"}
        first = [(TENSORRT, {"device_id": str(self.number)})] if self.tensorrt else []
        return [*first, (CUDA, options), CPU]


HOST = Place()


def choose(device: str, available: Sequence[str], *, driver: nvml.Driver | None = None, tensorrt: bool = False) -> Place:
    """auto, cpu, cuda, cuda:N or a profile's name → where to compute. available: the providers of this onnxruntime.

    auto takes CUDA where this onnxruntime and a GPU have it, else the CPU. driver: what NVML said, for callers that know.
    Raises UsageError for a name that makes no sense here, MissingError where a GPU was named and cannot be used.
    """
    kind, number = _parsed(device)
    if kind == "cpu":
        return Place(why=f"--device {device}")
    lacking = _lacking(available, tensorrt)
    if lacking and kind == "auto":
        return Place(why=lacking[0])
    driver = driver or nvml.read()
    here, reason = devices.detect(driver)
    if kind == "auto" and here.kind != "cuda":
        return Place(why=reason)
    if here.kind != "cuda" or number >= max(1, len(driver.gpus)):
        what = reason if here.kind != "cuda" else f"this machine has {len(driver.gpus)}"
        raise MissingError(f"--device {device}: no such GPU here: {what}", "--device cpu")
    if lacking:
        raise MissingError(f"--device {device}: {lacking[0]}", lacking[1])
    if kind not in ("auto", "cuda") and kind != here.name:
        raise UsageError(f"--device {device}: this machine's GPU is a {here.title}", "--device cuda")
    name = driver.gpus[number].name if number < len(driver.gpus) else here.title
    return Place("cuda", number, f"cuda:{number} {name}", reason if kind == "auto" else f"--device {device}", tensorrt)


def _parsed(device: str) -> tuple[str, int]:
    """ "cuda:1" → ("cuda", 1); a profile's name stays what it is where it describes a GPU."""
    kind, colon, number = device.partition(":")
    if kind == "cuda" and (not colon or number.isdecimal()):
        return kind, int(number or 0)
    if device in ("auto", "cpu"):
        return device, 0
    if device not in devices.names():
        raise UsageError(f"the onnxruntime backend runs on cpu or cuda, not `{device}`", "--device auto chooses")
    return ("cpu" if devices.load(device).kind == "cpu" else device), 0


def _lacking(available: Sequence[str], tensorrt: bool) -> tuple[str, str] | None:
    """(why this onnxruntime reaches no GPU, what to type), None where it does as far as it says."""
    if CUDA not in available:
        if _version("onnxruntime-gpu"):
            return f"the CUDA libraries of onnxruntime-gpu {_version('onnxruntime-gpu')} do not load", f"{_INSTALL} brings CUDA and cuDNN"
        return "this onnxruntime is built for the CPU", _REPLACE
    if tensorrt and TENSORRT not in available:
        return "this onnxruntime has no TensorRT provider", "--backend onnxruntime uses CUDA without it"
    return None


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def load_libraries(ort: Any) -> list[str]:
    """Load the CUDA and cuDNN that pip installed, before onnxruntime looks for the system's. Returns the names of what is nowhere.

    onnxruntime prints what it lacks: not to stdout. Releases before 1.21 do not have the function, CPU builds do nothing.
    """
    if not hasattr(ort, "preload_dlls"):
        return []
    with contextlib.redirect_stdout(io.StringIO()) as said:
        ort.preload_dlls()
    return re.findall(r"Failed to load ([^\s:]+)", said.getvalue())
