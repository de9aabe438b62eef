"""Reads protobuf's wire format with bounds checked: fields by number, nothing else. What the numbers mean is others' affair."""

from __future__ import annotations

from collections.abc import Iterator

_MOST_VARINT_BYTES = 10


class Damaged(ValueError):
    """The bytes are no protobuf message."""


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) in the order they lie: an int for varints and fixed widths, the bytes of strings and messages.

    Raises Damaged where the bytes end too early or are of no known wire type.
    """
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
        elif kind in (1, 5):
            width = 8 if kind == 1 else 4
            yield number, int.from_bytes(_take(data, at, width), "little")
            at += width
        elif kind == 2:
            length, at = _varint(data, at)
            yield number, _take(data, at, length)
            at += length
        else:
            raise Damaged(f"wire type {kind}")


def varints(value: int | memoryview) -> list[int]:
    """A repeated integer field's entry, which is packed or single, as signed 64-bit numbers."""
    if isinstance(value, int):
        return [signed(value)]
    found, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(signed(number))
    return found


def signed(value: int) -> int:
    """Two's complement of 64 bits."""
    return value - (1 << 64) if value >= 1 << 63 else value


def text(value: int | memoryview) -> str:
    """A string field. Bytes that are no UTF-8 are escaped."""
    return bytes(message(value)).decode(errors="backslashreplace")


def message(value: int | memoryview) -> memoryview:
    """A field that must hold bytes. Raises Damaged where it is a number."""
    if isinstance(value, int):
        raise Damaged("a number where a message was expected")
    return value


def number(value: int | memoryview) -> int:
    """A field that must hold a number. Raises Damaged where it is bytes."""
    if not isinstance(value, int):
        raise Damaged("bytes where a number was expected")
    return signed(value)


def _take(data: memoryview, at: int, length: int) -> memoryview:
    if at + length > len(data):
        raise Damaged("it ends too early")
    return data[at : at + length]


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    if at < len(data) and data[at] < 0x80:  # by far the most are of one byte
        return data[at], at + 1
    value = 0
    for index in range(_MOST_VARINT_BYTES):
        if at + index >= len(data):
            raise Damaged("it ends too early")
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & ((1 << 64) - 1), at + index + 1
    raise Damaged("a number of more than ten bytes")
