"""Builds a graph into a plan, in a process of its own, and draws the bar. What happens in that process is worker.py's."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import console
from .child import Child, opened
from .progress import Pace
from .request import Request


@dataclass(frozen=True)
class Built:
    """plan, log: files in the folder that was given; the log is TensorRT's verbose one, "SEVERITY: text". peak_host_bytes: the most
    memory of the process that built. library: name, module, version, onnx_parser, cuda. flags: set on the builder ("REFIT" …).
    """

    plan: Path
    log: Path
    parse_seconds: float
    build_seconds: float
    peak_host_bytes: int
    library: Mapping[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


def build(request: Request, folder: Path) -> Built:
    """Build into `folder`: model.plan and build.log.

    Raises UnsupportedError (4) with every node that the parser refuses, or what the builder says; ResourceError (7) where memory
    runs out; OSError where the disk does. On any exception, Ctrl-C included, the process that built has ended when this returns.
    """
    with console.progress("building", 100) as meter:
        done = answer("build", request, folder, _Bar(meter))
    return Built(folder / "model.plan", folder / "build.log", **{**done, "flags": tuple(done["flags"])})


def problems(graph: Path, fixed: Mapping[str, int] | None = None, library: str = "tensorrt-rtx") -> list[str]:
    """All that the library's parser has against a graph, each with its node; [] where it takes it. Builds nothing."""
    found: list[str] = answer("problems", Request(str(graph), library, fixed=fixed or {}))
    return found


def answer(task: str, request: Request, folder: Path | None = None, bar: _Bar | None = None) -> Any:
    """What the process answers to one of worker.py's tasks. Raises its errors, and for its death as child.py words it."""
    with Child(task, str(folder.absolute()) if folder else "", request.as_json()) as child:
        for report in child.reports():
            if report and "progress" not in report:
                return opened(report)
            if bar:
                bar.move(report)
        raise child.obituary(request.graph)


class _Bar:
    """Percent done on the console."""

    def __init__(self, meter: console.Meter) -> None:
        self._meter, self._pace, self._shown = meter, Pace(), 0.0

    def move(self, report: Mapping[str, Any]) -> None:
        """A report of progress, or {} for nothing new."""
        now = time.monotonic()
        if report:
            done, ahead = report["progress"]
            self._pace.heard(done, ahead, now)
        percent = 100 * self._pace.share(now)
        self._meter.advance(percent - self._shown, report.get("phase"))
        self._shown = percent
