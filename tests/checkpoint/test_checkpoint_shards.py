"""Folders of one or many files: shards are joined through the index, and every way they can disagree is named."""

from __future__ import annotations

import json

import pytest
from raw_files import shard, write_checkpoint

from ernie_cli.checkpoint.layout import layout_of
from ernie_cli.checkpoint.shards import read_folder
from ernie_cli.errors import InputError, UnsupportedError

INDEX = "model.safetensors.index.json"
SECOND = "model-00002-of-00003.safetensors"


def edit(folder, change):
    index = json.loads((folder / INDEX).read_text())
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


def test_shards_hold_what_one_file_holds(tmp_path):
    whole, parts = write_checkpoint(tmp_path / "one"), shard(write_checkpoint(tmp_path / "many"))
    assert read_folder(whole).keys() == read_folder(parts).keys()
    assert len({entry.file for entry in read_folder(parts).values()}) == 3


DISAGREEMENTS = {
    "missing shard": (lambda folder: (folder / SECOND).unlink(), "missing"),
    "empty shard": (lambda folder: (folder / SECOND).write_bytes(b""), "empty"),
    "shard is a folder": (lambda folder: ((folder / SECOND).unlink(), (folder / SECOND).mkdir()), "missing"),
    "index names an absent tensor": (lambda folder: edit(folder, lambda m: m.update({"model.extra": SECOND})), "model.extra"),
    "index names the wrong shard": (lambda folder: edit(folder, lambda m: m.update(dict.fromkeys(m, SECOND))), "not in the file it names"),
    "a tensor the index leaves out": (lambda folder: edit(folder, lambda m: m.pop("model.norm.weight")), "not in the index"),
    "a tensor in two shards": (
        lambda folder: (folder / SECOND).write_bytes((folder / "model-00001-of-00003.safetensors").read_bytes()),
        "is in both",
    ),
    "index is no JSON": (lambda folder: (folder / INDEX).write_text("{"), "JSON"),
    "index without a map": (lambda folder: (folder / INDEX).write_text("{}"), "weight_map"),
    "index maps to numbers": (lambda folder: edit(folder, lambda m: m.update({"model.norm.weight": 1})), "weight_map"),
    "no index": (lambda folder: (folder / INDEX).unlink(), "3 safetensors files"),
    "two indexes": (lambda folder: (folder / f"x{INDEX}").write_text("{}"), "2 index files"),
}


@pytest.mark.parametrize("name", DISAGREEMENTS)
def test_disagreement(name, tmp_path):
    damage, said = DISAGREEMENTS[name]
    folder = shard(write_checkpoint(tmp_path / "many"))
    damage(folder)
    with pytest.raises(InputError, match=said) as caught:
        read_folder(folder)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "a/../../b.safetensors", "..", "", "a\\b", "C:x", "a\0b"])
def test_a_shard_name_may_not_leave_the_folder(name, tmp_path):
    folder = shard(write_checkpoint(tmp_path / "many"))
    (tmp_path / "outside.safetensors").write_bytes((folder / SECOND).read_bytes())
    edit(folder, lambda weight_map: weight_map.update({"model.norm.weight": name}))
    with pytest.raises(InputError, match="leave the folder"):
        read_folder(folder)


def test_folders_without_weights(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        read_folder(tmp_path / "absent")
    with pytest.raises(InputError, match="no safetensors file"):
        read_folder(tmp_path)


def test_a_pickle_is_never_opened(tmp_path):
    (tmp_path / "model_state.pdparams").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(UnsupportedError, match="pickle"):
        read_folder(tmp_path)
    assert layout_of(tmp_path) == "paddle"
