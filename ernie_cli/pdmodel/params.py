"""Reads the headers of a .pdiparams file without Paddle, and says where it is not what a program asks for.

The file is one record per parameter, sorted by name, without the names: uint32 0, uint64 number of LoD levels (with each
level's bytes), uint32 0, int32 size of a TensorDesc, the TensorDesc, and the raw values (paddle/phi/core/framework/…).
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..runtime.graphs import TensorSpec
from . import legacy, wire
from .program import WIDTHS

_MOST_DESC_BYTES = 1 << 16
_MOST_LOD_LEVELS = 8


@dataclass(frozen=True)
class Record:
    """One tensor of the file. offset, n_bytes: where its values lie."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    n_bytes: int


def read(file: Path, most: int) -> list[Record]:
    """The records of `file`, of which there may be `most` and one. Raises wire.Damaged where one is not whole."""
    size = file.stat().st_size
    found: list[Record] = []
    with file.open("rb") as handle:
        while handle.tell() < size and len(found) <= most:
            found.append(_record(handle, size, len(found)))
    return found


def problem(file: Path, wanted: tuple[TensorSpec, ...]) -> str:
    """What is wrong with `file` as the parameters `wanted`, in one line; "" where nothing is."""
    try:
        found = read(file, len(wanted))
    except wire.Damaged as err:
        return f"truncated or damaged: {err}"
    for index, (spec, record) in enumerate(zip(wanted, found, strict=False)):
        if not _fits(spec, record):
            has = f"{record.dtype} {list(record.shape)}"
            return f"parameters of another model: number {index} is {has} where `{spec.name}` is {spec.dtype} {list(spec.shape or ())}"
    if len(found) != len(wanted):
        more = "more than that" if len(found) > len(wanted) else f"{len(found)}"
        return f"parameters of another model, or truncated: the program has {len(wanted)} parameters, the file {more}"
    return ""


def _fits(spec: TensorSpec, record: Record) -> bool:
    if spec.dtype and spec.dtype != record.dtype:
        return False
    if spec.shape is None:
        return True
    if len(spec.shape) != len(record.shape):
        # scalars are written as [1] by older versions, and the other way round
        return math.prod(record.shape) == 1 and all(length in (1, None) for length in spec.shape)
    return all(want is None or want == has for want, has in zip(spec.shape, record.shape, strict=True))


def _record(handle: BinaryIO, size: int, index: int) -> Record:
    if _number(handle, "<I", index) != 0:
        raise wire.Damaged(f"no tensor begins where number {index} should")
    levels = _number(handle, "<Q", index)
    if levels > _MOST_LOD_LEVELS:
        raise wire.Damaged(f"tensor {index} has {levels} levels")
    for _ in range(levels):
        _skip(handle, _number(handle, "<Q", index), size, index)
    if _number(handle, "<I", index) != 0:
        raise wire.Damaged(f"tensor {index} is of an unknown version")
    length = _number(handle, "<i", index)
    if not 0 < length <= _MOST_DESC_BYTES:
        raise wire.Damaged(f"tensor {index} has a header of {length} bytes")
    data = handle.read(length)
    if len(data) < length:
        raise wire.Damaged(f"it ends in the header of tensor {index}")
    dtype, dims = legacy.tensor_desc(memoryview(data))
    if any(not 0 <= dim < 1 << 40 for dim in dims):
        raise wire.Damaged(f"tensor {index} has the shape {dims[:8]}")
    n_bytes = math.prod(dims) * WIDTHS[dtype]
    offset = handle.tell()
    _skip(handle, n_bytes, size, index)
    return Record(dtype, tuple(dims), offset, n_bytes)


def _number(handle: BinaryIO, form: str, index: int) -> int:
    data = handle.read(struct.calcsize(form))
    if len(data) < struct.calcsize(form):
        raise wire.Damaged(f"it ends in the header of tensor {index}")
    return int(struct.unpack(form, data)[0])


def _skip(handle: BinaryIO, n_bytes: int, size: int, index: int) -> None:
    if handle.tell() + n_bytes > size:
        raise wire.Damaged(f"{size} bytes, where tensor {index} ends at {handle.tell() + n_bytes}")
    handle.seek(n_bytes, 1)
