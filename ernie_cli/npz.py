"""Named arrays in .npz files, read without trusting them and written whole or not at all."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from . import host
from .errors import InputError, ResourceError, UsageError
from .staging import fsync

_MAKE = "make it with numpy.savez(FILE, name=array, …)"


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Every array of the file by name, in the file's order. bfloat16 arrives as numpy keeps it: two opaque bytes (see `typed`).

    Raises InputError where the file is missing, no .npz, damaged or holds Python objects (loading those runs code),
    ResourceError where memory will not hold it.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"no such file: {file}", _MAKE)
    try:
        _check_size(file)
        with np.load(file, allow_pickle=False) as arrays:
            return {name: _array(arrays[name], name) for name in arrays.files}
    except (OSError, ValueError, KeyError, EOFError, SyntaxError, zlib.error, zipfile.BadZipFile, NotImplementedError, TypeError) as err:
        raise InputError(
            f"{file}: not an .npz of plain arrays: {str(err).splitlines()[0] if str(err) else type(err).__name__}", _MAKE
        ) from err
    except MemoryError as err:
        raise ResourceError(f"{file}: too large for memory", "split it") from err


def _array(value: object, name: str) -> np.ndarray:
    if not isinstance(value, np.ndarray):  # numpy hands out the bytes of what does not begin as an array does
        raise ValueError(f"{name!r:.60} is no array")
    return value


def _check_size(file: Path) -> None:
    if not zipfile.is_zipfile(file):
        raise ValueError("it is no zip archive")
    with zipfile.ZipFile(file) as archive:
        n_bytes = sum(entry.file_size for entry in archive.infolist())
        members = [entry.filename for entry in archive.infolist() if not entry.filename.endswith(".npy")]
    if members:
        raise ValueError(f"it holds {members[0]!r:.60}, which is no array")
    if n_bytes > host.memory().available:
        raise ResourceError(f"{file}: {n_bytes} bytes of arrays, more than memory has free", "split it")


def typed(array: np.ndarray, dtype: str) -> np.ndarray:
    """An array of the file as `dtype` where .npz could not say so: bfloat16 and float8 come back as opaque bytes."""
    if dtype and array.dtype.kind == "V":
        import ml_dtypes

        wanted = np.dtype(getattr(ml_dtypes, dtype)) if hasattr(ml_dtypes, dtype) else None
        if wanted is not None and wanted.itemsize == array.dtype.itemsize:
            return array.view(wanted)
    return array


def check_out(path: Path) -> None:
    """Raise UsageError where `path` cannot become a file: before the work that would fill it."""
    if (path.exists() and not path.is_file()) or not path.absolute().parent.is_dir():
        raise UsageError(f"cannot write {path}: a file in an existing folder is needed", "-o y.npz")


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write all arrays, replacing an older file in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        fsync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
