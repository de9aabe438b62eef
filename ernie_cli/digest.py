"""What a manifest says of a file: its size and its sha256. Files that are still being written: checkpoint/stream.py."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .staging import fsync

_PIECE_BYTES = 1 << 20


def sha256_of(path: Path, advance: Callable[[float], object] = lambda _: None) -> str:
    """The sha256 of a file of any size, read in pieces; `advance` hears how many bytes each had."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while piece := handle.read(_PIECE_BYTES):
            digest.update(piece)
            advance(len(piece))
    return digest.hexdigest()


def facts_of(path: Path) -> dict[str, Any]:
    """{size, sha256}, as the manifest lists a file."""
    return {"size": path.stat().st_size, "sha256": sha256_of(path)}


def flushed_facts_of(path: Path) -> dict[str, Any]:
    """As `facts_of`, of a file that was just written: while it is read, the disk takes it. Raises OSError where the disk cannot."""
    with ThreadPoolExecutor(1) as disk:
        flushed = disk.submit(fsync, path)
        facts = facts_of(path)
        flushed.result()
    return facts
