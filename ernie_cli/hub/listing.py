"""What a hub says a repository holds, and the face that every hub's module shows. Fetches nothing.

What a server says is not to be trusted: names, sizes and hashes are checked here, before anything is written.
"""

from __future__ import annotations

import fnmatch
import os
import re
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .. import catalog
from ..console import printable
from ..errors import ErnieError, InputError, NetworkError, UsageError
from ..staging import MANIFEST, safe_join
from .transport import Refused

#: Where half-fetched files lie inside `<out>.partial`.
HALVES = ".ernie-halves"


@dataclass(frozen=True)
class RemoteFile:
    """One file. size: bytes. sha256 of its content, or git_oid (git's SHA-1 of the content or of its Git LFS pointer); "" = not told."""

    path: str
    size: int
    url: str
    sha256: str = ""
    git_oid: str = ""

    @property
    def identity(self) -> str:
        """What the file is by its content, "" where the hub gives no hash."""
        return self.sha256 or self.git_oid


@dataclass(frozen=True)
class Listing:
    """A repository at one revision. commit: what `revision` stood for, "" where the hub does not say. page: for people."""

    source: str
    repo: str
    revision: str
    commit: str
    page: str
    files: tuple[RemoteFile, ...]
    licence: str = ""
    auth: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Hub:
    """A hub for people: its name, the variable its token goes into, and the revision meant where none is named."""

    title: str
    token: str
    revision: str


class Source(Protocol):
    """The face of hf.py, modelscope.py, aistudio.py and embedded.py."""

    HUB: Hub

    def list_repo(self, repo: str, revision: str) -> Listing:
        """The files of `org/name` at a branch, tag or commit. Raises UsageError (no such thing) or NetworkError."""
        ...


def endpoint(variables: Sequence[str], default: str) -> str:
    """The first of the environment's `variables` that is set, else `default`; a bare host gets https://."""
    name, value = next(((name, os.environ[name]) for name in variables if os.environ.get(name)), ("", default))
    address = (value if "://" in value else f"https://{value}").rstrip("/")
    try:
        parts = urllib.parse.urlsplit(address)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:  # brackets that are no IPv6 address
        fine = False
    if not fine:
        raise UsageError(f"{name}={value} is no http(s) address", f"unset {name}, or set it to something like {default}")
    return address


def remote_file(path: Any, size: Any, url: str, *, sha256: Any = "", git_oid: Any = "") -> RemoteFile:
    """A RemoteFile from what a server sent. Raises NetworkError where that makes no sense; a hash of odd form counts as none."""
    if not isinstance(path, str) or not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise NetworkError(
            f"the hub's listing makes no sense: a file {path!r:.100} of size {size!r:.40}", "is the endpoint's address right?"
        )
    return RemoteFile(path, size, url, _hex(sha256, 64), _hex(git_oid, 40))


def _hex(value: Any, length: int) -> str:
    text = value.lower() if isinstance(value, str) else ""
    return text if re.fullmatch(f"[0-9a-f]{{{length}}}", text) else ""


def select(files: Iterable[RemoteFile], include: Sequence[str], exclude: Sequence[str]) -> tuple[RemoteFile, ...]:
    """The files that match a pattern of `include` (all, where there is none) and none of `exclude`.

    Patterns are shell globs on the whole path, in which `*` also matches `/`, or `folder/` for all that is in it.
    Raises UsageError where nothing is left.
    """

    def hit(path: str, patterns: Sequence[str]) -> bool:
        return any(fnmatch.fnmatchcase(path, f"{pattern}*" if pattern.endswith("/") else pattern) for pattern in patterns)

    files = tuple(files)
    chosen = tuple(each for each in files if (not include or hit(each.path, include)) and not hit(each.path, exclude))
    if not chosen:
        some = ", ".join(printable(each.path) for each in files[:6]) or "nothing"
        raise UsageError("no file is left to fetch", f"loosen --include or --exclude; the repository holds {some}")
    return chosen


def check_names(files: Iterable[RemoteFile], folder: Path) -> None:
    """Raise InputError where a name leaves `folder`, hides characters, is taken twice, is both file and folder, or is ernie's own."""
    seen: set[str] = set()
    parents: set[str] = set()
    for each in files:
        safe_join(folder, each.path)
        if not each.path.isprintable():
            raise InputError(f"the repository has a file name with hidden characters: {each.path!a:.200}", "do not trust this source")
        if each.path == MANIFEST or each.path.split("/")[0] == HALVES:
            raise InputError(
                f"the repository has a file `{each.path}`, a name that ernie itself writes", f"--exclude '{each.path}' leaves it out"
            )
        if each.path in seen:
            raise InputError(f"the repository lists `{each.path}` twice", "do not trust this source")
        seen.add(each.path)
        parents.update(each.path[:at] for at, char in enumerate(each.path) if char == "/")
    if both := sorted(seen & parents):
        raise InputError(f"the repository lists `{both[0]}` as a file and as a folder", "do not trust this source")


def explain(err: Refused, hub: Hub, repo: str, page: str) -> ErnieError:
    """The error for a hub's refusal. A repository or revision that does not exist is a slip of the command line (exit 2)."""
    said = f": {err.text}" if err.text and not err.text.startswith(("{", "<")) else ""
    if err.status in (401, 403):
        return NetworkError(
            f"{hub.title} refuses access to {repo} ({err.status}{said})",
            f"if it exists, set {hub.token} to a token that may read it; a gated model must also be asked for at {page}",
        )
    if err.status == 404:
        return no_such_repo(hub, repo)
    return NetworkError(f"{hub.title} answers {err.status} about {repo}{said}", f"look at {page}")


def no_such_repo(hub: Hub, repo: str) -> UsageError:
    near = catalog.closest(repo)
    hint = f"did you mean `ernie download {near}`?" if near else "`ernie download` lists the catalogue."
    if near == repo.rpartition("/")[2].lower():  # the name is right: only this hub does not have it
        hint = "Another hub may have it: --source."
    return UsageError(f"{hub.title} has no repository {repo}, or hides it", f"{hint} A private one needs {hub.token}")


def no_such_revision(hub: Hub, repo: str, revision: str) -> UsageError:
    return UsageError(
        f"{repo} on {hub.title} has no revision `{printable(revision)}`", "a branch, tag or commit; without --revision the newest is taken"
    )
