"""The process that builds, from outside: started, listened to, ended, and how it died put into words. worker.py is its inside."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import errors
from ..console import printable

#: -I leaves out the folder the user stands in, whose files might be called like modules; sys.path is then the parent's own.
_START = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from ernie_cli.engine.worker import main; main(*sys.argv[2:])"
LESS = "a shorter --context, a smaller --batch or --opt-level 0 needs less; `ernie doctor` shows what is free"
#: Seconds of silence after which `reports` gives an empty one, so that a bar can move.
_TICK_S = 0.5
#: Looks in a row, one per tick, at which a silent process has done nothing: TensorRT-RTX 1.7 was seen to wait for itself for ever
#: after an allocation failed in one of its threads.
_LOOKS = 120
_LAST_LINES = 3


class Child:
    """`with Child(task, folder, request) as child: for report in child.reports(): …`; it does not outlive the block."""

    def __init__(self, task: str, folder: str, request: str) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  closed by __exit__
        self.stuck = False
        self._pipe, theirs = os.pipe()
        try:
            with tempfile.TemporaryFile() as asked:
                asked.write(request.encode())
                asked.seek(0)
                command = [sys.executable, "-I", "-c", _START, json.dumps(sys.path), str(os.getpid()), str(theirs), task, folder]
                self._process = subprocess.Popen(command, stdin=asked, stdout=self._said, stderr=self._said, pass_fds=[theirs])
        finally:
            os.close(theirs)

    def reports(self) -> Iterator[dict[str, Any]]:
        """What it reports, until it closes its end; {} for every half second of silence. Ends also where it stands still."""
        pending, stillness = b"", Stillness(self._process.pid)
        while True:
            if not select.select([self._pipe], [], [], _TICK_S)[0]:
                self.stuck = stillness.looks() >= _LOOKS
                if self.stuck:
                    return
                yield {}
                continue
            if not (received := os.read(self._pipe, 1 << 16)):
                return
            *lines, pending = (pending + received).split(b"\n")
            yield from map(json.loads, lines)

    def obituary(self, what: str) -> errors.ErnieError:
        """How it ended without an answer. what: it was to build."""
        if self.stuck:
            return errors.ResourceError(f"{what}: TensorRT stands still, which it does when memory runs out in the middle of a build", LESS)
        code = self._process.wait()
        self._said.seek(0)
        lines = [line.strip() for line in self._said.read().decode(errors="replace").splitlines() if line.strip()]
        last = "; ".join(printable(line)[:200] for line in lines[-_LAST_LINES:])
        if code == -signal.SIGKILL:
            return errors.ResourceError(f"{what}: the system ended the process that built it, most likely because memory ran out", LESS)
        if re.search(r"bad_alloc|MemoryError|annot allocate memory", last):
            return errors.ResourceError(f"{what}: memory ran out while it was built: {last}", LESS)
        if code < 0:
            return errors.UnsupportedError(
                f"{what}: TensorRT crashed while building it ({signal.Signals(-code).name}){': ' * bool(last)}{last}"
            )
        return errors.ErnieError(f"{what}: the process that built it ended with status {code}: {last}")

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # nothing it has must be saved: what it writes lies in a folder that is not yet anyone's
        self._process.wait()
        os.close(self._pipe)
        self._said.close()


class Stillness:
    """How many looks in a row found a process asleep that has not computed since the one before. 0 where the system does not tell."""

    def __init__(self, pid: int) -> None:
        self._file, self._last, self._count = Path(f"/proc/{pid}/stat"), "", 0

    def looks(self) -> int:
        """Look once more."""
        try:
            state, *fields = self._file.read_text().rpartition(")")[2].split()  # see proc_pid_stat(5)
        except OSError:
            return 0
        used = " ".join(fields[10:12])  # utime, stime
        self._count = self._count + 1 if state == "S" and used == self._last else 0
        self._last = used
        return self._count


def opened(report: dict[str, Any]) -> Any:
    """The answer in a report. Raises the error that it tells of, as it was."""
    if "error" in report:
        kind, message, hint = report["error"]
        raise getattr(errors, kind)(message, hint)
    if "os_error" in report:
        raise OSError(*report["os_error"])
    return report["done"]
