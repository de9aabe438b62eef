"""Whether an engine may be opened on this machine, and on which GPU: asked of its papers and the driver, before any native code.

What the papers must say is engine/admit.py's; opening is tensorrt_engine.py's.
"""

from __future__ import annotations

from .. import device as devices
from .. import nvml
from ..engine import admit, library, record
from ..errors import MissingError, UsageError
from ..model import Model

_INSTALL = {"tensorrt": "pip install 'ernie-cli[gpu]'", "tensorrt-rtx": "pip install 'ernie-cli[rtx]'"}


def admitted(model: Model, index: int) -> tuple[admit.Stamp, library.Library]:
    """Its papers and the library that opens it. No native code has run when this returns, or raises."""
    told = admit.stamp(model)
    if stripped(model):
        hint = f"ernie build {model.path} --refit-from ONNX_MODEL -o OUT puts them in"
        raise UsageError(f"{model.path}: its weights were left out when it was built", hint)
    found = library.find(told.library, gpu=True)
    if found is None:
        raise MissingError(f"{model.path} was built by {told.built_by}, which is not installed here", _INSTALL[told.library])
    admit.admit(model, found.version, capability(index), admit.this_system(), library=found.name)
    return told, found


def stripped(model: Model) -> bool:
    """Whether this is an engine of --strip-weights that nobody has given weights yet."""
    papers = model.manifest.get(record.NAME)
    return "STRIP_PLAN" in record.conform(papers)[0]["flags"] and not (isinstance(papers, dict) and papers.get("weights"))


def place(device: str) -> tuple[str, str]:
    """(the device as CUDA counts, why it) for auto, cuda, cuda:N or the profile of this machine's GPU. Raises UsageError for others."""
    here, reason = devices.detect()
    if device not in devices.names() or device == "cpu":
        return device, reason if device == "auto" else f"--device {device}"
    if device != here.name:
        raise UsageError(f"--device {device}: this machine has {here.title}", "--device cuda, where it has a GPU")
    return "cuda", f"--device {device}"


def capability(index: int = 0) -> str | None:
    """The compute capability of a GPU of this machine, None where there is none. Asks the driver, not CUDA."""
    if index == 0:
        found = devices.detect()[0]
        return found.compute_capability if found.kind == "cuda" else None
    gpus = nvml.read().gpus
    return gpus[index].compute_capability if index < len(gpus) else None
