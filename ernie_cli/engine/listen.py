"""What the library calls while it works: a logger and a writer that fill their files, a monitor. Nothing is raised through them.

TensorRT calls from native code, which an exception would end: what goes wrong is kept, and asked for afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from .progress import Phases

#: Seconds between two reports of progress: some phases have thousands of steps.
_EVERY_S = 0.05


def logger(trt: Any, file: TextIO | None) -> Any:
    """An ILogger that writes "SEVERITY: text" lines. `errors`: the texts of errors; `check()` raises what kept it from writing."""

    class Log(trt.ILogger):  # type: ignore[misc]  # the wheel has no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.broken: OSError | None = None

        def log(self, severity: Any, text: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(text)
            try:
                if file:
                    file.write(f"{severity.name}: {text}\n")
            except OSError as err:
                self.broken = self.broken or err

        def check(self) -> None:
            if self.broken:
                raise self.broken

    return Log()


def writer(trt: Any, file: Path) -> Any:
    """An IStreamWriter that writes the plan to `file` as it comes; `check()` raises what kept it from writing.

    A plan that is handed over as a whole is in memory twice: 540 MB more for one of 1.2 GB.
    """

    class Writer(trt.IStreamWriter):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IStreamWriter.__init__(self)
            self.broken: OSError | None = None

        def write(self, data: bytes) -> int:
            try:
                with file.open("ab") as handle:
                    return handle.write(data)
            except OSError as err:
                self.broken = self.broken or err
                return 0

        def check(self) -> None:
            if self.broken:
                raise self.broken

    return Writer()


def monitor(trt: Any, phases: Phases, tell: Callable[[str, tuple[float, float]], None]) -> Any:
    """An IProgressMonitor that tells (phase, shares), and ends the build where telling raises OSError: nobody listens any more."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.last, self.heard = 0.0, True

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.say(phase_name, phases.start(phase_name, parent_phase, num_steps), always=True)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self.say(phase_name, phases.step(phase_name))
            return self.heard

        def phase_finish(self, phase_name: str) -> None:
            self.say(phase_name, phases.finish(phase_name))

        def say(self, phase: str, shares: tuple[float, float], always: bool = False) -> None:
            if (now := time.monotonic()) - self.last < _EVERY_S and not always:
                return
            self.last = now
            try:
                tell(phase, shares)
            except OSError:
                self.heard = False

    return Monitor()
