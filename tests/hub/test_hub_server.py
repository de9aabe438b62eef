"""The test server against huggingface_hub's own client, the witness that it speaks the real API; and our reader against both."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
from hub_server import Hub

from ernie_cli.hub import hf


def test_the_real_client_downloads_from_the_test_server(hub: Hub, tmp_path: Path) -> None:
    folder = Path(huggingface_hub.snapshot_download("baidu/tiny", endpoint=hub.url, local_dir=tmp_path / "real"))
    for path, data in hub.repos["baidu/tiny"].files.items():
        assert (folder / path).read_bytes() == data


@pytest.mark.parametrize("revision", ["main", "c" * 40])
def test_our_reader_and_the_real_client_see_the_same_repository(hub: Hub, revision: str) -> None:
    ours = hf.list_repo("baidu/tiny", revision)
    theirs = huggingface_hub.HfApi(endpoint=hub.url).model_info("baidu/tiny", revision=revision, files_metadata=True)
    assert (ours.repo, ours.commit) == (theirs.id, theirs.sha)
    siblings = theirs.siblings or []
    assert f"license:{ours.licence}" in (theirs.tags or [])
    assert [(each.path, each.size, each.git_oid, each.sha256) for each in ours.files] == [
        (each.rfilename, each.size, each.blob_id, each.lfs.sha256 if each.lfs else "") for each in siblings
    ]
    assert [each.url for each in ours.files] == [
        huggingface_hub.hf_hub_url("baidu/tiny", each.rfilename, revision="c" * 40, endpoint=hub.url) for each in siblings
    ]
