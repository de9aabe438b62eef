"""The machine as the kernel describes it; containers are described by a tree of files."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from ernie_cli import host

ARM = "processor\t: 0\nBogoMIPS\t: 62.50\nFeatures\t: fp asimd aes asimdhp asimddp i8mm bf16\n\nprocessor\t: 1\n"
X86 = "processor\t: 0\nmodel name\t: Some CPU @ 2.1GHz\nflags\t\t: fpu sse2 avx2 avx512f avx512_vnni amx_tile\n\nprocessor\t: 1\n"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """path → content of the system's files, which the machine's own give way to."""
    content: dict[str, str] = {}
    monkeypatch.setattr(host, "_read", lambda path: content.get(str(path), ""))
    return content


def test_memory_agrees_with_psutil() -> None:
    found, theirs = host.memory(), psutil.virtual_memory()
    assert 0 < found.available <= found.total <= theirs.total
    assert found.limit is not None or found.total == theirs.total


def test_this_processor() -> None:
    found = host.cpu()
    assert found.model and found.architecture and 1 <= found.cores <= (psutil.cpu_count() or 1)


@pytest.mark.parametrize(
    ("text", "model", "features"),
    [(X86, "Some CPU @ 2.1GHz", ("avx2", "avx512f", "avx512_vnni", "amx_tile")), (ARM, None, ("neon", "fp16", "dotprod", "i8mm", "bf16"))],
)
def test_processors(text: str, model: str | None, features: tuple[str, ...], files: dict[str, str]) -> None:
    files["/proc/cpuinfo"] = text
    found = host.cpu()
    assert found.features == features and (model is None or found.model == model)


def test_a_board_is_named(files: dict[str, str]) -> None:
    files["/proc/device-tree/model"] = "NVIDIA Jetson AGX Orin Developer Kit\0"
    files["/proc/cpuinfo"] = ARM
    assert host.board() == host.cpu().model == "NVIDIA Jetson AGX Orin Developer Kit"


def test_quota_of_cores(files: dict[str, str]) -> None:
    files["/sys/fs/cgroup/cpu.max"] = "50000 100000\n"
    assert host.cores() == 1


@pytest.mark.parametrize(
    ("groups", "limit", "available"),
    [
        ({}, None, 6 << 30),
        ({"0::/": {"memory.max": "max", "memory.current": "5"}}, None, 6 << 30),
        (
            {"0::/": {"memory.max": str(2 << 30), "memory.current": str(1 << 30), "memory.stat": f"anon 1\ninactive_file {1 << 29}\n"}},
            2 << 30,
            3 << 29,
        ),
        (
            {"0::/a/b": {"memory.max": str(4 << 30), "memory.current": "0"}, "0::/a": {"memory.max": str(1 << 30), "memory.current": "0"}},
            1 << 30,
            1 << 30,
        ),
        ({"4:memory:/": {"memory.limit_in_bytes": str(3 << 30), "memory.usage_in_bytes": str(1 << 30)}}, 3 << 30, 2 << 30),
        ({"4:memory:/": {"memory.limit_in_bytes": "9223372036854771712", "memory.usage_in_bytes": "1"}}, None, 6 << 30),
    ],
    ids=["none", "v2 unlimited", "v2", "v2 nested", "v1", "v1 unlimited"],
)
def test_memory_in_a_container(groups: dict[str, dict[str, str]], limit: int | None, available: int, files: dict[str, str]) -> None:
    files["/proc/meminfo"] = f"MemTotal: {8 << 20} kB\nMemFree: 1 kB\nMemAvailable: {6 << 20} kB\n"
    files["/proc/self/cgroup"] = "\n".join(list(groups)[:1])
    for group, content in groups.items():
        _, controllers, path = group.split(":")
        for name, text in content.items():
            files[str(Path("/sys/fs/cgroup") / controllers / path.strip("/") / name)] = text
    assert host.memory() == host.Memory(limit or 8 << 30, available, limit)


def test_disk_free_of_a_place_not_yet_made(tmp_path: Path) -> None:
    assert host.disk_free(tmp_path / "not" / "yet") == pytest.approx(psutil.disk_usage(str(tmp_path)).free, rel=0.05)
