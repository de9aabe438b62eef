"""Which tensor lies where in a checkpoint folder of one or many safetensors files. Knows nothing of ERNIE."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError, UnsupportedError
from ..model import read_json
from ..staging import safe_join
from .quote import short, some
from .safetensors_file import Entry, read_entries

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_AGAIN = "fetch the missing files with `ernie download`"


def read_folder(path: Path) -> dict[str, Entry]:
    """Every tensor of the checkpoint: through the index where there is one, else of the only safetensors file.

    Raises InputError for a missing shard, an index that disagrees with the shards, a tensor in two shards or a shard
    name that leaves the folder; UnsupportedError for pickled `.pdparams`.
    """
    if path.is_file():
        return read_entries(path) if path.suffix == ".safetensors" else _no_safetensors(path, [path.name])
    if not path.is_dir():
        raise InputError(f"no such folder: {path}", "`ernie download` lists the models it can fetch")
    names = sorted(child.name for child in path.iterdir())
    indexes = [name for name in names if name.endswith(".safetensors.index.json")]
    files = [name for name in names if name.endswith(".safetensors")]
    if SINGLE in files and not indexes:
        return read_entries(path / SINGLE)
    if len(indexes) == 1:
        return _read_sharded(path, path / indexes[0])
    if len(files) == 1:
        return read_entries(path / files[0])
    if not files:
        return _no_safetensors(path, names)
    what = f"{len(indexes)} index files" if indexes else f"{len(files)} safetensors files and no {INDEX}"
    raise InputError(f"{path}: {what}: nobody can tell which belong together", _AGAIN)


def _no_safetensors(path: Path, names: list[str]) -> dict[str, Entry]:
    pickled = [name for name in names if name.endswith(".pdparams")]
    if pickled:
        what = f"{path}: `{pickled[0]}` is a Python pickle, which can run code when it is read: ernie never opens one"
        raise UnsupportedError(what, "take the repository's safetensors revision, or save it again with safe_serialization=True")
    raise InputError(f"{path}: no safetensors file", "name a folder that holds model.safetensors")


def _read_sharded(folder: Path, index: Path) -> dict[str, Entry]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(file, str) for file in weight_map.values()):
        raise InputError(f"{index}: no weight_map of tensor and file names", _AGAIN)
    found: dict[str, Entry] = {}
    for shard in sorted(set(weight_map.values())):
        file = safe_join(folder, shard)
        if not file.is_file():
            raise InputError(f"{folder}: shard `{short(shard)}` is missing", _AGAIN)
        entries = read_entries(file)
        twice = sorted(found.keys() & entries.keys())
        if twice:
            raise InputError(
                f"{folder}: tensor `{short(twice[0])}` is in both {found[twice[0]].file.name} and {shard}", "remove one of the two"
            )
        found |= entries
    _check_index(index, weight_map, found)
    return found


def _check_index(index: Path, weight_map: dict[str, str], found: dict[str, Entry]) -> None:
    wrong = [name for name, file in weight_map.items() if name not in found or found[name].file != index.parent / file]
    if wrong:
        raise InputError(f"{index}: {some(wrong)} not in the file it names", "index and shards are of two downloads: fetch them again")
    unlisted = sorted(found.keys() - weight_map.keys())
    if unlisted:
        raise InputError(
            f"{index}: {some(unlisted)} in a shard but not in the index", "index and shards are of two downloads: fetch them again"
        )
