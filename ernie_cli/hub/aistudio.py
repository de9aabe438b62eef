"""AI Studio: a Gitea server, asked over Gitea's API for names, sizes and hashes. Fetches no file.

Sizes need care: Gitea's own tree counts a large file as the Git LFS pointer it is in git, while AI Studio's folder
listing counts what will be sent. Whatever looks like a pointer is therefore read as one.
API: /api/v1/repos/<repo>/git/trees/<revision>, …/contents/<folder>, …/raw/<path> and …/media/<path> (which follows
pointers); see https://docs.gitea.com/api. Addresses, variables and the token's place are those of Baidu's aistudio-sdk,
which is left aside as it checks no hash of what it fetches.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import NetworkError
from . import listing, transport
from .listing import Hub, Listing, RemoteFile

HUB = Hub("AI Studio", token="AISTUDIO_ACCESS_TOKEN", revision="master")
_MOST_PAGES = 100
#: "version https://git-lfs.github.com/spec/v1\noid sha256:<64>\nsize <1 to 19 digits>\n"; https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
_POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d{1,19})\n")
_POINTER_SIZES = range(126, 146)


def list_repo(repo: str, revision: str) -> Listing:
    """See listing.Source."""
    base = listing.endpoint(("AISTUDIO_ENDPOINT", "STUDIO_GIT_HOST"), "https://git.aistudio.baidu.com")
    root, page, auth = f"{base}/api/v1/repos/{repo}", f"{base}/{repo}", _auth()
    try:
        commit, blobs = _tree(root, repo, revision, auth)
        sizes = _sizes(root, commit, {path.rpartition("/")[0] for path in blobs}, auth)
        files = tuple(_file(root, commit, path, oid, sizes.get(path, size), auth) for path, (oid, size) in blobs.items())
    except transport.Refused as err:
        raise listing.explain(err, HUB, repo, page) from err
    return Listing("aistudio", repo, revision, commit, page, files, auth=auth)


def _auth() -> dict[str, str]:
    """The token from the environment, or where `aistudio login` left it."""
    saved = Path(os.environ.get("AISTUDIO_CACHE_HOME") or Path.home()) / ".cache/aistudio/.auth/token"
    token = os.environ.get(HUB.token, "").strip()
    if not token and saved.is_file():
        token = saved.read_text(errors="replace").strip()
    return {"Authorization": f"token {token}"} if token else {}


def _tree(root: str, repo: str, revision: str, auth: dict[str, str]) -> tuple[str, dict[str, tuple[Any, Any]]]:
    """(commit, path → (git's hash, git's size)) of every file: no folders, no submodules, no symbolic links."""
    first = _page(root, revision, 1, auth) or _page(root, _tagged(root, revision, auth), 1, auth)
    if first is None:
        if _get(root, auth) is None:
            raise listing.no_such_repo(HUB, repo)
        raise listing.no_such_revision(HUB, repo, revision)
    commit = str(first.get("sha", revision))
    entries = [entry for page in _pages(root, commit, first, auth) for entry in page["tree"]]
    kept = [each for each in entries if isinstance(each, dict) and each.get("type") == "blob" and each.get("mode") != "120000"]
    return commit, {str(each.get("path")): (each.get("sha"), each.get("size")) for each in kept}


def _tagged(root: str, name: str, auth: dict[str, str]) -> str:
    """The commit of an annotated tag, which the tree's address does not know; "" where there is no such tag."""
    tag = _get(f"{root}/tags/{transport.quoted(name)}", auth)
    commit = tag.get("commit") if isinstance(tag, dict) else None
    return str(commit.get("sha", "")) if isinstance(commit, dict) else ""


def _pages(root: str, commit: str, first: dict[str, Any], auth: dict[str, str]) -> Iterator[dict[str, Any]]:
    page: dict[str, Any] | None = first
    for number in range(2, _MOST_PAGES):
        if page is None:
            return
        yield page
        page = _page(root, commit, number, auth) if page.get("truncated") and page["tree"] else None
    raise NetworkError(f"{root}: the listing of files has no end", "try --source hf")


def _page(root: str, revision: str, number: int, auth: dict[str, str]) -> dict[str, Any] | None:
    """A page of the tree, None where there is no such revision."""
    if not revision:
        return None
    page = _get(f"{root}/git/trees/{transport.quoted(revision)}?recursive=true&per_page=1000&page={number}", auth)
    if page is not None and (not isinstance(page, dict) or not isinstance(page.get("tree"), list)):
        raise NetworkError(f"{root} does not answer like AI Studio", "is AISTUDIO_ENDPOINT right?")
    return page


def _get(url: str, auth: dict[str, str]) -> Any:
    """The JSON at `url`, None where there is nothing."""
    try:
        return transport.get_json(url, auth=auth)
    except transport.Refused as err:
        if err.status == 404:
            return None
        raise


def _sizes(root: str, commit: str, folders: set[str], auth: dict[str, str]) -> dict[str, Any]:
    """path → size, as the hub would send the files of these folders."""
    sizes: dict[str, Any] = {}
    for folder in sorted(folders):
        place = f"/{transport.quoted(folder, safe='/')}" if folder else ""
        entries = _get(f"{root}/contents{place}?ref={transport.quoted(commit)}", auth)
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and entry.get("type") == "file":
                sizes[str(entry.get("path"))] = entry.get("lfs_size") or entry.get("size")  # lfs_size: newer Gitea
    return sizes


def _file(root: str, commit: str, path: str, oid: Any, size: Any, auth: dict[str, str]) -> RemoteFile:
    quoted, query = transport.quoted(path), f"ref={transport.quoted(commit)}"
    sha256 = ""
    if size in _POINTER_SIZES and (pointer := _POINTER.fullmatch(transport.get_bytes(f"{root}/raw/{quoted}?{query}", auth=auth))):
        sha256, size = pointer[1].decode(), int(pointer[2])
    return listing.remote_file(path, size, f"{root}/media/{quoted}?{query}", sha256=sha256, git_oid=oid)
