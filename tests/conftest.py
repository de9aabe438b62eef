"""Shared by every room: tiny seeded checkpoints made by transformers, an implementation that no one here wrote."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Generator
from functools import cache
from pathlib import Path
from typing import Any

import forks
import pytest
from tiny_checkpoint import make_checkpoint

from ernie_cli import app, console, nvml
from ernie_cli.pdmodel import child

# One thread each: the suite's processes and libraries share few cores, and results do not depend on it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "0")
# What asks for as many threads as there are cores gets one, too: each process of the suite has a core for itself and what it
# starts. Threads that wait for others' in a loop, as ONNX Runtime's and torch's do, took most of the time otherwise.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if cores:
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})

# A shell that starts the suite in the background leaves SIGINT ignored, and children inherit that: tests of Ctrl-C need it back.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Paddle's processes are forks of one that has loaded it.
forks.install()
# typer takes 2 to 9 ms to put a command together: once for each, not in each of thousands of calls.
app.build = cache(app.build)


@pytest.fixture
def cold_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paddle's processes start as they do for users."""
    monkeypatch.setattr(child, "subprocess", subprocess)


@pytest.fixture(autouse=True)
def one_voice_per_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command run inside the tests' process sets --json and -q for it all: the next test must not hear of it."""
    monkeypatch.setattr(console, "settings", console.Settings())


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., tuple[Path, Any]]:
    """`checkpoint(**config)` → (folder, transformers model)."""

    def make(name: str = "hf", **changes: Any) -> tuple[Path, Any]:
        return tmp_path / name, make_checkpoint(tmp_path / name, **changes)

    return make


@pytest.fixture
def peak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """`peak()` → the most bytes that lay in tmp_path at once, of the times when a file or folder was removed and of now."""
    remove_folder, remove_file, seen = shutil.rmtree, Path.unlink, [0]

    def look() -> int:
        seen.append(sum(size(file) for file in tmp_path.rglob("*") if file.is_file()))
        return max(seen)

    def size(file: Path) -> int:
        try:
            return file.stat().st_size
        except FileNotFoundError:  # a process of the work took it away meanwhile
            return 0

    def looked(remove: Callable[..., None]) -> Callable[..., None]:
        def instead(*given: Any, **more: Any) -> None:
            look()
            remove(*given, **more)

        return instead

    monkeypatch.setattr(shutil, "rmtree", looked(remove_folder))
    monkeypatch.setattr(Path, "unlink", looked(remove_file))
    return look


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-gpu", action="store_true", help="fail, not skip, the tests marked gpu where there is no GPU")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With --require-gpu, what a test marked gpu needs is there, or it failed: fixtures skip where the GPU is missing or out of reach."""
    report = yield
    wanted = item.config.getoption("--require-gpu") and item.get_closest_marker("gpu") is not None
    if wanted and report.when == "setup" and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = "failed", f"--require-gpu: {report.longreprtext}"
    return report


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked gpu say why they did not run."""
    if config.getoption("--require-gpu") or not any(item.get_closest_marker("gpu") for item in items):
        return
    driver = nvml.read()
    if not driver.gpus:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=f"needs an NVIDIA GPU: {driver.problem}"))
