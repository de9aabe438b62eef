"""The lock: what was fetched from where, file by file, as `ernie.json` records it and `ernie download` reports it."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import console, model
from ..errors import InputError, UnsupportedError
from .fetch import Fetched
from .listing import RemoteFile
from .wish import Wish

#: config.json's `dtype` (`torch_dtype` in older ones) → the manifest's precision.
_PRECISIONS = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


@dataclass(frozen=True)
class Report:
    """What a download found or made. bytes: of all files; fetched_bytes: what came over the network this time."""

    path: Path
    source: str
    repo: str
    revision: str
    commit: str
    licence: str
    format: str
    files: int
    bytes: int
    fetched_bytes: int
    up_to_date: bool

    def data(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"path": str(self.path)}


def write(
    folder: Path, wanted: Wish, files: Sequence[RemoteFile], fetched: Sequence[Fetched], made_from: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Write the manifest of a download whose files lie in `folder`, and return it.

    A folder of no known format is a download all the same (parts of a repository are wanted too): it is said, not refused.
    """
    format_name, config = _identify(folder)
    dtype = str(config.get("dtype") or config.get("torch_dtype"))
    checked = Counter(each.checked for each in fetched)
    written = model.write_manifest(
        folder,
        format=format_name,
        architecture=str(config.get("model_type") or ""),
        precision=_PRECISIONS.get(dtype, ""),
        made_from={**made_from, "licence": made_from.get("licence") or _licence(folder / "README.md")},
        made_by=wanted.options,
        checks=[{"name": "download", "passed": True, "files_by_check": dict(checked)}],
        files={file.path: {"size": file.size, "sha256": got.sha256} for file, got in zip(files, fetched, strict=True)},
        key=wanted.key(files, str(made_from.get("commit", ""))),
    )
    return written.manifest


def report(path: Path, manifest: Mapping[str, Any], fetched_bytes: int = 0, *, up_to_date: bool = False) -> Report:
    """What the manifest of a download says."""
    made_from, files = manifest.get("made_from", {}), manifest.get("files", {})
    facts = {name: str(made_from.get(name, "")) for name in ("source", "repo", "revision", "commit", "licence")}
    total = sum(int(facts["size"]) for facts in files.values())
    return Report(
        path, **facts, format=str(manifest["format"]), files=len(files), bytes=total, fetched_bytes=fetched_bytes, up_to_date=up_to_date
    )


def _identify(folder: Path) -> tuple[str, Mapping[str, Any]]:
    """(format, config.json) of what was fetched, empty where there is none that ernie knows."""
    try:
        config = model.Model(folder, "").config()
        return model.identify(folder), config
    except (InputError, UnsupportedError) as err:
        console.warn(f"fetched as it is on the hub, but not a model that ernie can use: {err.message}")
        return "", {}


def _licence(card: Path) -> str:
    """The `license:` of a model card's front matter, "" where there is none."""
    if not card.is_file():
        return ""
    with card.open(errors="replace") as stream:
        front = re.match(r"---\s*\n(.*?)\n---", stream.read(1 << 16), re.DOTALL)
    found = re.search(r"^license:\s*[\"']?([^\"'\n]+)", front[1], re.MULTILINE) if front else None
    return found[1].strip() if found else ""
