"""The parts of three hubs' APIs that downloads use, as request handlers for the test hub.

Hugging Face: model info, tree, resolve (HEAD and GET, large files redirected to a CDN on another port). ModelScope: files, repo.
AI Studio: Gitea's trees, contents, tags, raw, media.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from hub_server import LARGE, Handler, Repo, git_oid, pointer, sha256


class HuggingFace(Handler):
    """Its model info, tree and resolve; `cdn` is the other port."""

    def hf_info(self, name: str, revision: str = "main") -> None:
        if self.fault("") or (repo := self.repo(name, revision)) is None:
            return
        siblings = []
        for each in repo.tree():
            data = each["data"]
            entry = {"rfilename": each["path"], "size": each["size"], "blobId": each["oid"]}
            if len(data) >= LARGE:
                entry["lfs"] = self.lie(str(each["path"]), {"sha256": sha256(data), "size": len(data), "pointerSize": len(pointer(data))})
            siblings.append(self.lie(str(each["path"]), entry))
        siblings += self.server.hub.extra
        self.json({"_id": "1", "id": name, "sha": repo.commit, "private": False, "tags": [f"license:{repo.licence}"], "siblings": siblings})

    def hf_tree(self, name: str, revision: str) -> None:
        if repo := self.repo(name, revision):
            self.json([self._hf_tree_entry(each) for each in repo.tree()])

    @staticmethod
    def _hf_tree_entry(each: dict[str, Any]) -> dict[str, Any]:
        data = each["data"]
        entry = {"type": "file", "oid": each["oid"], "size": each["size"], "path": each["path"]}
        if len(data) >= LARGE:
            entry["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": len(pointer(data))}
        return entry

    def hf_resolve(self, name: str, revision: str, path: str) -> None:
        repo = self.repo(name, revision)
        if repo is None:
            return
        data = repo.files.get(path)
        if data is None:
            self.answer(b"", 404, {"X-Error-Code": "EntryNotFound"})
            return
        if self.fault(path, data):
            return
        headers = {"X-Repo-Commit": repo.commit, "ETag": f'"{git_oid(data)}"', "Accept-Ranges": "bytes"}
        if len(data) < LARGE:
            self.send_file(data, headers)
            return
        headers |= {"X-Linked-Etag": f'"{sha256(data)}"', "X-Linked-Size": str(len(data))}
        self.answer(b"", 302, headers | {"Location": f"{self.server.hub.cdn}/cdn/{quote(name)}/{quote(path)}"})

    def cdn(self, org: str, name: str, path: str) -> None:
        data = self.server.hub.repos[f"{org}/{name}"].files[path]
        if not self.fault(f"cdn:{path}", data):
            self.send_file(data, {"ETag": f'"{sha256(data)}"'})


class ModelScope(Handler):
    """Its two addresses for downloads."""

    def ms_files(self, name: str) -> None:
        if self.fault("") or (repo := self._ms_repo(name)) is None:
            return
        if self.query.get("Revision") not in repo.revisions():
            self.json({"Code": 200, "Success": True, "Data": {"Files": None, "LatestCommitter": None}})
            return
        files = [self.lie(path, {"Path": path, "Type": "blob", "Size": len(data), "Sha256": sha256(data), "Revision": repo.commit})
                 for path, data in sorted(repo.files.items())]  # fmt: skip
        folders = [{"Path": folder, "Type": "tree", "Size": 0} for folder in {path.rpartition("/")[0] for path in repo.files} - {""}]
        data = {"Files": files + folders, "LatestCommitter": {"Id": "", "ShortId": repo.commit[:8]}}
        self.json({"Code": 200, "Success": True, "Message": "success", "Data": data})

    def ms_file(self, name: str) -> None:
        if repo := self._ms_repo(name):
            path = self.query["FilePath"]
            if path in repo.files and not self.fault(path, repo.files[path]):
                self.send_file(repo.files[path])

    def _ms_repo(self, name: str) -> Repo | None:
        repo = self.server.hub.repos.get(name)
        if repo is None:
            self.answer(b'{"Code": 10010205001, "Message": "the repo does not exist", "Success": false}', 404)
        return repo


class AiStudio(Handler):
    """Gitea."""

    def _ai_repo(self, name: str, revision: str = "master") -> Repo | None:
        repo = self.server.hub.repos.get(name)
        if repo is None or revision not in repo.revisions():
            self.answer(b'{"message": "not found"}', 404)
            return None
        return repo

    def ai_info(self, name: str) -> None:
        if self._ai_repo(name):
            self.json({"full_name": name, "default_branch": "master"})

    def ai_tag(self, name: str, tag: str) -> None:
        if tag == "v1" and (repo := self._ai_repo(name)):
            self.json({"name": "v1", "commit": {"sha": repo.commit}})
        else:
            self.answer(b"", 404)

    def ai_tree(self, name: str, revision: str) -> None:
        if self.fault("") or (repo := self._ai_repo(name, revision)) is None:
            return
        tree = [{"path": each["path"], "type": "blob", "mode": "100644", "sha": each["oid"], "size": self._in_git(each["data"])}
                for each in repo.tree()]  # fmt: skip
        tree += [{"path": "link", "type": "blob", "mode": "120000", "sha": "0" * 40, "size": 4}]
        tree += [
            {"path": folder, "type": "tree", "mode": "040000", "sha": "0" * 40}
            for folder in {p.rpartition("/")[0] for p in repo.files} - {""}
        ]
        page, size = int(self.query.get("page", 1)), 3
        chosen = tree[(page - 1) * size : page * size]
        self.json({"sha": repo.commit, "url": "", "tree": chosen, "truncated": page * size < len(tree)})

    @staticmethod
    def _in_git(data: bytes) -> int:
        return len(pointer(data)) if len(data) >= LARGE else len(data)

    def ai_contents(self, name: str, folder: str) -> None:
        if repo := self._ai_repo(name, self.query.get("ref", "master")):
            inside = {path: data for path, data in repo.files.items() if path.rpartition("/")[0] == folder}
            size = self._in_git if self.server.hub.gitea_stock else len
            self.json([self.lie(path, {"path": path, "type": "file", "size": size(data)}) for path, data in inside.items()])

    def ai_raw(self, name: str, path: str) -> None:
        if repo := self._ai_repo(name, self.query.get("ref", "master")):
            data = repo.files[path]
            self.answer(pointer(data) if len(data) >= LARGE else data)

    def ai_media(self, name: str, path: str) -> None:
        if repo := self._ai_repo(name, self.query.get("ref", "master")):
            data = repo.files[path]
            if not self.fault(path, data):
                self.send_file(data)


class AllHubs(HuggingFace, ModelScope, AiStudio):
    """What the server runs: the address decides which hub answers."""

    def dispatch(self) -> None:
        for pattern, handle in ROUTES:
            if match := re.fullmatch(pattern, urlsplit(self.path).path):
                handle(self, *(unquote(group or "") for group in match.groups()))
                return
        self.answer(b"no such address", 404)


_NAME = r"([^/]+/[^/]+)"
ROUTES: list[tuple[str, Callable[..., None]]] = [
    (rf"/api/models/{_NAME}", HuggingFace.hf_info),
    (rf"/api/models/{_NAME}/revision/([^/]+)", HuggingFace.hf_info),
    (rf"/api/models/{_NAME}/tree/([^/]+)", HuggingFace.hf_tree),
    (rf"/{_NAME}/resolve/([^/]+)/(.+)", HuggingFace.hf_resolve),
    (r"/cdn/([^/]+)/([^/]+)/(.+)", HuggingFace.cdn),
    (rf"/api/v1/models/{_NAME}/repo/files", ModelScope.ms_files),
    (rf"/api/v1/models/{_NAME}/repo", ModelScope.ms_file),
    (rf"/api/v1/repos/{_NAME}", AiStudio.ai_info),
    (rf"/api/v1/repos/{_NAME}/tags/([^/]+)", AiStudio.ai_tag),
    (rf"/api/v1/repos/{_NAME}/git/trees/([^/]+)", AiStudio.ai_tree),
    (rf"/api/v1/repos/{_NAME}/contents(?:/(.*))?", AiStudio.ai_contents),
    (rf"/api/v1/repos/{_NAME}/raw/(.+)", AiStudio.ai_raw),
    (rf"/api/v1/repos/{_NAME}/media/(.+)", AiStudio.ai_media),
]
