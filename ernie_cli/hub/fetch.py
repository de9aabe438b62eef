"""One file: found whole, resumed, or fetched; hashed as it arrives; in place only when it is what the hub promised.

A half file is named after the content it is to become, so one of another revision is never taken up, and whatever is
taken up is hashed again from its first byte. Which files, and how many at once, is `download.py`'s affair.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import NetworkError
from ..staging import fsync, safe_join
from . import transport
from .listing import HALVES, RemoteFile

_CHUNK_BYTES = 1 << 18
#: So many bytes since the last failure, and it is forgotten: a long download outlives many short cuts.
_PROGRESS_BYTES = 1 << 20
_ATTEMPTS = 6


class Stopped(Exception):
    """Another file failed, or Ctrl-C: this one is left as it is."""


class _Wrong(Exception):
    """What came is not what the hub promised."""


@dataclass(frozen=True)
class Fetched:
    """sha256 of the content; `bytes` that came over the network; how it was `checked`: "sha256", "git" or "size"."""

    sha256: str
    bytes: int
    checked: str


@dataclass(frozen=True)
class Job:
    """What all files of a download share. older: an earlier result in which a file may already be, None without one.
    advance: called with the bytes done (negative where they are thrown away). stop: set when all is to end."""

    folder: Path
    older: Path | None
    auth: Mapping[str, str]
    advance: Callable[[int], None]
    stop: threading.Event


class Hashes:
    """The hashes of a file as it arrives: SHA-256 always, git's where the hub gives no better."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._git = None if file.sha256 or not file.git_oid else hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)

    def update(self, chunk: bytes) -> None:
        self._sha256.update(chunk)
        if self._git:
            self._git.update(chunk)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def fit(self) -> bool:
        """Whether this is the promised content. Git names a large file by its Git LFS pointer, which we can write too."""
        if self._git is None:
            return not self._file.sha256 or self.sha256 == self._file.sha256
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self._file.size}\n".encode()
        of_pointer = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer, usedforsecurity=False).hexdigest()
        return self._file.git_oid in (self._git.hexdigest(), of_pointer)


def fetch(file: RemoteFile, job: Job) -> Fetched:
    """Put `file` into the job's folder. Raises NetworkError, Refused (no access), OSError (disk), or Stopped."""
    target = safe_join(job.folder, file.path)
    checked = "sha256" if file.sha256 else "git" if file.git_oid else "size"
    sha256 = _whole(target, file, job)
    if not sha256 and job.older and (sha256 := _whole(safe_join(job.older, file.path), file, job)):
        _take_over(safe_join(job.older, file.path), target)
    if sha256:
        job.advance(file.size)
        return Fetched(sha256, 0, checked)
    half = half_file(job.folder, file)
    half.parent.mkdir(exist_ok=True)
    with contextlib.closing(_Fetch(file, half, job)) as work:
        sha256 = work.run()
    fsync(half)
    target.parent.mkdir(parents=True, exist_ok=True)
    half.replace(target)
    return Fetched(sha256, work.received, checked)


def half_file(folder: Path, file: RemoteFile) -> Path:
    """Where a file's bytes are collected until it is whole."""
    name = hashlib.sha256(f"{file.path}\0{file.size}\0{file.identity}".encode()).hexdigest()
    return folder / HALVES / name


def have_bytes(file: RemoteFile, folder: Path) -> int:
    """How much of a file is in a staging folder already, by the look of it (nothing is hashed)."""
    for path in (folder / file.path, half_file(folder, file)):
        if file.identity and path.is_file():
            return min(path.stat().st_size, file.size)
    return 0


def _whole(path: Path, file: RemoteFile, job: Job) -> str:
    """The SHA-256 of `path` where it is the promised file, else "". Without a hash from the hub nothing can be known."""
    if not file.identity or path.is_symlink() or not path.is_file() or path.stat().st_size != file.size:
        return ""
    hashes = Hashes(file)
    _hash_file(path, hashes, job)
    return hashes.sha256 if hashes.fit() else ""


