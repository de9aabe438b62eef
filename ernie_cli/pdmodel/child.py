"""Runs functions in a process of their own: Paddle crashes natively on damaged files, prints what nobody asked for, reads its
flags once, and does not share a process well with torch. What a child does is told by the functions it is asked to call.

`with Child("pdmodel") as child: child.call("ernie_cli.pdmodel.session:run", feeds=…)`
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from .. import errors
from ..console import printable
from ..need import EXTRAS

#: -I leaves out the folder the user stands in, whose files might be called like modules; sys.path is then the parent's own.
_START = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from ernie_cli.pdmodel.worker import main; main(int(sys.argv[2]))"
#: Quiet, nothing fetched, nothing installed, short messages instead of C++ stacks.
_SETTINGS = {
    "GLOG_minloglevel": "3",
    "FLAGS_call_stack_level": "0",
    "POLYGRAPHY_AUTOINSTALL_DEPS": "0",
    "PIP_NO_INDEX": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "PYTHONWARNINGS": "ignore",
}
_LAST_LINES = 3
#: What native crashes and Python say around what they have to say.
_NOISE = re.compile(
    r"Warning|warnings\.warn|C\+\+ Traceback|Error Message Summary|TimeInfo|SignalInfo|^\d+ +\w+::|is detected by the operating"
)


def installed(*modules: str) -> None:
    """Raise MissingError unless these could be imported, without importing them: Paddle takes its time and prints."""
    for module in modules:
        if find_spec(module) is None:
            package = f"'ernie-cli[{EXTRAS[module]}]'"
            raise errors.MissingError(f"this needs the Python module `{module}`", f"pip install {package}")


class Failed(Exception):
    """The function raised something that is none of our errors. kind: the exception's class, text: its words."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind, self.text = kind, text


class Crashed(Failed):
    """The process ended before it answered. text: why, and the last lines it printed."""


class Child:
    """One process that calls functions on request, in order, and keeps what they keep in their modules."""

    def __init__(self, settings: Mapping[str, str] | None = None, threads: int | None = None) -> None:
        ours, theirs = socket.socketpair()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        environment = {**os.environ, **_SETTINGS, **(settings or {})}
        if threads:
            environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        command = [sys.executable, "-I", "-c", _START, json.dumps(sys.path), str(theirs.fileno())]
        self._process = subprocess.Popen(
            command, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )
        theirs.close()
        self._pipe = Connection(ours.detach())

    def call(self, function: str, **arguments: Any) -> Any:
        """The result of `function` ("module:name"). Raises its ErnieError as it was, Failed for any other, Crashed for a death."""
        try:
            self._pipe.send((function, arguments))
            answer = self._pipe.recv()
        except (EOFError, OSError) as err:
            raise Crashed("crash", self._last_words()) from err
        return _opened(answer)

    def said(self) -> str:
        """Everything the process printed so far."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._log.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _last_words(self) -> str:
        code = self._process.wait()
        why = f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"it ended with status {code}"
        told = [line.strip() for line in self.said().splitlines() if any(char.isalpha() for char in line) and not _NOISE.search(line)]
        errors = [line for line in told if "[ERROR]" in line]
        return "; ".join([why, *(printable(line)[:200] for line in (errors or told)[-_LAST_LINES:])])


def _opened(answer: tuple[str, Any]) -> Any:
    kind, content = answer
    if kind == "result":
        return content
    if kind == "ernie":
        raise getattr(errors, content[0])(content[1], content[2])
    raise Failed(*content)
