"""Shared by every room: tiny seeded checkpoints made by transformers, an implementation that no one here wrote."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_checkpoint import make_checkpoint

from ernie_cli import console

# One thread each: the suite's processes and libraries share few cores, and results do not depend on it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "0")

# A shell that starts the suite in the background leaves SIGINT ignored, and children inherit that: tests of Ctrl-C need it back.
signal.signal(signal.SIGINT, signal.default_int_handler)


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
