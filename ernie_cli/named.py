"""What people may write where a model is expected: a path, or the name of the embedded model."""

from __future__ import annotations

from pathlib import Path

EMBEDDED = "ernie-4.5-nano"


def resolve(name: str) -> Path:
    """`name` as a path; `ernie-4.5-nano` is the embedded model unless something of that name lies here."""
    path = Path(name)
    if name == EMBEDDED and not path.exists():
        from .nano import path as embedded

        return embedded()
    return path
