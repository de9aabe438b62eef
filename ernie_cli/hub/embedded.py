"""The model inside this package, with a hub's face: listed and checked like a download, then copied. No network."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from .. import nano
from ..errors import MissingError
from ..named import EMBEDDED
from ..staging import MANIFEST, staged
from . import lock
from .fetch import Fetched
from .listing import Hub, Listing, RemoteFile
from .wish import Wish

SOURCE = "embedded"
HUB = Hub("this package", token="", revision="")


def list_repo(repo: str, revision: str) -> Listing:
    """See listing.Source. Raises MissingError where the package came without the model."""
    paths = sorted(path for path in nano.path().glob("*") if path.is_file() and path.name != MANIFEST)
    if not any(path.suffix == ".safetensors" for path in paths):
        raise MissingError(f"this installation came without {EMBEDDED}", "pip install --force-reinstall ernie-cli")
    return Listing(SOURCE, repo, revision, "", "", tuple(map(_file, paths)), "apache-2.0")


def _file(path: Path) -> RemoteFile:
    content = path.read_bytes()
    return RemoteFile(path.name, len(content), "", hashlib.sha256(content).hexdigest())


def copy(wanted: Wish, files: Sequence[RemoteFile]) -> lock.Report:
    """Copy the files and lock them. Raises OSError where the disk does not take them."""
    with staged(wanted.out) as partial:
        for each in files:
            shutil.copyfile(nano.path() / each.path, partial / each.path)
        fetched = [Fetched(each.sha256, 0, "sha256") for each in files]
        made_from = {"source": SOURCE, "repo": wanted.repo, "licence": "apache-2.0"}
        manifest = lock.write(partial, wanted, files, fetched, made_from)
    return lock.report(wanted.out, manifest)
