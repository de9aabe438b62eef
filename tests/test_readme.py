"""The README tells the truth: its commands run in the order in which they stand, its tables are those of the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from ernie_cli import errors
from ernie_cli.app import COMMANDS, main

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """Every line `$ ernie …` of the console blocks, in order; a comment after two blanks is cut off."""
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [re.split(r"\s{2,}#", line)[0][2:] for line in lines if line.startswith("$ ernie")]


def test_every_command_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ERNIE_CACHE", str(tmp_path / "cache"))
    assert len(commands()) >= 10
    for line in commands():
        code = main(shlex.split(line)[1:])
        said = capsys.readouterr()
        assert code == 0, f"{line}\n{said.err}"
        assert said.out.strip(), line


def test_the_replies_in_the_demonstration_are_the_models_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ERNIE_CACHE", str(tmp_path / "cache"))
    shown = re.search(r"<!-- demo:begin -->(.*?)<!-- demo:end -->", README, re.DOTALL)
    assert shown
    asked = re.search(r'ernie run \S+ "(?P<prompt>[^"]+)"\n(?P<reply>.+)', shown[1])
    assert asked
    assert main(["run", "ernie-4.5-nano", asked["prompt"], "-q"]) == 0
    assert capsys.readouterr().out.strip() == asked["reply"].strip()


def test_every_command_is_in_the_table():
    named = re.findall(r"^\| `ernie (\w+)", README, re.MULTILINE)
    assert tuple(named) == COMMANDS


@pytest.mark.parametrize("error", errors.ErnieError.__subclasses__(), ids=lambda error: error.__name__)
def test_every_exit_code_is_in_the_table(error):
    assert re.search(rf"\| {error.exit_code} \|", README)


@pytest.mark.parametrize("target", ["demo", "test"])
def test_the_two_commands_exist(target):
    makefile = (Path(__file__).resolve().parent.parent / "Makefile").read_text()
    assert f"$ make {target}" in README
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
