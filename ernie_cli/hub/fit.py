"""Whether a download fits: the disk it goes to, and the memory of the device that would run it. Rough on the second."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .. import console, device, host
from ..errors import ResourceError
from .fetch import have_bytes
from .listing import RemoteFile

#: Files of these kinds hold weights; the rest is small.
_WEIGHTS = (".safetensors", ".pdparams", ".onnx", ".onnx.data", ".data", ".bin", ".pt", ".pdiparams", ".plan")
#: Left free: the manifest, the folder's own blocks, and somebody else's log file.
_SPARE_BYTES = 16 << 20


@dataclass(frozen=True)
class Fit:
    """One place: what must go in, what it has (None: unknown)."""

    place: str
    needs_bytes: int
    has_bytes: int | None

    @property
    def verdict(self) -> str:
        if self.has_bytes is None:
            return "unknown"
        return "fits" if self.needs_bytes <= self.has_bytes else "too small"


def disk(files: Iterable[RemoteFile], out: Path, *, afresh: bool = False) -> Fit:
    """What is still to come of `files`, against the free space where `out` goes. afresh: nothing there will be used.

    A file of the same name and size in an earlier result counts as there: should it differ, the disk itself will say so.
    """
    places = () if afresh else (out.with_name(out.name + ".partial"), out)
    needs = sum(each.size - max((have_bytes(each, place) for place in places), default=0) for each in files)
    return Fit("disk", needs, host.disk_free(out))


def check_disk(files: Iterable[RemoteFile], out: Path, *, afresh: bool = False) -> None:
    """Raise ResourceError (exit 7) where the disk is too small."""
    found = disk(files, out, afresh=afresh)
    if found.needs_bytes and found.needs_bytes + _SPARE_BYTES > (found.has_bytes or 0):
        room = f"{console.size(found.needs_bytes)} to fetch, {console.size(found.has_bytes or 0)} free"
        raise ResourceError(f"no room for {out}: {room}", "free some space, choose another place with -o, or less with --include")


def memory(files: Iterable[RemoteFile], device_name: str) -> Fit:
    """The weights as stored against the device's memory: a model that does not fit so needs fewer bits or a larger device."""
    target = device.load(device_name)
    weights = sum(each.size for each in files if each.path.endswith(_WEIGHTS))
    return Fit(f"memory of {target.title}", weights, int(target.memory_gb * 1e9) if target.memory_gb else None)
