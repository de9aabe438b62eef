"""ModelScope: one GET gives a repository's files with sizes and SHA-256. Fetches no file.

Its own client is left aside: it comes with cryptography, requests and urllib3 for these two addresses, keeps its own
cache layout, and reads login cookies with pickle. So a token saved by `modelscope login` is not found here.
API, as its clients use it: /api/v1/models/<repo>/repo/files lists, …/repo?Revision=…&FilePath=… answers with a file.
"""

from __future__ import annotations

import os
from typing import Any

from ..errors import NetworkError
from . import listing, transport
from .listing import Hub, Listing, RemoteFile

HUB = Hub("ModelScope", token="MODELSCOPE_API_TOKEN", revision="master")
#: The hub cuts a listing off here without saying so (its client's REPO_FILES_TRUNCATION_LIMIT). No ERNIE comes near.
_MOST_FILES = 3000


def list_repo(repo: str, revision: str) -> Listing:
    """See listing.Source. An unknown revision is no error to this hub: it answers with no list at all."""
    base = listing.endpoint(("MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN"), "https://modelscope.cn")
    root, page, auth = f"{base}/api/v1/models/{repo}/repo", f"{base}/models/{repo}", _auth()
    try:
        answer = transport.get_json(f"{root}/files?Revision={transport.quoted(revision)}&Recursive=True", auth=auth)
    except transport.Refused as err:
        raise listing.explain(err, HUB, repo, page) from err
    data = answer.get("Data") if isinstance(answer, dict) else None
    if not isinstance(data, dict):
        raise NetworkError(f"{base} does not answer like ModelScope", "is MODELSCOPE_ENDPOINT right?")
    entries = data.get("Files")
    if not isinstance(entries, list):
        raise listing.no_such_revision(HUB, repo, revision)
    if len(entries) >= _MOST_FILES:
        raise NetworkError(f"{repo} has more files than ModelScope lists ({_MOST_FILES})", "try --source hf")
    blobs = [entry for entry in entries if isinstance(entry, dict) and entry.get("Type") != "tree"]
    files = tuple(_file(entry, root, revision) for entry in blobs)
    return Listing("modelscope", repo, revision, _commit(data, blobs), page, files, auth=auth)


def _auth() -> dict[str, str]:
    """Older addresses of the hub know the token as a session cookie, newer ones as a bearer token."""
    token = os.environ.get(HUB.token, "").strip()
    return {"Authorization": f"Bearer {token}", "Cookie": f"m_session_id={token}"} if token else {}


def _file(entry: dict[str, Any], root: str, revision: str) -> RemoteFile:
    path = entry.get("Path")
    query = f"Revision={transport.quoted(revision)}&FilePath={transport.quoted(str(path))}"
    return listing.remote_file(path, entry.get("Size"), f"{root}?{query}", sha256=entry.get("Sha256"))


def _commit(data: dict[str, Any], blobs: list[dict[str, Any]]) -> str:
    """The commit listed. The hub abbreviates it; in full it stands at the files that it changed, and else only its start is known."""
    latest = data.get("LatestCommitter")
    latest = latest if isinstance(latest, dict) else {}
    start = str(latest.get("Id") or latest.get("ShortId") or "")
    return next((str(each["Revision"]) for each in blobs if start and str(each.get("Revision", "")).startswith(start)), start)
