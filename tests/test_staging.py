"""All or nothing: what stands under a result's name before, between and after, and whose folders are left alone."""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from ernie_cli import staging
from ernie_cli.errors import UsageError
from ernie_cli.staging import MANIFEST, Busy, staged, wait_for


def make(out: Path, text: str) -> None:
    with staged(out) as folder:
        (folder / MANIFEST).write_text(text)


@pytest.mark.parametrize("swaps", [True, False], ids=["swapped at once", "renamed twice"])
def test_a_result_replaces_an_older_one_and_nothing_else(swaps: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not swaps:
        monkeypatch.setattr(staging, "_swap", lambda a, b: False)
    out = tmp_path / "m"
    (tmp_path / "m.old").mkdir()
    (tmp_path / "m.old" / "thesis.txt").write_text("years of work")
    for text in ("first", "second"):
        make(out, text)
        assert (out / MANIFEST).read_text() == text
    assert (tmp_path / "m.old" / "thesis.txt").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "m.old"]


def test_at_no_moment_the_name_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "m", "first")
    monkeypatch.setattr(Path, "rename", lambda self, target: pytest.fail("a rename leaves a gap"))
    make(tmp_path / "m", "second")


def test_a_kill_between_two_renames_is_mended_by_the_next_run(tmp_path: Path) -> None:
    out = tmp_path / "m"
    make(out, "first")
    out.rename(staging._replaced(out))
    with pytest.raises(ValueError, match="failed"), staged(out):
        raise ValueError("failed")
    assert (out / MANIFEST).read_text() == "first"


def test_through_a_link(tmp_path: Path) -> None:
    make(tmp_path / "m", "first")
    (tmp_path / "link").symlink_to("m")
    make(tmp_path / "link", "second")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "m" / MANIFEST).read_text() == "second"


@pytest.mark.parametrize("what", ["file", "link"])
def test_what_stands_in_the_way_is_left_alone(what: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    partial = tmp_path / "m.partial"
    partial.symlink_to("other") if what == "link" else partial.write_text("mine")
    with pytest.raises(UsageError, match="in the way"):
        make(tmp_path / "m", "x")
    assert (tmp_path / "other" / "thesis.txt").exists() and partial.exists()


def test_a_mount_point_is_refused_before_work() -> None:
    with pytest.raises(UsageError, match="mount point"):
        staging.check_replaceable(Path("/proc"))


def _hold(out: Path, begun: object, go_on: object) -> None:
    with staged(out) as folder:
        begun.set()  # type: ignore[attr-defined]
        go_on.wait()  # type: ignore[attr-defined]
        (folder / MANIFEST).write_text("theirs")


def test_two_processes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    begun, go_on = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "m", begun, go_on))
    other.start()
    assert begun.wait(60)
    with pytest.raises(Busy, match="another ernie"):
        make(tmp_path / "m", "ours")
    go_on.set()
    wait_for(tmp_path / "m")
    other.join()
    assert (tmp_path / "m" / MANIFEST).read_text() == "theirs"
    assert os.listdir(tmp_path) == ["m"]


def test_an_interrupt_at_any_line_before_the_work_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C and SIGTERM are raised between any two steps of Python."""

    def until_the_work(strike: int) -> int:
        """Enter the block, interrupted at that line of staging.py; how many lines ran before."""
        lines = 0

        def trace(frame: Any, event: str, arg: object) -> Any:
            nonlocal lines
            if frame.f_code.co_filename != staging.__file__:
                return None
            if event == "line":
                lines += 1
                if lines == strike:
                    raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            with staged(tmp_path / "m"):
                sys.settrace(before)
                raise ValueError  # the work
        except (ValueError, KeyboardInterrupt):
            sys.settrace(before)
        return lines

    whole = until_the_work(0)
    assert whole > 20 and not any(tmp_path.iterdir())
    for strike in range(1, whole + 1):
        assert until_the_work(strike) == strike
        assert not any(tmp_path.iterdir()), f"interrupted at line {strike} of {whole}"
