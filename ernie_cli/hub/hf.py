"""Hugging Face: one GET gives a repository's files with sizes and hashes, and the commit. Fetches no file.

huggingface_hub finds the token (environment, login file, CI). It does not do the asking, although it could:
`HfApi.model_info` tries once, waits for ever unless told otherwise, raises the exceptions of three HTTP libraries over
the versions we allow, and (2.4) reports the installed torch and a list of agents to the hub. Its file download knows
neither one progress bar for all files nor our staging folder. Tests hold this reader against the real client.
API: https://huggingface.co/docs/hub/api
"""

from __future__ import annotations

import os
from typing import Any

from ..errors import ErnieError, NetworkError
from . import listing, transport
from .listing import Hub, Listing, RemoteFile

HUB = Hub("Hugging Face", token="HF_TOKEN", revision="main")
_YES = ("1", "ON", "YES", "TRUE")


def list_repo(repo: str, revision: str) -> Listing:
    """See listing.Source."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in _YES:
        raise transport.Unreachable("HF_HUB_OFFLINE is set: Hugging Face is not asked", "unset HF_HUB_OFFLINE")
    base = listing.endpoint(("HF_ENDPOINT",), "https://huggingface.co")
    auth = _auth()
    url = f"{base}/api/models/{repo}/revision/{transport.quoted(revision)}?blobs=true"
    try:
        info = transport.get_json(url, auth=auth)
    except transport.Refused as err:
        raise _explain(err, repo, revision, f"{base}/{repo}") from err
    if not isinstance(info, dict) or not isinstance(info.get("siblings"), list):
        raise NetworkError(f"{base} does not answer like Hugging Face", "is HF_ENDPOINT right?")
    commit = info["sha"] if isinstance(info.get("sha"), str) else ""
    root = f"{base}/{repo}/resolve/{transport.quoted(commit or revision)}"
    files = tuple(_file(each, root) for each in info["siblings"])
    return Listing("hf", repo, revision, commit, f"{base}/{repo}", files, _licence(info), auth)


def _auth() -> dict[str, str]:
    from huggingface_hub import get_token

    token = get_token()
    return {"Authorization": f"Bearer {token}"} if token else {}


def _file(sibling: Any, root: str) -> RemoteFile:
    if not isinstance(sibling, dict):
        sibling = {}
    lfs = sibling.get("lfs") if isinstance(sibling.get("lfs"), dict) else {}
    path = sibling.get("rfilename")
    size = lfs.get("size", sibling.get("size"))
    return listing.remote_file(
        path, size, f"{root}/{transport.quoted(str(path), safe='/')}", sha256=lfs.get("sha256"), git_oid=sibling.get("blobId")
    )


def _licence(info: dict[str, Any]) -> str:
    """From the tags, where the hub puts the model card's `license`: "apache-2.0"."""
    tags = info.get("tags") if isinstance(info.get("tags"), list) else []
    return next((tag.removeprefix("license:") for tag in tags or [] if isinstance(tag, str) and tag.startswith("license:")), "")


def _explain(err: transport.Refused, repo: str, revision: str, page: str) -> ErnieError:
    code = err.headers.get("X-Error-Code", "")
    if code == "RevisionNotFound":
        return listing.no_such_revision(HUB, repo, revision)
    if code == "RepoNotFound":  # sent with 401 where nobody is logged in: it does not exist, or is private
        return listing.no_such_repo(HUB, repo)
    return listing.explain(err, HUB, repo, page)
