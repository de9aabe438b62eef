"""What ernie.json says a model was made from, by what, and how it was checked; and whether its files are still the ones it names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import console
from ..errors import InputError
from ..model import Model, read_manifest
from ..staging import MANIFEST, safe_join

_MOST_LINKS = 16  # of a chain of models; more is a loop


def describe(model: Model, *, verify: bool = False) -> dict[str, Any]:
    """made_by, made_from (nearest first), checks, verified (which files match sizes, or with `verify` sha256) and problems.

    Raises InputError where ernie.json is not of its schema.
    """
    manifest = model.manifest
    made_by, checks = _object(model, manifest, "made_by"), manifest.get("checks") or []
    if not isinstance(checks, list) or not all(isinstance(check, dict) for check in checks):
        raise InputError(f"{model.path}/{MANIFEST}: `checks` is no list of objects", "make the folder again")
    files = {name: facts for name, facts in _object(model, manifest, "files").items() if isinstance(facts, dict)}
    problems = list(_compare(model, files, verify))
    problems += [f"check `{check.get('name', '?')}` failed when it was made" for check in checks if check.get("passed") is False]
    return {
        "made_by": dict(made_by),
        "made_from": list(_chain(model)),
        "checks": checks,
        "files_checked": {"by": "sha256" if verify else "size", "count": len(files)} if files else None,
        "licence": manifest.get("licence") or manifest.get("license"),
        "problems": problems,
    }


def _object(model: Model, manifest: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = manifest.get(name) or {}
    if not isinstance(value, dict):
        raise InputError(f"{model.path}/{MANIFEST}: `{name}` is no JSON object", "make the folder again")
    return value


def _chain(model: Model) -> Iterator[dict[str, Any]]:
    """What it was made from, what that was made from … as far as the folders are still there."""
    manifest: Mapping[str, Any] = model.manifest
    for _ in range(_MOST_LINKS):
        source = manifest.get("made_from")
        if not isinstance(source, dict) or not source:
            return
        yield source
        path = Path(str(source.get("path", "")))
        manifest = read_manifest(path) if path.is_dir() else {}


def _compare(model: Model, files: Mapping[str, Mapping[str, Any]], verify: bool) -> Iterator[str]:
    """What is wrong with the files that the manifest names."""
    total = sum(facts["size"] for facts in files.values() if isinstance(facts.get("size"), int)) if verify else 0
    with console.progress("verifying", total, unit="bytes") as meter:
        for name, facts in files.items():
            file = safe_join(model.folder, name)
            if not file.is_file():
                yield f"{name} is missing"
            elif facts.get("size") not in (None, file.stat().st_size):
                yield f"{name}: {file.stat().st_size} bytes where {MANIFEST} says {facts['size']}"
            elif verify and facts.get("sha256") not in (None, _sha256(file, meter)):
                yield f"{name}: its sha256 is not the one in {MANIFEST}"


def _sha256(file: Path, meter: console.Meter) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
            meter.advance(len(chunk))
    return digest.hexdigest()
