"""Which GPU this process works on. What is on it is memory.py's."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...errors import UsageError
from .binding import call, constant


@dataclass(frozen=True)
class Gpu:
    """index: CUDA's number of it. capability: "8.9"."""

    index: int
    name: str
    capability: str

    def __str__(self) -> str:
        return f"cuda:{self.index} {self.name}"


def number(device: str) -> int:
    """ "auto", "cuda" and "cuda:0" → 0, "cuda:1" → 1. Raises UsageError for anything else."""
    found = re.fullmatch(r"auto|cuda(?::(\d{1,3}))?", device)
    if not found:
        raise UsageError(f"an engine runs on a GPU, not on `{device}`", "--device cuda, or cuda:1 for the second GPU")
    return int(found[1] or 0)


def take(device: str = "auto") -> Gpu:
    """Make a GPU the one that this process's calls go to. Raises MissingError where there is none of this number."""
    index = number(device)
    call("cudaGetDeviceCount")  # says so where there is none; cudaSetDevice alone is less clear
    call("cudaSetDevice", index)
    name = call("cudaGetDeviceProperties", index).name
    major, minor = (
        call("cudaDeviceGetAttribute", constant("cudaDeviceAttr", f"cudaDevAttrComputeCapability{part}"), index)
        for part in ("Major", "Minor")
    )
    return Gpu(index, name.decode(errors="replace").rstrip("\0") if isinstance(name, bytes) else str(name), f"{major}.{minor}")


def memory() -> tuple[int, int]:
    """(free, all) bytes of the GPU that was taken."""
    free, total = call("cudaMemGetInfo")
    return int(free), int(total)
