"""A model is a folder. Its manifest `ernie.json` says what it is, what it was made from and what was checked.

`Model.open(path)` takes any folder or file of a known format, with or without a manifest. It reads headers only; the
checkpoint and graph rooms read tensors.
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import __version__
from .errors import InputError, UsageError
from .staging import MANIFEST, check_replaceable, safe_join, write_file

#: What the folder (or file) of each format is recognised by, first match wins. Checkpoints come before: see `identify`.
_FILES_OF_FORMAT = (
    ("engine", ("*.plan", "*.engine")),
    ("onnx", ("*.onnx",)),
    ("pdmodel", ("*.pdmodel", "*.pdiparams")),  # and PIR's *.json, see `programs`
    ("torchscript", ("*.pt", "*.torchscript")),
)
#: Larger files are told apart by size, time of change, head and tail: hashing 40 GB before doing nothing is no "up to date".
_HASH_WHOLE_BYTES = 4 << 20
_HASH_ENDS_BYTES = 1 << 20
#: Endings of files beside a single file that are its configuration, its tokenizer or its weights, besides those named like it.
_BESIDE = (".json", ".data", ".bin", ".weights", ".pdiparams")
#: Nothing we read is nested as deep; what is would exhaust whoever walks it.
_DEEPEST = 100
#: Somebody's home, or /, is no model: stop before reading all of it.
_MOST_FILES = 10_000


@dataclass(frozen=True)
class Model:
    """A model on disk.

    `path` is the folder (or a bare file), `format` one of hf, paddle, onnx, pdmodel, torchscript, engine, and
    `manifest` the content of ernie.json ({} where there is none).
    """

    path: Path
    format: str
    manifest: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, path: str | Path) -> Model:
        """Look at `path` and say what it is.

        Raises InputError where it is missing, empty, unreadable or of no known format.
        """
        path = Path(path)
        if not path.exists():
            raise InputError(f"no such file or folder: {path}", "`ernie download` lists the models it can fetch")
        if not (path.is_file() or path.is_dir()):
            raise InputError(f"{path}: neither a file nor a folder", "name a model's folder, or a file of it")
        manifest = read_manifest(path)
        named = manifest.get("format") or identify(path)
        if not isinstance(named, str):
            raise InputError(f"{path / MANIFEST}: `format` is no text", f"remove {path / MANIFEST}, or make the folder again")
        return cls(path, named, manifest)

    @property
    def folder(self) -> Path:
        """The folder that holds the model's files."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def architecture(self) -> str:
        """`model_type` of the checkpoint this came from, or "" where nobody knows."""
        return str(self.manifest.get("architecture") or self.config().get("model_type") or "")

    @property
    def precision(self) -> str:
        """fp32, fp16, bf16, int8 …, or "" where nobody wrote it down."""
        return str(self.manifest.get("precision", ""))

    def told(self, name: str) -> dict[str, Any]:
        """An object of the manifest (`made_from`, `quantization` …), {} where it has none of this name, or no object."""
        found = self.manifest.get(name)
        return found if isinstance(found, dict) else {}

    @property
    def checks(self) -> list[dict[str, Any]]:
        """Records of the checks that were done, as far as the manifest has them."""
        found = self.manifest.get("checks")
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []

    def config(self) -> dict[str, Any]:
        """config.json as a dict, {} where there is none. Raises InputError where it is not a JSON object."""
        return read_json(self.folder / "config.json") if (self.folder / "config.json").is_file() else {}

    def main_file(self) -> Path:
        """The one graph or engine file of a non-checkpoint model. Raises InputError where there is none, or several."""
        if self.path.is_file():
            return self.path
        named = self.manifest.get("main")
        if named:
            file = safe_join(self.path, str(named))
            if not file.is_file():
                raise InputError(f"{file}: no such file, though {MANIFEST} names it", "make the folder again")
            return file
        patterns = dict(_FILES_OF_FORMAT).get(self.format, ())
        found = sorted(file for pattern in patterns[:1] for file in self.path.glob(pattern) if file.is_file())
        if self.format == "pdmodel":
            found = programs(self.path)
        if len(found) != 1:
            names = ", ".join(file.name for file in found) or "none"
            raise InputError(
                f"{self.path}: one {patterns[0] if patterns else self.format} file expected, found {names}", "name the file itself"
            )
        return found[0]


def check_out(source: Model, out: Path) -> None:
    """Raise UsageError where a result made from `source` may not be put at `out`: one inside the other, or in somebody's way."""
    place, home = out.resolve(), source.folder.resolve()
    inside = source.path.is_dir() and home in place.parents  # beside a bare file there is room for others
    if place in (home, source.path.resolve()) or inside or place in home.parents:
        raise UsageError(f"-o {out} and the source {source.folder} lie inside each other", "choose another place with -o")
    check_replaceable(out)


def identify(path: Path) -> str:
    """The format of a folder or file without a manifest, from its files' names (and, for checkpoints, its tensors').

    Raises InputError where nothing known is found.
    """
    names = sorted(child.name for child in path.iterdir()) if path.is_dir() else [path.name]
    if any(name.endswith((".safetensors", ".safetensors.index.json", ".pdparams")) for name in names):
        from .checkpoint.layout import layout_of

        return layout_of(path)
    for format_name, patterns in _FILES_OF_FORMAT:
        if any(Path(name).match(pattern) for name in names for pattern in patterns):
            return format_name
    if programs(path):
        return "pdmodel"
    what = "an empty folder" if path.is_dir() and not names else f"no model format that ernie knows (it holds {', '.join(names[:5])})"
    raise InputError(f"{path}: {what}", "a model is a folder with *.safetensors, *.onnx, *.pdmodel, *.pt or *.plan")


