"""Repositories and answers that are broken, or mean harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hub_model import SHARD, SOURCES, M, Run
from hub_server import Hub


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/etc/evil",
        "a/../../evil",
        "a//b",
        "C:\\evil",
        "..",
        "",
        "ernie.json",
        ".ernie-halves/x",
        "config.json",
        "config.json/x",
        "nul\0",
        "red\x1b[31m",
        "half\ud800",
    ],
)
def test_a_listing_with_bad_names_is_refused_whole(hub: Hub, ernie: Run, tmp_path: Path, name: str) -> None:
    hub.extra = [{"rfilename": name, "size": 1, "blobId": "0" * 40}]
    code, said = ernie("baidu/tiny", "-o", "m")
    assert code == 3, said
    assert len(hub.log) == 1, "no file was asked for"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["rfilename", "size"])
@pytest.mark.parametrize("value", [None, -1, "12", 1.5, True, [], {}])
def test_a_listing_that_makes_no_sense(hub: Hub, ernie: Run, key: str, value: object) -> None:
    hub.extra = [{"rfilename": "x", "size": 1, key: value}]
    assert ernie("baidu/tiny", "-o", "m")[0] == 8


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'"x"', b'{"siblings": [1], "Data": {"Files": [1, {}]}, "tree": [1, {}]}', b"[" * 9999]
)
@pytest.mark.parametrize("source", SOURCES)
def test_an_answer_that_is_not_the_hubs(hub: Hub, ernie: Run, source: str, body: bytes) -> None:
    def nonsense(handler: Any, data: bytes) -> bool:
        handler.answer(body)
        return True

    hub.break_always("", nonsense)
    code, said = ernie("baidu/tiny", "--source", source, "-o", "m")
    assert code in (2, 8), said
    assert not M.exists()


def test_an_index_that_names_an_absent_shard_is_found_before_the_weights_are_fetched(hub: Hub, ernie: Run, tmp_path: Path) -> None:
    del hub.repos["baidu/tiny"].files[SHARD]
    code, said = ernie("baidu/tiny", "-o", "m")
    assert code == 3
    assert SHARD in said
    assert hub.sent() == len(hub.repos["baidu/tiny"].files["model.safetensors.index.json"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("index", [b'{"weight_map": {"a": "../../x"}}', b'{"weight_map": {"a": "/x"}}', b"not json", b"[]"])
def test_an_index_that_is_broken_or_leaves_the_folder(hub: Hub, ernie: Run, tmp_path: Path, index: bytes) -> None:
    hub.repos["baidu/tiny"].files["model.safetensors.index.json"] = index
    assert ernie("baidu/tiny", "-o", "m")[0] == 3
    assert not list(tmp_path.iterdir())
