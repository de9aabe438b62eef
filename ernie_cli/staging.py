"""All or nothing: a result folder appears whole, by rename, or not at all.

`with staged(out) as folder:` hands out `<out>.partial`, to be filled; leaving the block flushes every file to disk and
renames. An exception removes it; a kill leaves it, and the next run for the same `out` starts it afresh (or, with
`resume=True`, finds what is there: a download keeps its half-fetched files).
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ErnieError, UsageError

MANIFEST = "ernie.json"


@contextmanager
def staged(out: Path, *, resume: bool = False, keep_on_error: bool = False) -> Iterator[Path]:
    """Yield `<out>.partial`; on success it becomes `out`, replacing an older result of ours.

    Raises UsageError where `out` holds something this tool did not make, or another process is making it.
    With `keep_on_error` an exception leaves the partial folder for the next run to resume.
    """
    out = Path(os.path.abspath(out))
    recover(out)
    check_replaceable(out)
    partial = out.with_name(out.name + ".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.mkdir(exist_ok=True)
    lock = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise UsageError(f"another ernie is making {out} right now", "wait for it, or choose another -o") from err
        if not resume:
            _empty(partial)
        try:
            yield partial
            _publish(partial, out)
        except BaseException:
            if not keep_on_error:
                shutil.rmtree(partial, ignore_errors=True)
            raise
    finally:
        os.close(lock)


def recover(out: Path) -> None:
    """Finish what a kill between the two renames of an earlier `_publish` left: the old result comes back."""
    old = out.with_name(out.name + ".old")
    if old.exists():
        if out.exists():
            shutil.rmtree(old)
        else:
            old.rename(out)


def check_replaceable(out: Path) -> None:
    """Raise UsageError unless `out` is free: absent, an empty folder, or a folder this tool made (it holds ernie.json)."""
    if not out.exists() or (out.is_dir() and ((out / MANIFEST).is_file() or not any(out.iterdir()))):
        return
    raise UsageError(f"{out} exists and was not made by ernie: it will not be replaced", "choose another place with -o")


def fsync(path: Path) -> None:
    """Flush a file's, or a folder's list of names, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_file(path: Path, data: bytes | str) -> None:
    """Write a small file so that a kill leaves the old content or the new, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data.encode() if isinstance(data, str) else data)
    fsync(temporary)
    temporary.replace(path)


def safe_join(folder: Path, name: str) -> Path:
    """`folder / name`, where `name` comes from an index or a server and may not leave the folder.

    Raises ErnieError's InputError for absolute paths, `..`, backslashes, drive letters, NULs and the manifest's own name.
    """
    from .errors import InputError

    parts = name.split("/")
    bad = not name or "\0" in name or "\\" in name or ":" in name or name.startswith("/") or any(p in ("", ".", "..") for p in parts)
    if bad:
        raise InputError(f"{folder}: refuses the file name {name!r}: it would leave the folder", "do not trust this source")
    return folder.joinpath(*parts)


def _empty(folder: Path) -> None:
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()


def _publish(partial: Path, out: Path) -> None:
    if not any(partial.iterdir()):
        raise ErnieError(f"nothing was written to {partial}")
    for path in partial.rglob("*"):
        fsync(path)
    fsync(partial)
    old = out.with_name(out.name + ".old")
    if out.exists():
        out.rename(old)
    partial.rename(out)
    fsync(out.parent)
    shutil.rmtree(old, ignore_errors=True)
