"""A speaker on the fake backend, and small helpers around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from text_models import write_model

from ernie_cli.generation.reply import Options
from ernie_cli.generation.sampling import Sampling
from ernie_cli.generation.speaker import Speaker, opened


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "chat")


@pytest.fixture
def speak(model: Path) -> Iterator[Callable[..., Speaker]]:
    """speak(max_tokens=…, stop=…, temperature=…, raw=…, batch=…, context=…) → an opened Speaker, closed after the test."""
    with ExitStack() as stack:

        def make(folder: Path = model, **settings: Any) -> Speaker:
            how = {name: settings.pop(name) for name in ("max_tokens", "stop", "ignore_eos") if name in settings}
            drawing = {name: settings.pop(name) for name in ("temperature", "top_k", "seed", "repetition_penalty") if name in settings}
            options = Options(sampling=Sampling(**drawing), **{"max_tokens": 20, **how})
            return stack.enter_context(opened(str(folder), options, backend="fake", **settings))

        yield make
