"""What this machine has: processor, memory, disk. Read from the system, container limits included; knows no GPU.

Linux first (/proc, /sys); elsewhere the figures that Python itself can give, and None for the rest.
"""

from __future__ import annotations

import math
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

#: The kernel's names of instruction sets that decide how fast a language model runs here → the names people use.
_FEATURES = {
    "avx2": "avx2", "f16c": "f16c", "avx_vnni": "avx_vnni",
    "avx512f": "avx512f", "avx512_vnni": "avx512_vnni", "avx512_bf16": "avx512_bf16", "avx512_fp16": "avx512_fp16",
    "amx_tile": "amx_tile", "amx_int8": "amx_int8", "amx_bf16": "amx_bf16",
    "asimd": "neon", "asimdhp": "fp16", "asimddp": "dotprod", "i8mm": "i8mm", "bf16": "bf16", "sve": "sve", "sve2": "sve2",
}  # fmt: skip


@dataclass(frozen=True)
class Cpu:
    """cores: what this process may use (affinity and container quota), not what is soldered in."""

    model: str
    architecture: str
    cores: int
    features: tuple[str, ...]


@dataclass(frozen=True)
class Memory:
    """Bytes. `limit` is the container's, None without one; `total` and `available` already respect it."""

    total: int
    available: int
    limit: int | None


def cpu() -> Cpu:
    """The processor, as the kernel describes it."""
    facts = _cpuinfo()
    words = set((facts.get("flags") or facts.get("Features") or "").split())
    features = tuple(name for flag, name in _FEATURES.items() if flag in words)
    model = facts.get("model name") or board() or platform.processor() or "unknown"
    return Cpu(model, platform.machine(), cores(), features)


def board() -> str:
    """The name of a single-board computer ("NVIDIA Jetson AGX Orin Developer Kit"), "" on anything else."""
    return _read(Path("/proc/device-tree/model")).strip("\0\n ")


def cores() -> int:
    """How many cores this process may keep busy."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read(Path("/sys/fs/cgroup/cpu.max")).strip().partition(" ")
    if quota.isdigit() and period.isdigit():
        return max(1, min(allowed, math.ceil(int(quota) / int(period))))
    return allowed


def memory() -> Memory:
    """Main memory, or the container's share of it."""
    facts = dict(line.split(":", 1) for line in _read(Path("/proc/meminfo")).splitlines() if ":" in line)
    total = _kib(facts.get("MemTotal", "")) or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    available = _kib(facts.get("MemAvailable", "")) or total
    limits = [found for group in _memory_groups() if (found := _group_limit(group))]
    if not limits:
        return Memory(total, available, None)
    limit = min(limit for limit, _ in limits)
    return Memory(min(total, limit), max(0, min(available, *(limit - used for limit, used in limits))), limit)


def disk_free(path: Path) -> int:
    """Bytes free where `path` is or would be made."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def _cpuinfo() -> dict[str, str]:
    """The first processor's block of /proc/cpuinfo, {} where there is none."""
    first = _read(Path("/proc/cpuinfo")).partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _memory_groups() -> list[Path]:
    """The control groups, innermost first, whose memory limits apply to this process (version 1 or 2)."""
    root, groups = Path("/sys/fs/cgroup"), []
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers in ("", "memory"):
            base = root / controllers
            here = base / path.strip("/")
            groups += [group for group in (here, *here.parents) if group == base or base in group.parents]
    return groups


def _group_limit(group: Path) -> tuple[int, int] | None:
    """(limit, bytes in use that cannot be given back) of a control group, None where it has no limit."""
    for limit_name, usage_name, cache_name in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit, usage = _read(group / limit_name).strip(), _read(group / usage_name).strip()
        if limit.isdigit() and usage.isdigit() and int(limit) < 1 << 60:  # version 1 says "no limit" with a huge number
            stat = dict(line.split(" ", 1) for line in _read(group / "memory.stat").splitlines() if " " in line)
            return int(limit), max(0, int(usage) - int(stat.get(cache_name, "0")))
    return None


def _kib(text: str) -> int:
    """' 24567890 kB' → bytes; 0 where it says nothing."""
    words = text.split()
    return int(words[0]) * 1024 if words and words[0].isdigit() else 0


def _read(path: Path) -> str:
    """A small system file, "" where this system has none or hides it."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
