"""A program and its parameters, found and checked against each other without Paddle."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from paddle_programs import LEGACY, PIR, programs

from ernie_cli.errors import InputError
from ernie_cli.model import Model
from ernie_cli.pdmodel.files import open_pair

EVERY = [*(f"pir/{name}" for name in PIR), *(f"legacy/{name}" for name in LEGACY)]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(programs() / "pir" / "encoder", tmp_path / "model"))


@pytest.mark.parametrize("name", EVERY)
def test_whole_pairs_are_read(name: str) -> None:
    pair = open_pair(Model.open(programs() / name))
    assert pair.program.kind == name.split("/")[0]
    assert pair.program.inputs and pair.program.outputs and pair.program.ops


def test_inputs_outputs_and_parameters_are_what_paddle_saved() -> None:
    program = open_pair(Model.open(programs() / "pir" / "typed")).program
    assert [(spec.name, spec.dtype, spec.shape) for spec in program.inputs] == [
        ("ids", "int64", (None, 7)),
        ("keep", "bool", (None, 7)),
        ("x", "float32", (None, 7)),
    ]
    assert [spec.dtype for spec in program.outputs] == ["int64", "bool", "float32"]
    assert not program.parameters


def test_a_file_is_as_good_as_its_folder() -> None:
    for name, file in (("pir/mlp", "model.json"), ("legacy/shufflenet", "model.pdmodel")):
        assert Model.open(programs() / name / file).format == "pdmodel"
        assert open_pair(Model.open(programs() / name / file)) == open_pair(Model.open(programs() / name))


def test_other_json_in_the_folder_is_no_program(copied: Path) -> None:
    (copied / "config.json").write_text('{"model_type": "x"}')
    (copied / "tokenizer.json").write_text("{}")
    (copied / "model.json").rename(copied / "inference.json")
    (copied / "model.pdiparams").rename(copied / "inference.pdiparams")
    assert Model.open(copied).format == "pdmodel"
    assert open_pair(Model.open(copied)).file.name == "inference.json"


def _truncate(folder: Path) -> None:
    file = folder / "model.pdiparams"
    file.write_bytes(file.read_bytes()[:-100])


def _of_another_model(folder: Path) -> None:
    shutil.copy(programs() / "pir" / "crnn" / "model.pdiparams", folder)


def _two_programs(folder: Path) -> None:
    shutil.copy(folder / "model.json", folder / "again.json")


def _not_json(folder: Path) -> None:
    (folder / "model.json").write_bytes((folder / "model.json").read_bytes()[:5000])


def _longer(folder: Path) -> None:
    file = folder / "model.pdiparams"
    file.write_bytes(file.read_bytes() * 2)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_truncate, "truncated"),
        (_of_another_model, "parameters of another model: number"),
        (_longer, "more than that"),
        (_two_programs, "again.json, model.json"),
        (_not_json, "no PIR program"),
        (lambda folder: (folder / "model.pdiparams").unlink(), "no such file, though the program has"),
        (lambda folder: (folder / "model.pdiparams").write_bytes(b""), "the file 0"),
        (lambda folder: (folder / "model.json").unlink(), "none"),
    ],
)
def test_what_does_not_belong_together_is_refused(copied: Path, damage: object, said: str) -> None:
    damage(copied)  # type: ignore[operator]
    with pytest.raises(InputError, match=said) as caught:
        open_pair(Model.open(copied))
    assert "\n" not in caught.value.message and caught.value.hint


def test_an_empty_program_is_refused(copied: Path) -> None:
    (copied / "model.json").write_bytes(b"")
    with pytest.raises(InputError, match="empty"):
        open_pair(Model.open(copied / "model.json"))