def programs(path: Path) -> list[Path]:
    """The Paddle programs in a folder (or `path` itself): *.pdmodel, and those *.json that begin as PIR programs do. A PIR program
    counts before a legacy one of the same stem, as Paddle itself decides."""
    listed = sorted(path.iterdir()) if path.is_dir() else [path]
    found = [file for file in listed if file.suffix in (".json", ".pdmodel") and file.is_file() and _begins_as_program(file)]
    return [file for file in found if file.suffix == ".json" or file.with_suffix(".json") not in found]


def _begins_as_program(file: Path) -> bool:
    if file.suffix == ".pdmodel":
        return True
    with file.open("rb") as handle:
        return b'"base_code"' in handle.read(256)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises InputError where it is no file, no JSON, no object, absurdly large (over 64 MiB) or deep."""
    if not path.is_file():  # a pipe or a device might never end
        raise InputError(f"{path}: no file", "fetch or write the file again")
    if path.stat().st_size > 64 << 20:
        raise InputError(f"{path}: {path.stat().st_size} bytes are too many for such a file", "is it the right one?")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as err:
        raise InputError(f"{path}: not valid JSON: {err}", "fetch or write the file again") from err
    if not isinstance(content, dict):
        raise InputError(f"{path}: a JSON object expected, found {type(content).__name__}", "is it the right file?")
    inner: list[Any] = [content]
    for _ in range(_DEEPEST):
        inner = [
            each for value in inner for each in (value.values() if isinstance(value, dict) else value) if isinstance(each, (dict, list))
        ]
        if not inner:
            return content
    raise InputError(f"{path}: objects and lists inside each other more than {_DEEPEST} deep", "is it the right file?")


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a model folder, {} where there is none."""
    file = path / MANIFEST
    return read_json(file) if path.is_dir() and file.is_file() else {}


def write_manifest(
    folder: Path,
    *,
    format: str,
    architecture: str = "",
    precision: str = "",
    made_from: Mapping[str, Any] | None = None,
    made_by: Mapping[str, Any] | None = None,
    checks: list[Mapping[str, Any]] | None = None,
    files: Mapping[str, Mapping[str, Any]] | None = None,
    key: str = "",
    **more: Any,
) -> Model:
    """Write `ernie.json` into `folder` and return the Model.

    made_from: path, format and fingerprint of the source. made_by: command and options. checks: one record per check,
    each with at least `name` and `passed`. files: name → {size, sha256}. key: what `is_up_to_date` compares.
    """
    manifest = {
        "ernie": 1,  # version of this schema
        "format": format,
        "architecture": architecture,
        "precision": precision,
        "made_from": dict(made_from or {}),
        "made_by": {"tool": f"ernie {__version__}", "time": _now(), **(made_by or {})},
        "checks": [dict(check) for check in checks or []],
        "files": {name: dict(facts) for name, facts in (files or {}).items()},
        "key": key,
        **more,
    }
    write_file(folder / MANIFEST, json.dumps(manifest, ensure_ascii=False, indent=2) + "\n")
    return Model(folder, format, manifest)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def fingerprint(path: Path) -> str:
    """A digest that changes when a model does: names, sizes and content of small files; head, tail and time of change of large ones.

    For a single file, what lies beside it and may belong to it counts too (see _BESIDE). Raises OSError where a file cannot be read,
    InputError where there are more files than any model has.
    """
    digest = hashlib.sha256()
    root = path if path.is_dir() else path.parent
    listed = (
        path.rglob("*") if path.is_dir() else (file for file in root.iterdir() if file.stem.startswith(path.stem) or file.suffix in _BESIDE)
    )
    files = list(itertools.islice((file for file in listed if file.is_file()), _MOST_FILES + 1))
    if len(files) > _MOST_FILES:
        raise InputError(f"{path}: more than {_MOST_FILES} files: not a model", "name the folder that holds the model's files alone")
    for file in sorted(files):
        if file.name == MANIFEST:
            continue  # written by us, about the others
        stat = file.stat()
        digest.update(f"{file.relative_to(root)}\0{stat.st_size}\0".encode(errors="surrogateescape"))
        with file.open("rb") as handle:
            if stat.st_size <= _HASH_WHOLE_BYTES:
                digest.update(handle.read())
            else:
                digest.update(f"{stat.st_mtime_ns}\0".encode() + handle.read(_HASH_ENDS_BYTES))
                handle.seek(-_HASH_ENDS_BYTES, 2)
                digest.update(handle.read())
    return digest.hexdigest()


def work_key(source: str, options: Mapping[str, Any]) -> str:
    """The digest of one piece of work: the source's fingerprint, the options and this tool's version."""
    return hashlib.sha256(json.dumps([source, dict(options), __version__], sort_keys=True, default=str).encode()).hexdigest()


def is_up_to_date(out: Path, key: str) -> bool:
    """Whether `out` is the finished result of the work `key` and still holds every file it was written with."""
    try:
        manifest = read_manifest(out)
    except InputError:  # damaged: it is made again
        return False
    files = manifest.get("files")
    if not key or manifest.get("key") != key or not isinstance(files, dict):
        return False
    return all(isinstance(facts, dict) and _has_size(out / name, facts.get("size")) for name, facts in files.items())


def _has_size(file: Path, n_bytes: Any) -> bool:
    return file.is_file() and file.stat().st_size == n_bytes
