"""All or nothing: a result folder appears whole, by rename, or not at all.

`with staged(out) as folder:` hands out `<out>.partial`, to be filled; leaving the block flushes every file to disk and
renames. An exception removes it; a kill leaves it, and the next run for the same `out` starts it afresh (or, with
`resume=True`, finds what is there: a download keeps its half-fetched files).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import ErnieError, UsageError

MANIFEST = "ernie.json"
_LONGEST_NAME = 255  # bytes, of all file systems in use


class Busy(UsageError):
    """Another process is making the same result."""


@contextmanager
def staged(out: Path, *, resume: bool = False, keep_on_error: bool = False) -> Iterator[Path]:
    """Yield `<out>.partial`; on success it becomes `out`, replacing an older result of ours.

    Raises UsageError where `out` holds something this tool did not make, Busy where another process is making it.
    With `keep_on_error` an exception leaves the partial folder for the next run to resume.
    """
    out = Path(os.path.realpath(out))  # where `out` is a link, what it points to is replaced
    check_replaceable(out)
    partial = _partial(out)
    partial.parent.mkdir(parents=True, exist_ok=True)
    lock = None
    try:
        lock = _locked(partial, out)
        _recover(out)
        if not resume:
            _empty(partial)
        yield partial
        _publish(partial, out)
    except BaseException:
        if lock is None:  # an interrupt may come between making the folder and locking it
            _remove_unused(partial)
        elif not keep_on_error:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        if lock is not None:
            os.close(lock)


def wait_for(out: Path) -> None:
    """Return when no other process is making `out` (any more)."""
    try:
        lock = os.open(_partial(Path(os.path.realpath(out))), os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    finally:
        os.close(lock)


def _partial(out: Path) -> Path:
    return out.with_name(out.name + ".partial")


def _locked(partial: Path, out: Path) -> int:
    """A descriptor of the folder `partial`, made if need be, that no other process has a lock on."""
    while True:
        if partial.is_symlink() or (partial.exists() and not partial.is_dir()):
            raise UsageError(f"{partial} is in the way: the result is prepared there", "move it, or choose another -o")
        partial.mkdir(exist_ok=True)
        lock = os.open(partial, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if partial.is_dir() and os.path.samestat(os.fstat(lock), partial.stat()):
                return lock
        except BlockingIOError as err:
            os.close(lock)
            raise Busy(f"another ernie is making {out} right now", "wait for it, or choose another -o") from err
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # between mkdir and lock another process finished and took the folder away


def _remove_unused(partial: Path) -> None:
    """Take the folder away where it is empty and no process has a lock on it."""
    with suppress(OSError):  # it is not there, or is somebody's
        lock = os.open(partial, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            partial.rmdir()
        finally:
            os.close(lock)


def check_replaceable(out: Path) -> None:
    """Raise UsageError unless `out` is free: absent, an empty folder, or a folder this tool made (it holds ernie.json)."""
    if out.is_mount():
        raise UsageError(f"{out} is a mount point, which cannot be replaced as a whole", f"choose a folder in it: -o {out / 'model'}")
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
    # A path that is no UTF-8 becomes \udcXX, which JSON reads back as it was.
    temporary.write_bytes(data.encode(errors="backslashreplace") if isinstance(data, str) else data)
    fsync(temporary)
    temporary.replace(path)


def safe_join(folder: Path, name: str) -> Path:
    """`folder / name`, where `name` comes from an index or a server and may not leave the folder.

    Raises ErnieError's InputError for absolute paths, `..`, backslashes, drive letters, NULs and names longer than any file's.
    """
    from .errors import InputError

    parts = name.split("/")
    bad = not name or "\0" in name or "\\" in name or ":" in name or name.startswith("/") or any(p in ("", ".", "..") for p in parts)
    if any(len(part.encode(errors="replace")) > _LONGEST_NAME for part in parts):
        raise InputError(f"{folder}: refuses the file name {name[:40]!r}…: it is longer than any file's", "do not trust this source")
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
    if out.exists() and _swap(partial, out):
        old = partial
    else:
        old = _replaced(out)
        if out.exists():
            out.rename(old)
        partial.rename(out)
    fsync(out.parent)
    shutil.rmtree(old, ignore_errors=True)


def _swap(a: Path, b: Path) -> bool:
    """Exchange two folders in one step, so that at no moment either name is missing. False where system or disk cannot."""
    libc = ctypes.CDLL(None)
    names = os.fsencode(a), os.fsencode(b)
    if hasattr(libc, "renameat2"):  # Linux: renameat2(2), -100 is AT_FDCWD, 2 is RENAME_EXCHANGE
        return bool(libc.renameat2(-100, names[0], -100, names[1], 2) == 0)
    if hasattr(libc, "renamex_np"):  # macOS: renamex_np(2), 2 is RENAME_SWAP
        return bool(libc.renamex_np(*names, 2) == 0)
    return False


def _replaced(out: Path) -> Path:
    """Where the old result stands between two renames, where swapping is not possible."""
    return out.with_name(f".{out.name}.replaced-by-ernie")


def _recover(out: Path) -> None:
    """After a kill between those renames the old result comes back. Only for who holds the lock."""
    old = _replaced(out)
    if old.is_dir() and not out.exists():
        old.rename(out)
    elif old.is_dir():
        shutil.rmtree(old, ignore_errors=True)
