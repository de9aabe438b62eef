"""Whether every constant of a parsed model holds the bytes its shape asks for, here or in a file beside it. Reads none of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..need import need
from ..staging import safe_join
from .proto import AGAIN, tensors, text

_STRING, _EXTERNAL = 8, 1
#: Elements, empty axes counted as one: what numpy can make a view of.
_MOST_ELEMENTS = 1 << 60
#: Element types kept in another list than `int32_data` → (the list, its entries per element). From onnx.proto.
_TYPED = {
    1: ("float_data", 1), 7: ("int64_data", 1), 8: ("string_data", 1), 11: ("double_data", 1), 12: ("uint64_data", 1),
    13: ("uint64_data", 1), 14: ("float_data", 2), 15: ("double_data", 2),
}  # fmt: skip


def check(proto: Any, file: Path) -> None:
    """Raise InputError for the first constant whose data is missing, of another length, or outside the model's folder."""
    ranges: dict[str, set[tuple[int, int]]] = {}
    for tensor in tensors(proto):
        name, bits = f"{file}: tensor `{text(tensor.name)}`", _bits(tensor, file)
        count = math.prod(tensor.dims)
        if min(tensor.dims, default=0) < 0 or math.prod(max(1, length) for length in tensor.dims) > _MOST_ELEMENTS:
            raise InputError(f"{name} has the impossible shape {list(tensor.dims)[:8]}", AGAIN)
        if tensor.data_location == _EXTERNAL:
            where, start, end = _external(tensor, file, (count * bits + 7) // 8)
            ranges.setdefault(where, set()).add((start, end))
            continue
        stored, expected = _stored(tensor, count, bits)
        if stored != expected:
            raise InputError(f"{name} of shape {list(tensor.dims)[:8]} takes {expected} and has {stored}", AGAIN)
    for where, spans in ranges.items():
        _check_ranges(file, where, spans)


def _bits(tensor: Any, file: Path) -> int:
    """Bits per element; 0 for strings. onnx-ir knows newer types than an old onnx does."""
    data_type = need("onnx_ir").DataType
    try:
        if tensor.data_type == _STRING:
            return 0
        return int(data_type(tensor.data_type).bitwidth)
    except (ValueError, TypeError) as err:
        raise InputError(f"{file}: tensor `{text(tensor.name)}` is of the unknown type {tensor.data_type}", AGAIN) from err


def _stored(tensor: Any, count: int, bits: int) -> tuple[str, str]:
    """(what is there, what should be), as text."""
    if tensor.HasField("raw_data") and bits:
        return f"{len(tensor.raw_data)} bytes", f"{(count * bits + 7) // 8} bytes"
    field, per_element = _TYPED.get(tensor.data_type, ("int32_data", 1))
    if 0 < bits < 8:  # several per entry
        count = (count * bits + 7) // 8
    return f"{len(getattr(tensor, field))} entries", f"{count * per_element} entries"


def _external(tensor: Any, file: Path, expected: int) -> tuple[str, int, int]:
    """(file's name, first byte, byte after the last) of an external tensor, all numbers checked but the file's size."""
    where = {text(entry.key): text(entry.value) for entry in tensor.external_data}
    location, name = where.get("location", ""), f"{file}: tensor `{text(tensor.name)}`"
    if tensor.data_type == _STRING:
        raise InputError(f"{name} is of strings, which cannot lie in another file", AGAIN)
    safe_join(file.parent, location)
    offset, length = _count(where.get("offset", "0")), _count(where.get("length", str(expected)))
    if offset is None or length is None:
        raise InputError(f"{name} lies at an impossible place of {location}", AGAIN)
    if length != expected:
        raise InputError(f"{name} of shape {list(tensor.dims)[:8]} takes {expected} bytes and has {length} in {location}", AGAIN)
    return location, offset, offset + length


def _count(number: str) -> int | None:
    return int(number) if number.isascii() and number.isdecimal() and len(number) < 20 else None


def _check_ranges(file: Path, location: str, spans: set[tuple[int, int]]) -> None:
    data = safe_join(file.parent, location)
    if not data.is_file():
        raise InputError(f"{data}: the external data of {file.name} is missing", "fetch it too: it belongs beside the .onnx file")
    if not data.resolve().is_relative_to(file.parent.resolve()):
        raise InputError(f"{data}: a link that leaves the model's folder", "copy the file itself beside the .onnx file")
    if data.samefile(file):
        raise InputError(f"{file}: names itself as its external data", AGAIN)
    size, end = data.stat().st_size, max(end for _, end in spans)
    if end > size:
        raise InputError(f"{data}: truncated: {size} bytes where {file.name} reads up to {end}", "fetch or make the model again")
    for (_, end), (start, _) in _neighbours(spans):
        if start < end:
            raise InputError(f"{file}: two tensors share a part of {location}, from byte {start} to {end}", AGAIN)


def _neighbours(spans: set[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Each filled span with the next. Equal ones (tied weights) are one in a set."""
    filled = sorted(span for span in spans if span[0] < span[1])
    return itertools.pairwise(filled)
