"""Help is quick to come: no heavy module is loaded for it, in any command; and it shows what it should."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ernie_cli import app

#: Loading any of these would be felt, or would fail where an extra is absent.
HEAVY = (
    "numpy", "onnx", "onnx_ir", "onnxruntime", "torch", "transformers", "paddle", "tensorrt", "tokenizers", "sentencepiece",
    "safetensors", "huggingface_hub", "jinja2", "ml_dtypes", "rich", "pynvml", "pydantic",
)  # fmt: skip


def loaded(*argv: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after one command line."""
    code = "import sys; from ernie_cli.app import main; code = main(sys.argv[1:]); print(*sys.modules, file=sys.stderr); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stderr.split()}


@pytest.mark.parametrize("argv", [("--help",), ("--version",), *((name, "--help") for name in app.COMMANDS)], ids=" ".join)
def test_nothing_heavy_is_loaded(argv: tuple[str, ...]) -> None:
    assert not loaded(*argv) & set(HEAVY)


def test_help_tells_the_story_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["--help"]) == 0
    listing = capsys.readouterr().out.partition("Commands:")[2]
    assert [line.split()[0] for line in listing.splitlines() if line.startswith("  ") and not line.startswith("   ")] == list(app.COMMANDS)


@pytest.mark.parametrize("name", app.COMMANDS)
def test_every_command_has_help_with_an_example_and_the_common_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"ernie {name}" in out.partition("Options:")[0].partition("\n")[2], "an example, after the usage line"
    assert all(option in out for option in ("--json", "--verbose", "--quiet"))


def test_brackets_in_help_survive(capsys: pytest.CaptureFixture[str]) -> None:
    app.main(["doctor", "--help"])
    assert "'ernie-cli[cpu]'" in capsys.readouterr().out


def test_alone_it_shows_help_and_counts_as_misuse(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main([]) == 2
    out, err = capsys.readouterr()
    assert "Commands:" in out + err


@pytest.mark.parametrize(("typed", "offered"), [("ernie in", "inspect"), ("ernie inspect --ver", "--verify")])
def test_the_shell_completes(typed: str, offered: str) -> None:
    asked = {"_ERNIE_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    done = subprocess.run([sys.executable, "-m", "ernie_cli"], capture_output=True, text=True, env={**os.environ, **asked}, check=False)
    assert offered in done.stdout.split()
