"""Which of the two TensorRT libraries builds, and why; what each cannot do. Loads neither: that is left to who builds or runs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import console, device
from ..errors import MissingError, UnsupportedError

if TYPE_CHECKING:
    from .options import Options

#: Library → (its modules, first found wins; the distributions that bring one of them and know its version).
#: The archive that NVIDIA offers beside the wheels calls its module tensorrt_rtx.
LIBRARIES = {
    "tensorrt": (("tensorrt",), ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")),
    "tensorrt-rtx": (
        ("tensorrt_rtx_bindings", "tensorrt_rtx"),
        ("tensorrt-rtx-cu12-bindings", "tensorrt-rtx-cu13-bindings", "tensorrt-rtx", "tensorrt_rtx"),
    ),
}
#: (field of Options, its option, why it is not there) of TensorRT-RTX. Tried with 1.7 on graphs of ERNIE and of vision models, without
#: a GPU. A timing cache is taken, does nothing and needs a GPU to be read again, as its documentation says:
#: https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/timing-cache-migration.html
#: --version-compatible makes it look for libnvinfer_lean, which belongs to TensorRT; of levels of hardware it says "unsupported".
#: --workspace, --opt-level and --weight-streaming are taken; too small a workspace ends the build.
LACKS = (
    ("timing_cache", "--timing-cache", "it times no kernels when it builds; what it compiles at the first run is kept beside the engine"),
    ("version_compatible", "--version-compatible", "there is no lean runtime of it; its engines run on the very release that built them"),
    ("hardware_compatible", "--hardware-compatible", "--portable builds for every GPU from compute capability 8.0 on"),
)
#: Of TensorRT-RTX on a machine without a GPU: seen to fail in every graph, with CUDA's error ("graph_jit.cpp: status == CUDA_SUCCESS").
WANTS_GPU = (("refit", "--refit"), ("strip_weights", "--strip-weights"))
#: The same of TensorRT 10 and 11, which build on the GPU that will run the engine.
LACKS_FULL = (("portable", "--portable", "it builds for the GPU at hand; --hardware-compatible ampere-plus widens that"),)
#: Releases of TensorRT whose --refit is known to be wrong at times (release notes of 11.3.0, known issues); --strip-weights is safe.
_DROPS_BIASES = "11.3."
_RTX = "pip install 'ernie-cli[rtx]'"
_BOTH = f"{_RTX}, or on a machine with an NVIDIA GPU pip install 'ernie-cli[gpu]'"


@dataclass(frozen=True)
class Library:
    """name: tensorrt or tensorrt-rtx. module: what to import. version: the distribution's. gpu: whether this machine has a GPU."""

    name: str
    module: str
    version: str
    gpu: bool

    @property
    def title(self) -> str:
        """ "TensorRT-RTX 1.7", as people call it."""
        return f"{'TensorRT-RTX' if self.name == 'tensorrt-rtx' else 'TensorRT'} {'.'.join(self.version.split('.')[:2])}"


def choose(wanted: str = "auto") -> tuple[Library, str]:
    """(the library, why it was taken) for "auto", "tensorrt" or "tensorrt-rtx".

    auto: `tensorrt` where it is installed and this machine has a GPU, else TensorRT-RTX. Raises MissingError where it is not here.
    """
    here, why = device.detect()
    gpu = here.kind == "cuda"
    full, rtx = (find(name, gpu=gpu) for name in LIBRARIES)
    if wanted == "tensorrt":
        return _full(full, why), "--engine-library"
    if wanted == "tensorrt-rtx" and rtx:
        return rtx, "--engine-library"
    if wanted == "auto" and full and gpu:
        return full, f"it is installed, and this is a machine with a GPU ({here.title})"
    if rtx:
        return rtx, "there is a GPU, but the module tensorrt is not installed" if gpu else "it builds without a GPU"
    if full:
        raise MissingError(f"TensorRT {full.version} builds on a GPU only: {why}", _RTX)
    raise MissingError("no library that builds engines is installed", _BOTH if wanted == "auto" else _RTX)


def find(name: str, *, gpu: bool) -> Library | None:
    """The installed library of this name, None where there is none. Nothing is imported."""
    modules, distributions = LIBRARIES[name]
    module = next((each for each in modules if _is_here(each)), None)
    return Library(name, module, _version(distributions), gpu) if module else None


def check(library: Library, options: Options) -> None:
    """Before any work: raise UnsupportedError (4) naming every option that the library lacks, MissingError (5) for one that needs a GPU."""
    rtx = library.name == "tensorrt-rtx"
    lacking = {said: why for field, said, why in (LACKS if rtx else LACKS_FULL) if getattr(options, field)}
    if lacking:
        what = "; ".join(f"{said}: not in {library.title}: {why}" for said, why in lacking.items())
        raise UnsupportedError(what, f"leave {' and '.join(lacking)} out")
    wanting = [said for field, said in WANTS_GPU if rtx and not library.gpu and getattr(options, field)]
    if wanting:
        what = f"{' and '.join(wanting)}: not in {library.title} without a GPU: it compiles what exchanges the weights when it builds"
        raise MissingError(what, f"leave {' and '.join(wanting)} out, or build on the device")
    if not rtx and options.refit and library.version.startswith(_DROPS_BIASES):
        console.warn(f"{library.title} loses a bias in some engines with --refit (its known issue): compare with `ernie build --verify`")


def cuda(name: str) -> str:
    """The CUDA that the installed wheels of a library are built for ("12"), "" where their names do not say."""
    for distribution in LIBRARIES[name][1]:
        if (found := re.search(r"-cu(\d+)", distribution)) and _version((distribution,)):
            return found[1]
    return ""


def _full(found: Library | None, no_gpu: str) -> Library:
    if found is None:
        raise MissingError(
            "--engine-library tensorrt: it is not installed", "pip install 'ernie-cli[gpu]', or --engine-library tensorrt-rtx"
        )
    if not found.gpu:
        raise MissingError(
            f"--engine-library tensorrt: it builds for the GPU in the machine only: {no_gpu}", "--engine-library tensorrt-rtx needs none"
        )
    return found


def _is_here(module: str) -> bool:
    """An empty folder of that name, which an uninstalled package may leave behind, has a spec, too, but no file."""
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None


def _version(distributions: tuple[str, ...]) -> str:
    """Of the first of these that is installed, "" where the module came another way."""
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""
