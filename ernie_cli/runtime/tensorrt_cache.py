"""TensorRT-RTX's runtime cache beside an engine: kernels compiled for this GPU, so that the next start need not compile them again.

Never needed: whatever is wrong with the file, the engine runs without. The digest guards against damage, not against people: whoever
may write here may exchange the engine, too. Whether a cache fits GPU, driver and library is judged by the library.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from .. import console
from ..staging import write_file

_MAGIC = b"ernie runtime cache 1\n"
#: A larger file is no cache of ours: those of whole language models stay far below.
_MOST_BYTES = 1 << 30


def place(folder: Path, version: str, capability: str) -> Path:
    """The file for this release of the library and this kind of GPU: a folder may be shared between machines."""
    return folder / f"runtime-{version}-sm{capability.replace('.', '')}.cache"


def read(file: Path) -> bytes | None:
    """What `write` put there, None where there is nothing or it is damaged."""
    try:
        if not file.is_file() or file.stat().st_size > _MOST_BYTES:
            return None
        content = file.read_bytes()
    except OSError as err:
        console.detail(f"{file}: the runtime cache cannot be read: {err}")
        return None
    head, digest, blob = content[: len(_MAGIC)], content[len(_MAGIC) :][:32], content[len(_MAGIC) + 32 :]
    if head != _MAGIC or hashlib.sha256(blob).digest() != digest:
        console.detail(f"{file}: the runtime cache is damaged; it is made again")
        return None
    return blob


def write(file: Path, blob: bytes) -> None:
    """Keep a cache, whole or not at all. A folder that may not be written is no reason to fail."""
    try:
        write_file(file, _MAGIC + hashlib.sha256(blob).digest() + blob)
    except OSError as err:
        console.detail(f"{file}: the runtime cache cannot be kept: {err}")
