"""The runtime cache is never needed: damage, strangers and folders that may not be written change nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from ernie_cli import console
from ernie_cli.runtime import tensorrt_cache as cache


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    file = cache.place(tmp_path, "1.7.1.116", "8.9")
    assert file.name == "runtime-1.7.1.116-sm89.cache" and cache.read(file) is None
    cache.write(file, b"kernels")
    assert cache.read(file) == b"kernels"
    cache.write(file, b"more kernels")
    assert cache.read(file) == b"more kernels" and [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("damage", ["flipped", "short", "empty", "strange", "folder"])
def test_damage_reads_as_nothing(damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "settings", console.Settings(verbosity=1))
    file = tmp_path / "runtime.cache"
    cache.write(file, b"kernels" * 100)
    whole = file.read_bytes()
    changed = {"flipped": whole[:-1] + b"?", "short": whole[:-9], "empty": b"", "strange": b"#!/bin/sh" * 20}
    file.unlink()
    file.mkdir() if damage == "folder" else file.write_bytes(changed[damage])
    assert cache.read(file) is None
    assert damage == "folder" or "made again" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    cache.write(tmp_path / "gone" / "runtime.cache", b"kernels")
    assert not (tmp_path / "gone").exists()


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "runtime.cache"
    with file.open("wb") as handle:
        handle.truncate(2 << 30)  # sparse
    assert cache.read(file) is None
