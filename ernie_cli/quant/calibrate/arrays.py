"""Arrays in .npz files → a model's inputs, one sample at a time. Files are read one by one, when their samples are asked for."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ... import npz
from ...errors import InputError, UsageError
from ...runtime.graphs import TensorSpec
from .inputs import Inputs, shown
from .sample import Sample, chosen


def read(files: Sequence[Path], inputs: Inputs, samples: int, seed: int) -> tuple[list[Sample], str]:
    """(samples, what they are in words). Raises InputError where a file or its numbers are broken, UsageError where they do not fit."""
    found = [(file, at, count) for file in files for count in [_count(file, inputs)] for at in range(count)]
    if not found:
        raise InputError(f"{files[0]}: empty: it has no samples", f"arrays with a first axis of samples are wanted: {inputs.names}")
    opened = _Opened(inputs)
    made = [opened.sample(*place) for place in chosen(found, samples, seed)]
    where = files[0].name if len(files) == 1 else f"{len(files)} .npz files"
    return made, f"{where}: {len(made)} samples" + (f" of {len(found)}" if len(made) < len(found) else "")


class _Opened:
    """Holds the last file that was read."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs, self._file, self._arrays = inputs, Path(), dict[str, np.ndarray]()

    def sample(self, file: Path, at: int, count: int) -> Sample:
        with zipfile.ZipFile(file) as archive:  # checksums stand in the archive's directory: no need to read what they are of
            content = sorted((entry.filename, entry.CRC, entry.file_size) for entry in archive.infolist())
        return Sample(hashlib.sha256(repr((content, at)).encode()).hexdigest(), lambda: self._feeds(file, at, count))

    def _feeds(self, file: Path, at: int, count: int) -> dict[str, np.ndarray]:
        if file != self._file:
            self._arrays = {name: npz.typed(array, _dtype(self._inputs, name)) for name, array in npz.read(file).items()}
            self._file = file
        return {spec.name: self._slice(spec, at, count) for spec in self._inputs.specs}

    def _slice(self, spec: TensorSpec, at: int, count: int) -> np.ndarray:
        array, where = self._arrays[spec.name], f"{self._file}: `{spec.name}`"
        rank = len(spec.shape) if spec.shape is not None else array.ndim
        if array.ndim == rank + 1:
            value = array[at]
        elif count == 1 or array.ndim == 0:
            value = array
        else:
            rows = len(array) // count
            value = array[at * rows : (at + 1) * rows]
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            bad = "NaN" if np.isnan(value).any() else "infinite numbers"
            raise InputError(f"{where} holds {bad} (sample {at})", "leave such samples out")
        return _cast(value, spec, where)


def _cast(value: np.ndarray, spec: TensorSpec, where: str) -> np.ndarray:
    import ml_dtypes

    wanted = np.dtype(ml_dtypes.bfloat16 if spec.dtype == "bfloat16" else spec.dtype or value.dtype)
    cast = np.ascontiguousarray(value.astype(wanted))
    if wanted.kind in "iu" and not np.array_equal(cast, value):
        raise InputError(f"{where} holds {value.min()} to {value.max()}, more than {spec.dtype} can", "is it the right array?")
    return cast


def _dtype(inputs: Inputs, name: str) -> str:
    return next((spec.dtype for spec in inputs.specs if spec.name == name), "")


def _count(file: Path, inputs: Inputs) -> int:
    """How many samples a file holds, from its headers alone."""
    heads = _headers(file)
    missing = [spec.name for spec in inputs.specs if spec.name not in heads]
    if missing:
        what = f"{file}: no array named `{missing[0]}`; it has {', '.join(list(heads)[:6]) or 'none'}"
        raise UsageError(what, f"the inputs are {inputs.names}")
    counts = {}
    for spec in inputs.specs:
        shape, dtype = heads[spec.name]
        counts[spec.name] = _samples(shape, spec, f"{file}: `{spec.name}`")
        if not _same_kind(dtype, spec.dtype):
            what = f"{file}: `{spec.name}` is {dtype}, {spec.dtype} expected"
            raise UsageError(
                what, f"convert it: array.astype('{spec.dtype}')" + (", divided by 255 and normalised" if dtype == "uint8" else "")
            )
    told = {name: count for name, count in counts.items() if count is not None}
    if len(set(told.values())) > 1:
        said = ", ".join(f"`{name}` {count}" for name, count in told.items())
        raise UsageError(f"{file}: arrays of different numbers of samples: {said}", "give each the same first axis")
    return next(iter(told.values()), 1)


def _samples(shape: tuple[int, ...], spec: TensorSpec, where: str) -> int | None:
    """Samples in an array; None where all share it (a scalar)."""
    want = spec.shape
    if want is None:
        return shape[0] if shape else None
    inner = shape[1:] if len(shape) == len(want) + 1 else shape
    stacked = len(shape) == len(want) + 1
    fits = len(inner) == len(want) and all(
        not isinstance(length, int) or length == has or (at == 0 and not stacked and length > 0 and has % length == 0)
        for at, (length, has) in enumerate(zip(want, inner, strict=True))
    )
    if not fits:
        hint = "the first axis may be longer: it counts samples"
        raise UsageError(f"{where} has shape {list(shape)}, {shown(spec)} expected", hint)
    if stacked:
        return shape[0]
    if not want:
        return None
    return shape[0] // want[0] if isinstance(want[0], int) else shape[0]


def _same_kind(has: str, want: str) -> bool:
    """Whether numbers may be cast without a change of meaning: floats to floats, integers to integers."""
    kinds = [next((kind for kind in ("float", "int", "bool") if kind in name), name) for name in (has, want)]
    return not want or kinds[0] == kinds[1] or (has.startswith("|V") and want in ("bfloat16",))


def _headers(file: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Array name → (shape, dtype), without reading the arrays. Raises InputError for what is no .npz."""
    try:
        with zipfile.ZipFile(file) as archive:
            return {entry.filename.removesuffix(".npy"): _header(archive, entry) for entry in archive.infolist()}
    except (OSError, ValueError, EOFError, SyntaxError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as err:
        reason = str(err).splitlines()[0] if str(err) else type(err).__name__
        raise InputError(f"{file}: not an .npz of plain arrays: {reason}", "make it with numpy.savez(FILE, name=array, …)") from err


def _header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> tuple[tuple[int, ...], str]:
    import zlib

    try:
        with archive.open(entry) as member:
            version = np.lib.format.read_magic(member)
            reader: Any = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = reader(member)
    except zlib.error as err:
        raise ValueError(str(err)) from err
    if dtype.hasobject:
        raise ValueError(f"{entry.filename!r:.60} holds Python objects")
    return tuple(int(length) for length in shape), str(dtype)
