"""The embedded model: downloaded without a network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hub_model import Run
from hub_server import Hub

from ernie_cli import model, nano
from ernie_cli.named import EMBEDDED


def test_the_embedded_model_needs_no_hub(hub: Hub, ernie: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = ernie(EMBEDDED)
    assert (code, hub.log) == (0, []), said
    folder = Path(EMBEDDED)
    manifest = json.loads((folder / "ernie.json").read_text())
    assert manifest["made_from"]["source"] == "embedded"
    assert model.Model.open(folder).format == "hf"
    assert {path.name: path.read_bytes() for path in nano.path().iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir() if path.name != "ernie.json"
    }
    assert "up to date" in ernie(EMBEDDED)[1]
    assert "up to date" not in ernie(EMBEDDED, "--force")[1]


def test_dry_run(hub: Hub, ernie: Run) -> None:
    code, said = ernie(EMBEDDED.upper(), "-o", "m", "--dry-run")
    assert code == 0
    assert "model.safetensors" in said
    assert not Path("m").exists()


def test_an_installation_without_it_says_so(hub: Hub, ernie: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(nano, "path", lambda: tmp_path / "nothing")
    code, said = ernie(EMBEDDED)
    assert code == 5
    assert "pip install" in said
