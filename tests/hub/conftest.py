"""A hub on loopback for every test of this room, and a model for it to hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_apis import AllHubs
from hub_model import Run, model_files
from hub_server import Hub, Repo, running

from ernie_cli import app
from ernie_cli.hub import transport


@pytest.fixture(scope="session")
def server() -> Iterator[Hub]:
    with running(AllHubs) as hub:
        yield hub


@pytest.fixture
def hub(server: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    """The hub, holding `baidu/tiny` and `PaddlePaddle/tiny`; the process's environment points at it, with no token."""
    hub = server
    hub.reset()
    hub.repos["baidu/tiny"] = hub.repos["PaddlePaddle/tiny"] = Repo(model_files())
    for name in ("HF_ENDPOINT", "MODELSCOPE_ENDPOINT", "AISTUDIO_ENDPOINT"):
        monkeypatch.setenv(name, hub.url)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MODELSCOPE_API_TOKEN", "AISTUDIO_ACCESS_TOKEN", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("AISTUDIO_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(transport, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(transport, "LONGEST_WAIT_S", 0.05)
    monkeypatch.setattr(transport, "TIMEOUT_S", 0.3)
    monkeypatch.chdir(tmp_path)
    return hub


@pytest.fixture
def ernie(capsys: pytest.CaptureFixture[str]) -> Run:
    """`ernie("tiny", "-o", "m")` runs `ernie download …` → (exit code, what it said on both streams)."""

    def run(*args: str) -> tuple[int, str]:
        capsys.readouterr()
        code = app.main(["download", *args])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out + said.err

    return run