def _hash_file(path: Path, hashes: Hashes, job: Job) -> int:
    """Feed a file to `hashes`; its length."""
    total = 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            if job.stop.is_set():
                raise Stopped
            hashes.update(chunk)
            total += len(chunk)
    return total


def _take_over(source: Path, target: Path) -> None:
    """The same file in the older result: linked, as neither will ever be edited, or copied where the disk knows no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


class _Fetch:
    """The work of fetching one file, over as many connections as it takes."""

    def __init__(self, file: RemoteFile, half: Path, job: Job) -> None:
        self.file, self.half, self.job = file, half, job
        self.received = 0  # bytes from the network
        self._done = 0  # bytes of the half file, all of them in _hashes
        self._hashes = Hashes(file)
        self._out = open(half, "r+b" if half.exists() else "w+b", buffering=0)  # noqa: SIM115 (closed by `close`)

    def close(self) -> None:
        self._out.close()

    def run(self) -> str:
        """Fetch until it fits: its SHA-256. What does not fit is fetched once more from the start."""
        self._take_up()
        try:
            self._connect()
        except _Wrong:
            self._restart()
            try:
                self._connect()
            except _Wrong as err:
                self._restart()
                raise NetworkError(
                    f"{self.file.path}: {err}, twice", "the hub's copy may be broken: try again later, or another --source"
                ) from err
        return self._hashes.sha256

    def _take_up(self) -> None:
        """Hash the half that an earlier run left. Without a hash to check the whole by, it is worth nothing."""
        if self.file.identity and self.half.stat().st_size <= self.file.size:
            self._done = _hash_file(self.half, self._hashes, self.job)
            self._out.seek(self._done)
            self.job.advance(self._done)
        else:
            self._restart()

    def _restart(self) -> None:
        self.job.advance(-self._done)
        self._done, self._hashes = 0, Hashes(self.file)
        self._out.seek(0)
        self._out.truncate()

    def _connect(self) -> None:
        """Ask for what is missing until nothing is, and compare. Raises _Wrong, or as `fetch`."""
        patience = transport.Patience(_ATTEMPTS, self.job.stop.wait)
        while self._done < self.file.size:
            if self.job.stop.is_set():
                raise Stopped
            before = self._done
            try:
                self._stream()
            except transport.Dropped as err:
                if self._done - before >= _PROGRESS_BYTES:
                    patience.restore()
                patience.lose(err)
                if not self.file.identity:
                    self._restart()
            except transport.Refused as err:
                if err.status == 416:  # range not satisfiable: the file is not as long as the hub said
                    raise _Wrong("shorter than the hub says") from err
                if err.status in (401, 403):  # a gated model's names are public, its files are not
                    raise
                said = f"the hub lists {self.file.path}, but answers {err.status} to it"
                raise NetworkError(said, "try again later, or another --source") from err
        if not self._hashes.fit():
            raise _Wrong("its hash is not the one that the hub promises")

    def _stream(self) -> None:
        with transport.get(self.file.url, auth=self.job.auth, offset=self._done) as response:
            if self._done and response.status != 206:
                self._restart()  # this server knows no ranges
            self._check_promise(response)
            while self._done < self.file.size:
                chunk = transport.read(response, min(_CHUNK_BYTES, self.file.size - self._done))
                if self.job.stop.is_set():
                    raise Stopped
                if not chunk:
                    raise transport.Dropped(f"{self.file.path}: cut off after {self._done} of {self.file.size} bytes")
                self._write(chunk)

    def _write(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        while view:
            view = view[self._out.write(view) :]
        self._hashes.update(chunk)
        self._done += len(chunk)
        self.received += len(chunk)
        self.job.advance(len(chunk))

    def _check_promise(self, response: http.client.HTTPResponse) -> None:
        """The answer must be about as many bytes as the listing says, and start where we asked."""
        total = response.headers.get("Content-Length", "")
        if response.status == 206:
            spans = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            if not spans or int(spans[1]) != self._done:
                raise _Wrong("the answer starts elsewhere than asked")
            total = spans[2]
        if total.isdigit() and int(total) != self.file.size:
            raise _Wrong(f"{total} bytes long where the hub says {self.file.size}")
