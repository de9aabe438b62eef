"""Seeded mutations of programs and parameters: one of our errors or a result, never a crash, a hang or a traceback."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from paddle_programs import feeds, programs

from ernie_cli.errors import ErnieError
from ernie_cli.inspect import look
from ernie_cli.model import Model
from ernie_cli.pdmodel.files import open_pair
from ernie_cli.runtime.graphs import open_graph

ROUNDS = 150
_SOURCES = ("pir/encoder", "pir/lstm", "legacy/squeezenet", "pir/detector")


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Cut, flip, repeat, delete or overwrite something somewhere."""
    at, how = rng.randrange(len(data)), rng.randrange(6)
    if how == 0:
        return data[:at]
    if how == 1:
        return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
    if how == 2:
        return data[:at] + data[at : at + 64] * rng.randrange(1, 9) + data[at:]
    if how == 3:
        return data[:at] + data[at + rng.randrange(1, 200) :]
    if how == 4:
        return data[:at] + rng.randbytes(rng.randrange(1, 16)) + data[at:]
    digits = [index for index, byte in enumerate(data[:4000]) if 48 <= byte <= 57]
    where = rng.choice(digits) if digits else at
    return data[:where] + rng.choice((b"-9", b"99999999999999999999", b"null", b'"x"', b"[]", b"1e400")) + data[where + 1 :]


def damaged(source: str, folder: Path, rng: random.Random) -> Path:
    """A copy of a program with one of its files mutated."""
    shutil.copytree(programs() / source, folder)
    file = rng.choice([path for path in sorted(folder.iterdir()) if path.suffix in (".json", ".pdmodel", ".pdiparams")])
    file.write_bytes(mutate(file.read_bytes(), rng))
    return folder


@pytest.mark.parametrize("source", _SOURCES)
def test_reading_damaged_files_ends_in_words(source: str, tmp_path: Path) -> None:
    refused = 0
    for seed in range(ROUNDS):
        folder = damaged(source, tmp_path / str(seed), random.Random(f"{source} {seed}"))
        for read in (look, lambda path: open_pair(Model.open(path))):
            try:
                read(folder)
            except ErnieError as err:
                refused += 1
                assert "\n" not in err.message
        shutil.rmtree(folder)
    assert refused > ROUNDS / 4


def test_what_the_checks_let_through_paddle_does_not_crash_us_with(tmp_path: Path) -> None:
    """A few that pass the checks go through Paddle, in its process: it may refuse them or crash, we may not."""
    tried = 0
    for seed in range(200):
        folder = damaged("pir/typed" if seed % 2 else "pir/mlp", tmp_path / str(seed), random.Random(seed))
        try:
            model = Model.open(folder)
            open_pair(model)
        except ErnieError:
            continue
        tried += 1
        try:
            session = open_graph(model)
            try:
                session.run(feeds(session.inputs))
            finally:
                session.close()
        except ErnieError as err:
            assert "\n" not in err.message
        if tried == 4:
            return
    pytest.fail("too few mutations passed the checks")
