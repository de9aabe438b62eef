"""Processes that begin with their libraries loaded: forks of one that loaded them. Loading Paddle takes two seconds, ONNX's one, and
the suite starts hundreds of such processes. `WARM` is shared by the tests of a worker; the forks run what a fresh process would.

`install()` makes the product start its Paddle children so; tests of the start itself ask for the fixture `cold_start`.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

_START = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from forks import serve; serve(int(sys.argv[2]), sys.argv[3:])"
#: What the libraries read when they are loaded: a process with another of these needs another one to fork from.
_READ_ONCE = ("FLAGS_", "GLOG_", "OMP_", "MKL_", "LD_", "PYTHON")
PADDLE = ("paddle", "paddle2onnx", "onnx", "ml_dtypes", "ernie_cli.pdmodel.worker")
ERNIE = (
    *("onnx", "onnx_ir", "onnxruntime", "ml_dtypes", "typer", "ernie_cli.app", "ernie_cli.commands.convert", "ernie_cli.commands.download"),
    *("ernie_cli.converters.hf_to_onnx", "ernie_cli.converters.hf_to_paddle", "ernie_cli.runtime.onnxruntime", "ernie_cli.hub.download"),
)


class Forked:
    """As much of subprocess.Popen as is asked for."""

    def __init__(self, status: int) -> None:
        self._status = status
        told = os.read(status, 4)
        assert told, "there is no process to fork from: does what it loads load?"
        self.pid = int.from_bytes(told, "little")
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("a fork", timeout or 0)
        return code

    def communicate(self) -> tuple[None, None]:
        self.wait()
        return None, None

    def kill(self) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it ended between the look and the kill, and its parent has already been told
                os.kill(self.pid, signal.SIGKILL)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            told = os.read(self._status, 4)
            os.close(self._status)
            assert told, "nobody saw how the fork ended"
            self.returncode = int.from_bytes(told, "little", signed=True)
        return self.returncode


class Warm:
    """Processes to fork from, each started when it is first needed."""

    def __init__(self) -> None:
        self._servers: dict[Any, tuple[socket.socket, subprocess.Popen[bytes]]] = {}
        atexit.register(self.close)

    def start(
        self, function: str, *arguments: Any, preload: Sequence[str], env: Mapping[str, str], output: int, keep: Sequence[int] = ()
    ) -> Forked:
        """Call `function` ("module:name") in a fork with `preload` loaded; what it returns is the exit code. output: where both streams
        go. keep: open files that the fork has, too; an argument `{0}` becomes the number of the first."""
        server = self._server(tuple(preload), {name: value for name, value in env.items() if name.startswith(_READ_ONCE)})
        status, theirs = os.pipe()
        request = {"function": function, "arguments": arguments, "env": dict(env), "path": sys.path, "cwd": os.getcwd()}
        data = json.dumps(request).encode()
        socket.send_fds(server, [len(data).to_bytes(4, "little")], [theirs, output, *keep])
        server.sendall(data)
        os.close(theirs)
        return Forked(status)

    def close(self) -> None:
        for server, process in self._servers.values():
            server.close()
            process.wait()
        self._servers.clear()

    def _server(self, preload: tuple[str, ...], env: Mapping[str, str]) -> socket.socket:
        key = (os.getpid(), preload, tuple(sorted(env.items())))
        if key not in self._servers:
            ours, theirs = socket.socketpair()
            path = json.dumps([os.path.dirname(__file__), *sys.path])
            command = [sys.executable, "-I", "-W", "ignore", "-c", _START, path, str(theirs.fileno()), *preload]
            with theirs:
                files = {"pass_fds": [theirs.fileno()], "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
                self._servers[key] = ours, subprocess.Popen(command, env={**os.environ, **env}, **files)  # type: ignore[call-overload]
        return self._servers[key][0]


WARM = Warm()


def ernie(*words: object) -> Forked:
    """`ernie` with these words, in a process of its own; nobody sees what it says."""
    with open(os.devnull, "wb") as nowhere:
        return WARM.start("ernie_cli.app:main", list(map(str, words)), preload=ERNIE, env=os.environ, output=nowhere.fileno())


def install() -> None:
    """From now on `ernie_cli.pdmodel.child` forks its processes (where the system can)."""
    if sys.platform == "linux":
        from ernie_cli.pdmodel import child

        child.subprocess = SimpleNamespace(Popen=_paddle_child, DEVNULL=subprocess.DEVNULL)  # type: ignore[assignment]


def _paddle_child(command: Sequence[str], *, env: Mapping[str, str], pass_fds: Sequence[int], stdout: Any, **_: Any) -> Forked:
    return WARM.start("ernie_cli.pdmodel.worker:main", "{0}", preload=PADDLE, env=env, output=stdout.fileno(), keep=pass_fds)


# --- the process that is forked -----------------------------------------------------------------------------------------


def serve(descriptor: int, preload: Sequence[str]) -> None:
    """Load the modules, then fork for every request until the other side closes."""
    for module in preload:
        if find_spec(module.partition(".")[0]):
            importlib.import_module(module)
    with socket.socket(fileno=descriptor) as requests:
        while True:
            length, files, *_ = socket.recv_fds(requests, 4, 8)
            if not length:
                return
            request = json.loads(requests.recv(int.from_bytes(length, "little"), socket.MSG_WAITALL))
            if not os.fork():
                requests.close()
                _mind(request, *files)
            for file in files:
                os.close(file)
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def _mind(request: Mapping[str, Any], status: int, output: int, *kept: int) -> None:
    """Fork the process that is wanted, and tell its number and how it ended."""
    pid = os.fork()
    if not pid:
        os.close(status)
        _become(request, output, kept)
    for file in (output, *kept):
        os.close(file)
    os.write(status, pid.to_bytes(4, "little"))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.write(status, code.to_bytes(4, "little", signed=True))
    os._exit(0)


def _become(request: Mapping[str, Any], output: int, kept: Sequence[int]) -> None:
    code = 70
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        sys.path[:] = request["path"]
        module, _, function = request["function"].partition(":")
        numbers = {f"{{{index}}}": number for index, number in enumerate(kept)}
        arguments = [numbers.get(each, each) if isinstance(each, str) else each for each in request["arguments"]]
        code = getattr(importlib.import_module(module), function)(*arguments) or 0
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)
