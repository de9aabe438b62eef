"""The rules of the house, held by machine: arrows point one way, and a new file in a registry folder shows the folder's face."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from ernie_cli import app
from ernie_cli.need import EXTRAS

ROOT = Path(__file__).resolve().parent.parent
CORE = sorted((ROOT / "ernie_cli").rglob("*.py"))
EDGES = sorted(file for file in (ROOT / "converters").glob("*.py") if file.name != "__init__.py")
COMMANDS = sorted(file for file in (ROOT / "commands").glob("*.py") if file.name != "__init__.py")
OUTER = [*COMMANDS, *EDGES]
ALL = [*CORE, *OUTER]
#: The only modules that load the outer folders, and only by name.
LOADERS = ("ernie_cli/app.py", "ernie_cli/route.py")
MOST_LINES = 300
#: torch compiles what stands here and looks names up in the module itself. Loaded by the edges that need torch, and only by them.
COMPILED = ("ernie_cli/torchscript/ops/",)
#: Longer on purpose: a table of questions.
LONG = ("ernie_cli/nano/tasks.py",)


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imports(file: Path, *, top_only: bool = False) -> Iterator[str]:
    """Absolute names of what a file imports, wherever in the file or at its top."""
    package = list(file.relative_to(ROOT).parent.parts)
    for node in tree(file).body if top_only else ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def test_the_core_imports_nothing_from_outside_itself() -> None:
    assert not [(name(file), each) for file in CORE for each in imports(file) if _is_outer(each)]


def test_only_the_loaders_name_the_outer_folders() -> None:
    outside = ("ernie_cli.commands", "ernie_cli.converters")
    strings = ((file, node.value) for file in CORE for node in ast.walk(tree(file)) if isinstance(node, ast.Constant))
    named = {name(file) for file, value in strings if str(value).startswith(outside)}
    assert named <= set(LOADERS)


def test_outer_folders_import_only_the_core() -> None:
    assert not [(name(file), each) for file in OUTER for each in imports(file) if _is_outer(each) or each.startswith(".")]


def _is_outer(imported: str) -> bool:
    return imported.removeprefix("ernie_cli.").split(".")[0] in ("commands", "converters")


def test_rooms_are_small() -> None:
    long = {name(file): lines for file in ALL if (lines := file.read_text(encoding="utf-8").count("\n")) > MOST_LINES}
    assert not long.keys() - set(LONG), "a second idea has moved in: give it its own room"


def test_rooms_introduce_themselves() -> None:
    assert not [name(file) for file in ALL if file.name != "__init__.py" and not ast.get_docstring(tree(file))]


def test_commands_on_disk_are_the_commands_of_the_story() -> None:
    assert {file.stem for file in COMMANDS} == set(app.COMMANDS)


@pytest.mark.parametrize("file", COMMANDS, ids=name)
def test_a_command_is_a_function_of_the_file_s_name_with_an_example(file: Path) -> None:
    function = getattr(importlib.import_module(f"ernie_cli.commands.{file.stem}"), file.stem)
    assert f"ernie {file.stem}" in (function.__doc__ or "")


@pytest.mark.parametrize("file", EDGES, ids=name)
def test_an_edge_has_the_face_of_an_edge(file: Path) -> None:
    source, _, target = file.stem.partition("_to_")
    edge = importlib.import_module(f"ernie_cli.converters.{file.stem}")
    assert source and target and source != target
    assert isinstance(edge.NEEDS, tuple) and set(edge.NEEDS) <= set(EXTRAS), "each need belongs to an extra"
    assert callable(edge.convert) and edge.convert.__code__.co_varnames[:3] == ("model", "out", "options")


def test_third_parties_that_an_extra_brings_are_imported_where_used() -> None:
    """At the top of a module they would break every command of an installation without that extra."""
    optional = {module for module, extra in EXTRAS.items() if extra}
    looked = [file for file in ALL if not name(file).startswith(COMPILED)]
    assert not [(name(file), each) for file in looked for each in imports(file, top_only=True) if each.split(".")[0] in optional]
