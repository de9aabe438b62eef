"""The first bytes of a plan, as seen in those of TensorRT-RTX 1.7: which release wrote it, for which GPUs, and how long it is.

Runs no native code. A plan's layout is nobody's promise: where these bytes look otherwise, nothing is concluded. Whether the file is
whole is the business of the digest in ernie.json.
"""

from __future__ import annotations

import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

#: magic, 0, a count, bytes of the whole file, version as four bytes, magic again, a bit for each of GPUS.
_LAYOUT = struct.Struct("<4sIQQ4B4sQ")
_MAGIC = b"vtrt"
#: Compute capabilities by bit, found by building for each. A portable plan has all but the first, and the next bit besides.
GPUS = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")


@dataclass(frozen=True)
class Header:
    """library, version: what wrote the plan. n_bytes: how long the file was then. capabilities: those that are known here."""

    library: str
    version: str
    n_bytes: int
    capabilities: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {**asdict(self), "capabilities": list(self.capabilities)}


def read(plan: Path) -> Header | None:
    """The header of a plan, None where it is none that is known here. Raises OSError where the file cannot be read."""
    with plan.open("rb") as handle:
        start = handle.read(_LAYOUT.size)
    if len(start) < _LAYOUT.size:
        return None
    magic, zero, _, n_bytes, *version, again, gpus = _LAYOUT.unpack(start)
    if (magic, again) != (_MAGIC, _MAGIC) or zero:
        return None
    found = tuple(name for bit, name in enumerate(GPUS) if gpus >> bit & 1)
    return Header("tensorrt-rtx", ".".join(map(str, version)), n_bytes, found)
