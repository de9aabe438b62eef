"""The header of one safetensors file, checked so that every byte range it hands out can be trusted. Reads no tensor data."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from ..errors import InputError
from .quote import short

#: The format's own limit on the header (huggingface/safetensors, README "Format").
MAX_HEADER_BYTES = 100_000_000
#: More JSON values than the largest model's header has (70,000 tensors in one file): bounds the memory a hostile one takes.
_MOST_VALUES = 2_000_000
#: Names and order of the format's types; a file lists the wide types first (safetensors/src/tensor.rs, `Dtype`).
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "I16": np.dtype(np.int16),
    "U16": np.dtype(np.uint16),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I32": np.dtype(np.int32),
    "U32": np.dtype(np.uint32),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
    "I64": np.dtype(np.int64),
    "U64": np.dtype(np.uint64),
}
_MOST_DIMENSIONS = 32  # numpy 1's limit
_AGAIN = "the file is damaged: fetch it again with `ernie download --force`"


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies: `file`, first byte, number of bytes; `dtype` is a key of DTYPES."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    n_bytes: int


def read_entries(file: Path) -> dict[str, Entry]:
    """Every tensor of a safetensors file, in the order of their bytes.

    Raises InputError where the header is not exactly what the format asks: too long, not JSON, a name twice, an unknown
    dtype, a shape that does not fit its byte range, ranges that overlap, leave holes or pass the end of the file.
    """
    n_file = os.path.getsize(file)
    header, data_start = _read_header(file, n_file)
    entries = sorted(_parse(file, header, data_start), key=lambda entry: (entry.start, entry.n_bytes))
    position = data_start
    for entry in entries:
        if entry.start != position:
            kind = "overlaps another" if entry.start < position else "leaves a hole before it"
            raise InputError(f"{file}: the bytes of tensor `{short(entry.name)}` {_range(entry, data_start)}: {kind}", _AGAIN)
        position += entry.n_bytes
    if position != n_file:
        what = f"truncated: {n_file} bytes where its header speaks of {position}"
        raise InputError(f"{file}: {what if n_file < position else f'{n_file - position} bytes belong to no tensor'}", _AGAIN)
    return {entry.name: entry for entry in entries}


def _read_header(file: Path, n_file: int) -> tuple[dict[str, Any], int]:
    if n_file < 8:
        raise InputError(f"{file}: {'empty' if n_file == 0 else f'{n_file} bytes'}: not a safetensors file", _AGAIN)
    with file.open("rb") as handle:
        (n_header,) = struct.unpack("<Q", handle.read(8))
        if n_header > min(MAX_HEADER_BYTES, n_file - 8):
            raise InputError(f"{file}: not a safetensors file, or truncated: header length {n_header} in {n_file} bytes", _AGAIN)
        text = handle.read(n_header)
    if sum(text.count(mark) for mark in (b",", b"[", b"{")) > _MOST_VALUES:
        raise InputError(f"{file}: the header holds more values than any model's", _AGAIN)
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_no_name_twice, parse_int=_offset)
    except (ValueError, RecursionError) as err:
        raise InputError(f"{file}: the header is not valid JSON: {err}", _AGAIN) from err
    if not isinstance(header, dict):
        raise InputError(f"{file}: the header is no JSON object", _AGAIN)
    return header, 8 + n_header


def _offset(digits: str) -> int:
    if len(digits) > 20:  # no file is so large, and parsing endless digits takes endless time
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name, value in pairs:
        if name in table:
            raise ValueError(f"`{short(name)}` stands there twice")
        table[name] = value
    return table


def _parse(file: Path, header: dict[str, Any], data_start: int) -> Iterator[Entry]:
    for name, facts in header.items():
        if name == "__metadata__":
            continue
        try:
            yield _entry(file, name, facts, data_start)
        except (TypeError, ValueError, KeyError) as err:
            reason = f"no {short(err)}" if isinstance(err, KeyError) else str(err)
            raise InputError(f"{file}: tensor `{short(name)}`: {reason}", _AGAIN) from err


def _entry(file: Path, name: str, facts: Any, data_start: int) -> Entry:
    name.encode()  # half a surrogate pair is valid in JSON and nowhere else: a ValueError
    dtype, shape, (begin, end) = facts["dtype"], facts["shape"], facts["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"unknown dtype {short(dtype)}")
    if not isinstance(shape, list) or len(shape) > _MOST_DIMENSIONS or any(type(n) is not int or n < 0 for n in (*shape, begin, end)):
        raise ValueError(f"shape {short(shape)} and data_offsets {short(begin)}, {short(end)} must be whole numbers from 0 up")
    n_bytes = math.prod(shape) * DTYPES[dtype].itemsize
    if end - begin != n_bytes:
        raise ValueError(f"{dtype} {short(shape)} takes {n_bytes} bytes, its range {begin}–{end} has {end - begin}")
    return Entry(name, file, dtype, tuple(shape), data_start + begin, n_bytes)


def _range(entry: Entry, data_start: int) -> str:
    begin = entry.start - data_start
    return f"({begin}–{begin + entry.n_bytes})"
