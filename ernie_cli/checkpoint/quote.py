"""How names and values that come from files are quoted in messages: on one line, of bounded length, nothing a terminal obeys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_MOST = 80


def short(value: Any) -> str:
    """A string as it is, anything else as Python writes it; unprintable characters escaped, the middle of long ones left out."""
    text = value if isinstance(value, str) else repr(value)
    text = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text[: 4 * _MOST])
    return text if len(text) <= _MOST else f"{text[: _MOST - 3]}..."


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    said = ", ".join(f"`{short(name)}`" for name in names[:most])
    return f"{said} and {len(names) - most} more" if len(names) > most else said
