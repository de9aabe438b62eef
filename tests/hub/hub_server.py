"""A hub on loopback: a real HTTP server, what it holds, what it logs, what it gets wrong on order.

What the addresses mean is in hub_apis.py, faults are in hub_faults.py. huggingface_hub's own client is run against it in
test_hub_server.py.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

#: Files from this size on are "large": in Git LFS, and served from the CDN.
LARGE = 4096


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def pointer(data: bytes) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256(data)}\nsize {len(data)}\n".encode()


@dataclass
class Repo:
    """files: path → content at the one commit there is, which is also called main and master."""

    files: dict[str, bytes]
    commit: str = "c" * 40
    licence: str = "apache-2.0"
    private: bool = False

    def revisions(self) -> set[str]:
        return {self.commit, "main", "master"}

    def tree(self) -> list[dict[str, Any]]:
        """The files as git sees them."""
        return [
            {"path": path, "oid": git_oid(pointer(data) if len(data) >= LARGE else data), "size": len(data), "data": data}
            for path, data in sorted(self.files.items())
        ]


@dataclass
class Request:
    """What came in, and how much of a body went out."""

    method: str
    path: str
    start: int
    authorization: str | None
    port: int
    sent: int = 0


#: What a fault does instead of, or to, an answer to a request for a file. True: the request is dealt with.
Fault = Callable[[Any, bytes], bool]


@dataclass
class Hub:
    """The server's state: repositories, faults by file path ("" = the listing), and a log of what was asked."""

    repos: dict[str, Repo] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    log: list[Request] = field(default_factory=list)
    bytes_per_s: float = 0
    lie: dict[str, Any] = field(default_factory=dict)  # entries of listings to replace: "path.key" → value
    extra: list[dict[str, Any]] = field(default_factory=list)  # files listed beside the real ones
    url: str = ""
    cdn: str = ""
    ranges: bool = True
    gitea_stock: bool = False  # plain Gitea: folder listings count Git LFS pointers, not contents
    closing: threading.Event = field(default_factory=threading.Event)

    def break_once(self, path: str, *faults: Fault) -> None:
        """Each fault in turn for the next requests of `path`."""
        self.faults.setdefault(path, []).extend(faults)

    def break_always(self, path: str, fault: Fault) -> None:
        self.faults[path] = [fault] * 1000

    def requests(self, pattern: str, method: str = "GET") -> list[Request]:
        return [each for each in self.log if each.method == method and re.search(pattern, each.path)]

    def sent(self) -> int:
        """Bytes of files that went out so far."""
        return sum(each.sent for each in self.log)

    def forget(self) -> None:
        """What was asked so far, and the faults still waiting."""
        self.log.clear()
        self.faults.clear()

    def reset(self) -> None:
        """As new: no repository, no fault, and connections that hang let go."""
        self.closing.set()
        self.__dict__.update(Hub(url=self.url, cdn=self.cdn).__dict__)


class Handler(BaseHTTPRequestHandler):
    """One connection: logs the request, knows the forms of answers; `dispatch` decides which."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or every answer in two writes waits 40 ms for the client's acknowledgement
    server: _Server
    request_log: Request

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.handle_request()

    def do_GET(self) -> None:
        self.handle_request()

    def handle_request(self) -> None:
        hub, url = self.server.hub, urlsplit(self.path)
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(found[1]) if found and hub.ranges else 0
        self.request_log = Request(self.command, unquote(self.path), start, self.headers.get("Authorization"), self.server.server_port)
        hub.log.append(self.request_log)
        self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
        try:
            self.dispatch()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def dispatch(self) -> None:
        """Answer one request: see hub_apis.AllHubs."""
        raise NotImplementedError

    # Answers

    def answer(self, body: bytes, code: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, content: object) -> None:
        self.answer(json.dumps(content).encode(), 200, {"Content-Type": "application/json"})

    def send_file(self, data: bytes, headers: dict[str, str] | None = None, stop_after: int | None = None) -> None:
        """A file or the rest of it, at the ordered speed; `stop_after`: so many bytes of the whole file, and no more."""
        hub, start = self.server.hub, self.request_log.start
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        for name, value in {"Content-Length": str(len(data) - start), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        end = len(data) if stop_after is None else max(start, stop_after)
        step = 8192 if hub.bytes_per_s else 1 << 20
        for at in range(start, end, step):
            chunk = data[at : min(at + step, end)]
            self.wfile.write(chunk)
            self.request_log.sent += len(chunk)
            if hub.bytes_per_s:
                time.sleep(len(chunk) / hub.bytes_per_s)

    def hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    # What all hubs share

    def fault(self, path: str, data: bytes = b"") -> bool:
        """Whether an ordered fault has dealt with the request."""
        waiting = self.server.hub.faults.get(path, [])
        return self.command == "GET" and bool(waiting) and waiting.pop(0)(self, data)

    def repo(self, name: str, revision: str = "main") -> Repo | None:
        repo = self.server.hub.repos.get(name)
        if repo is None or (repo.private and not self.headers.get("Authorization")):
            self.answer(b"", 401 if repo is None else 403, {"X-Error-Code": "RepoNotFound" if repo is None else "GatedRepo"})
        elif revision not in repo.revisions():
            self.answer(b"", 404, {"X-Error-Code": "RevisionNotFound"})
        else:
            return repo
        return None

    def lie(self, path: str, entry: dict[str, Any]) -> dict[str, Any]:
        lies = self.server.hub.lie
        return {key: lies.get(f"{path}.{key}", value) for key, value in entry.items()}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: Hub

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of the tests."""


@contextmanager
def running(handler: type[Handler]) -> Iterator[Hub]:
    """A hub and its CDN, on two ports of loopback."""
    hub, servers = Hub(), []
    for _ in range(2):
        server = _Server(("127.0.0.1", 0), handler)
        server.hub = hub
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        servers.append(server)
    hub.url, hub.cdn = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    try:
        yield hub
    finally:
        hub.reset()
        for server in servers:
            server.shutdown()
            server.server_close()
