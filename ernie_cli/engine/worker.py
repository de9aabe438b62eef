"""The process that builds: a request on stdin, reports as JSON lines on a descriptor, the plan and a verbose log into a folder.

Builders run native code for minutes, take gigabytes and may crash: that stays in here. Who starts it, draws the bar and words a crash
are child.py and builder.py. Reports: {"progress": …, "phase": …}, then one of {"done": …}, {"error": …}, {"os_error": …}.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import re
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from .. import console
from ..errors import ErnieError, MissingError, ResourceError, UnsupportedError, UsageError
from . import configure, library, listen, network, weights
from .child import LESS
from .progress import WEIGHTS, Phases
from .request import Request

PLAN, LOG = "model.plan", "build.log"
#: The libraries' own words where memory ran out.
_NO_MEMORY = re.compile(r"bad_alloc|out ?of ?memory|MEM_ALLOC_FAILED|insufficient memory|cannot allocate memory|\bMemoryError", re.I)
#: Of what the library says: texts, and characters of each.
_SHOWN, _LONGEST = 3, 500


def main(parent: str, descriptor: str, task: str, folder: str) -> None:
    """Serve the one request on stdin, for as long as the process `parent` lives. task: a name in TASKS."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides
    _die_with(int(parent))
    with open(int(descriptor), "w", buffering=1) as pipe:
        try:
            _tell(pipe, done=TASKS[task](Request.from_json(sys.stdin.read()), Path(folder), pipe))
        except ErnieError as err:
            _tell(pipe, error=[type(err).__name__, err.message, err.hint])
        except OSError as err:
            _tell(pipe, os_error=[err.errno, err.strerror, err.filename])


def _build(request: Request, folder: Path, pipe: TextIO) -> dict[str, Any]:
    trt = _module(request)
    with (folder / LOG).open("w", encoding="utf-8", errors="replace") as file:
        log = listen.logger(trt, file)
        start = time.perf_counter()
        try:
            builder = trt.Builder(log)
            made, parser = network.network(trt, builder, log, Path(request.graph), request.fixed)
            parsed = time.perf_counter()
            config = configure.configured(trt, builder, made, request)
            config.progress_monitor = _monitor(trt, request, pipe)
            built = _written(trt, builder, made, config, folder / PLAN)
        except (RuntimeError, TypeError, ValueError, MemoryError) as err:  # what the bindings make of the library's exceptions
            raise _failed(request, [*log.errors, f"{type(err).__name__}: {err}"]) from err
        log.check()
        if not built:
            raise _failed(request, log.errors)
        configure.keep_timings(config, request)
        del parser  # it owned memory that the network pointed to
    seconds = {"parse_seconds": parsed - start, "build_seconds": time.perf_counter() - parsed}
    return {**seconds, "peak_host_bytes": _peak_bytes(), "library": _facts(trt, request), "flags": configure.flags(request)}


def _written(trt: Any, builder: Any, network: Any, config: Any, file: Path) -> bool:
    """Build and write the plan, in pieces where the library can. False where it cannot be built."""
    file.unlink(missing_ok=True)
    if not hasattr(builder, "build_serialized_network_to_stream"):  # TensorRT 10
        plan = builder.build_serialized_network(network, config)
        return plan is not None and file.write_bytes(memoryview(plan)) > 0
    writer = listen.writer(trt, file)
    built = builder.build_serialized_network_to_stream(network, config, writer)
    writer.check()
    return bool(built)


def _problems(request: Request, folder: Path, pipe: TextIO) -> list[str]:
    from .refusals import refusals

    trt = _module(request)
    log = listen.logger(trt, None)
    return refusals(trt, trt.Builder(log), log, Path(request.graph), request.fixed)


def _refit(request: Request, folder: Path, pipe: TextIO) -> None:
    """The plan in `folder`, with the weights of the request's graph."""
    trt = _module(request)
    log = listen.logger(trt, None)
    made = weights.refitted(trt, log, (folder / PLAN).read_bytes(), Path(request.graph))
    (folder / PLAN).write_bytes(memoryview(made))


TASKS = {"build": _build, "problems": _problems, "refit": _refit}


def _module(request: Request) -> Any:
    found = library.find(request.library, gpu=False)
    try:
        return importlib.import_module(found.module if found else request.library)
    except ImportError as err:
        raise MissingError(f"{request.library} does not load: {err}", "pip install 'ernie-cli[rtx]'") from err


def _monitor(trt: Any, request: Request, pipe: TextIO) -> Any:
    phases = Phases(WEIGHTS if request.library == "tensorrt-rtx" else {})
    return listen.monitor(trt, phases, lambda phase, shares: _tell(pipe, progress=shares, phase=phase))


def _failed(request: Request, errors: list[str]) -> ErnieError:
    """What the library said, as one of our errors."""
    said = "; ".join(dict.fromkeys(" ".join(text.split())[:_LONGEST] for text in errors[-_SHOWN:])) or "it does not say why"
    if request.workspace is not None and "workspace limit" in said:
        return UsageError(f"--workspace: {console.size(request.workspace)} are too little for this model", "give more, or leave it out")
    if _NO_MEMORY.search(said):
        return ResourceError(f"{request.graph}: memory ran out while it was built: {said}", LESS)
    return UnsupportedError(f"{request.graph}: TensorRT cannot build it: {said}", network.OTHERWISE)


def _tell(pipe: TextIO, **report: Any) -> None:
    pipe.write(json.dumps(report) + "\n")


def _facts(trt: Any, request: Request) -> dict[str, Any]:
    """What made the plan: for the papers, and for the check before it is loaded."""
    found = library.find(request.library, gpu=False)
    return {
        "name": request.library,
        "module": found.module if found else "",
        "version": str(trt.__version__),
        "onnx_parser": str(trt.get_nv_onnx_parser_version()),
        "cuda": library.cuda(request.library),
    }


def _peak_bytes() -> int:
    """Most memory this process had at one time. ru_maxrss would also count what its parent had when it started it: see getrusage(2)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _die_with(parent: int) -> None:
    """End when the parent does, even by kill -9: prctl(2), 1 is PR_SET_PDEATHSIG. Elsewhere the closed pipe ends it, a step later."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before
        os._exit(1)
