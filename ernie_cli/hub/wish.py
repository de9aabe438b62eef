"""What was asked for, in full: source, repository, revision, files, place. And whether a folder is that already.

Asks no hub.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import catalog, model, staging
from ..errors import InputError, UsageError
from ..named import EMBEDDED
from .listing import RemoteFile

_REPO = re.compile(r"(?!\.+/)[\w.-]+/(?!\.+$)[\w.-]+", re.ASCII)


@dataclass(frozen=True)
class Wish:
    """revision: "" means the hub's newest. why: how the repository was found, where a choice was made."""

    source: str
    repo: str
    revision: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    out: Path
    why: str = ""

    @property
    def options(self) -> dict[str, Any]:
        """What the manifest keeps of it."""
        return {"command": "download", "revision": self.revision, "include": list(self.include), "exclude": list(self.exclude)}

    def key(self, files: Iterable[RemoteFile], commit: str) -> str:
        """The digest of this wish's result: where from, and each file's content, or the commit where the hub gives no hash.

        No version of ours: a newer tool fetches nothing new.
        """
        lines = [f"{self.source} {self.repo}", *sorted(f"{each.path}\0{each.size}\0{each.identity or commit}" for each in files)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def wish(
    name: str, out: Path | None, *, source: str = "hf", revision: str = "", include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Wish:
    """Raises UsageError where `name` is neither in the catalogue nor of the form org/name."""
    if name.lower() == EMBEDDED:
        source = "embedded"
        repo, why = EMBEDDED, ""
    else:
        repo, why = _repo(name, source)
    own = name.rsplit("/", 1)[-1] if "/" in name else name.lower()
    return Wish(source, repo, revision, tuple(include), tuple(exclude), out or Path(own), why)


def _repo(name: str, source: str) -> tuple[str, str]:
    entry = catalog.find(name)
    if entry is None:
        if _REPO.fullmatch(name):
            return name, ""
        near = catalog.closest(name)
        hint = f"did you mean `ernie download {near}`?" if near else "`ernie download` lists the catalogue; others are called org/name"
        raise UsageError(f"no model called `{name}`", hint)
    repo = entry.repo(name.lower(), source)
    if name.lower() == entry.name and len(entry.layouts) > 1:
        others = ", ".join(f"`{other}`" for other in entry.names[2:])
        return repo, f"{repo}: the layout that the most tools read; {others} is the other one"
    return repo, ""


def finished(wanted: Wish) -> Mapping[str, Any] | None:
    """The manifest in the wish's folder where that is a whole result of the same wish, at whatever commit; else None."""
    try:
        manifest = model.read_manifest(wanted.out)
    except InputError:
        return None
    made_by = _table(manifest, "made_by")
    same = _made_from(manifest) == (wanted.source, wanted.repo) and all(made_by.get(key) == value for key, value in wanted.options.items())
    return manifest if same and model.is_up_to_date(wanted.out, str(manifest.get("key"))) else None


def check_place(wanted: Wish) -> None:
    """Raise UsageError where the wish's folder holds something else than an earlier download of the same repository."""
    staging.check_replaceable(wanted.out)
    try:
        manifest = model.read_manifest(wanted.out)
    except InputError:
        return
    if manifest and _made_from(manifest) != (wanted.source, wanted.repo):
        raise UsageError(f"{wanted.out} holds another model", "--force replaces it; -o chooses another place")


def _made_from(manifest: Mapping[str, Any]) -> tuple[Any, Any]:
    made_from = _table(manifest, "made_from")
    return made_from.get("source"), made_from.get("repo")


def _table(manifest: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of a manifest, which anyone may have edited."""
    part = manifest.get(name)
    return part if isinstance(part, dict) else {}
