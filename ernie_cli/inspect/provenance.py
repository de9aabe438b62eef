"""What ernie.json says a model was made from, by what, and how it was checked; and whether its files are still the ones it names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import console
from ..digest import sha256_of
from ..errors import InputError
from ..model import Model, fingerprint, read_manifest
from ..staging import MANIFEST, safe_join

_MOST_LINKS = 16  # of a chain of models; more is a loop


def describe(model: Model, *, verify: bool = False) -> dict[str, Any]:
    """made_by, made_from (nearest first), licence, checks, files_checked (how many, by size or sha256) and problems.

    Raises InputError where ernie.json is not of its schema.
    """
    manifest = model.manifest
    made_by, checks = _object(model, manifest, "made_by"), manifest.get("checks") or []
    if not isinstance(checks, list) or not all(isinstance(check, dict) for check in checks):
        raise InputError(f"{model.path}/{MANIFEST}: `checks` is no list of objects", "make the folder again")
    files = {name: facts for name, facts in _object(model, manifest, "files").items() if isinstance(facts, dict)}
    problems = list(_compare(model, files))
    problems += _compare_hashes(model, files) if verify else []
    problems += [f"check `{check.get('name', '?')}` failed when it was made" for check in checks if check.get("passed") is False]
    links = list(_chain(model))
    return {
        "made_by": dict(made_by),
        "made_from": links,
        "checks": checks,
        "files_checked": {"by": "sha256" if verify else "size", "count": len(files)} if files else None,
        "licence": next((link["licence"] for link in links if link.get("licence")), None),
        "problems": problems,
    }


def _object(model: Model, manifest: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = manifest.get(name) or {}
    if not isinstance(value, dict):
        raise InputError(f"{model.path}/{MANIFEST}: `{name}` is no JSON object", "make the folder again")
    return value


def _chain(model: Model) -> Iterator[dict[str, Any]]:
    """What it was made from, what that was made from … as far as the models are still there.

    `now` is added to each: same, changed (so the chain ends), gone, or None where it is no place on this machine.
    """
    manifest: Mapping[str, Any] = model.manifest
    for _ in range(_MOST_LINKS):
        source = manifest.get("made_from")
        if not isinstance(source, dict) or not source:
            return
        now, manifest = _parent(source.get("path"), source.get("fingerprint"))
        yield {**source, "now": now}


def _parent(named: Any, expected: Any) -> tuple[str | None, Mapping[str, Any]]:
    """(what has become of a model that another was made from, its manifest where it is still the same)."""
    if not named or not isinstance(named, str):  # it came from a hub
        return None, {}
    path = Path(named)
    try:
        if not path.exists():
            return "gone", {}
        return ("same", read_manifest(path)) if fingerprint(path) == expected else ("changed", {})
    except (OSError, ValueError, InputError) as err:
        return f"unreadable: {err}", {}


def _compare(model: Model, files: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Which of the files that the manifest names are missing or of another size."""
    for name, facts in files.items():
        file = safe_join(model.folder, name)
        if not file.is_file():
            yield f"{name} is missing"
        elif facts.get("size") not in (None, file.stat().st_size):
            yield f"{name}: {file.stat().st_size} bytes where {MANIFEST} says {facts['size']}"


def _compare_hashes(model: Model, files: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Which of them hold other bytes."""
    here = {name: model.folder / name for name in files if (model.folder / name).is_file()}
    with console.progress("verifying", sum(file.stat().st_size for file in here.values()), unit="bytes") as meter:
        wrong = [name for name, file in here.items() if files[name].get("sha256") not in (None, sha256_of(file, meter.advance))]
    return [f"{name}: its sha256 is not the one in {MANIFEST}" for name in wrong]
