"""The catalogue: every published repository, reachable by a name."""

from __future__ import annotations

import json

import pytest

from ernie_cli import app, catalog
from ernie_cli.named import EMBEDDED

SIZES = ("0.3B", "21B-A3B", "300B-A47B", "VL-28B-A3B", "VL-424B-A47B")
QUANTISED = ("FP8", "W4A8C8-TP4", "2Bits", "2Bits-TP2", "2Bits-TP4")
REPOS = {
    *(f"baidu/ERNIE-4.5-{size}{base}-{layout}" for size in SIZES for base in ("", "-Base") for layout in ("PT", "Paddle")),
    *(f"baidu/ERNIE-4.5-300B-A47B-{kind}-Paddle" for kind in QUANTISED),
    *(f"baidu/ERNIE-4.5-{size}-Thinking" for size in ("21B-A3B", "VL-28B-A3B")),
}


def test_every_published_repository_has_a_name_and_every_name_a_repository() -> None:
    found = {entry.repo(name, "hf") for entry in catalog.entries() for name in entry.names}
    assert found == REPOS


@pytest.mark.parametrize(
    ("name", "source", "repo"),
    [
        ("ernie-4.5-0.3b", "hf", "baidu/ERNIE-4.5-0.3B-PT"),
        ("ernie-4.5-0.3b-paddle", "hf", "baidu/ERNIE-4.5-0.3B-Paddle"),
        ("ernie-4.5-0.3b-base", "aistudio", "PaddlePaddle/ERNIE-4.5-0.3B-Base-PT"),
        ("ERNIE-4.5-21B-A3B-Thinking", "modelscope", "PaddlePaddle/ERNIE-4.5-21B-A3B-Thinking"),
        ("ernie-4.5-300b-a47b-2bits-tp2", "hf", "baidu/ERNIE-4.5-300B-A47B-2Bits-TP2-Paddle"),
    ],
)
def test_names(name: str, source: str, repo: str) -> None:
    entry = catalog.find(name)
    assert entry is not None
    assert entry.repo(name.lower(), source) == repo


def test_no_two_models_share_a_name() -> None:
    names = [name for entry in catalog.entries() for name in entry.names]
    assert len(names) == len(set(names))
    assert EMBEDDED not in names


@pytest.mark.parametrize("typed", ["ernie-4.5-0.3", "baidu/ERNIE-4.5-0.3B-Pt", "ernie4.5-0.3b"])
def test_a_slip_finds_the_nearest_name(typed: str) -> None:
    assert catalog.closest(typed).startswith("ernie-4.5-0.3b")


@pytest.mark.parametrize("typed", ["llama", "./folder", "a/b/c", "..", "org/..", "", "baidu/tiny;rm"])
def test_what_is_no_name_is_a_usage_error(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["download", typed]) == 2
    assert "hint: " in capsys.readouterr().err


def test_no_argument_lists_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["download"]) == 0
    listed = capsys.readouterr().out
    assert all(entry.name in listed for entry in catalog.entries())
    assert EMBEDDED in listed
    assert app.main(["download", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["models"]
    assert {repo["hf"] for entry in entries for repo in entry["repos"].values()} == REPOS
