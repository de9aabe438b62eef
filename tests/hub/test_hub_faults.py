"""Connections that break, hubs that falter or refuse, and what the next run makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_faults import circle, corrupt, cut, hang, longer, redirect, stall, status
from hub_model import SHARD, SOURCES, M, Run, blob, holds, manifest, model_files
from hub_server import Fault, Hub, Repo

# Faults that pass

PASSING: dict[str, list[Fault]] = {
    "cut half-way": [cut(0.5)],
    "cut before the first byte": [cut(0.0)],
    "cut again and again": [cut(share / 10) for share in range(1, 6)],
    "429, then success": [status(429)],
    "429 that says how long": [status(429, Retry_After="3600")],
    "500, then success": [status(500), status(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT")],
    "wrong content, once": [corrupt],
    "longer than listed, once": [longer],
    "no answer, once": [hang],
    "an answer that stalls": [stall(0.5)],
    "range refused": [cut(0.5), status(416)],
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_waited_out(hub: Hub, ernie: Run, source: str, name: str) -> None:
    hub.break_once(blob(source), *PASSING[name])
    code, said = ernie("baidu/tiny", "--source", source, "-o", "m")
    assert (code, holds(M, hub.repos["baidu/tiny"].files)) == (0, True), said


@pytest.mark.parametrize("fault", [status(429), status(500), hang], ids=["429", "500", "hang"])
@pytest.mark.parametrize("source", SOURCES)
def test_the_listing_is_asked_for_again_too(hub: Hub, ernie: Run, source: str, fault: Fault) -> None:
    hub.break_once("", fault)
    assert ernie("baidu/tiny", "--source", source, "-o", "m")[0] == 0


# Faults that stay

LASTING: dict[str, tuple[Fault, str]] = {
    "always cut": (cut(0.5), "cut off"),
    "always wrong": (corrupt, "hash"),
    "always longer": (longer, "bytes long"),
    "not there": (status(404), "404"),
    "forbidden": (status(403), "403"),
    "never up": (status(503), "503"),
    "silent": (hang, "no answer"),
    "sent to a local file": (redirect("file:///etc/passwd"), "redirects to"),
    "sent in circles": (circle, "circles"),
    "not satisfiable": (status(416), "shorter"),
}


@pytest.mark.parametrize(
    ("source", "name"), [("hf", name) for name in LASTING] + [("modelscope", name) for name in LASTING if name != "silent"]
)
def test_what_stays_broken_ends_in_one_line_exit_8_and_nothing_half_written(hub: Hub, ernie: Run, source: str, name: str) -> None:
    fault, words = LASTING[name]
    hub.break_always(blob(source), fault)
    code, said = ernie("baidu/tiny", "--source", source, "-o", "m")
    assert code == 8
    assert words in said
    assert [line.split(":")[0] for line in said.splitlines() if line.startswith(("error", "hint"))] == ["error", "hint"]
    assert not M.exists()
    hub.forget()
    assert ernie("baidu/tiny", "--source", source, "-o", "m")[0] == 0, "once the hub is well again, the same command succeeds"
    assert holds(M, hub.repos["baidu/tiny"].files)


@pytest.mark.parametrize(
    ("source", "code", "variable"),
    [
        ("hf", 401, "HF_TOKEN"),
        ("hf", 403, "HF_TOKEN"),
        ("modelscope", 401, "MODELSCOPE_API_TOKEN"),
        ("aistudio", 403, "AISTUDIO_ACCESS_TOKEN"),
    ],
)
def test_a_refusal_says_which_token_to_set(hub: Hub, ernie: Run, source: str, code: int, variable: str) -> None:
    hub.break_always("", status(code))
    exit_code, said = ernie("baidu/tiny", "--source", source, "-o", "m")
    assert exit_code == 8
    assert f"set {variable}" in said
    assert len(hub.log) == 1, "asking again would not help"


@pytest.mark.parametrize("code", [401, 403])
def test_a_gated_model_lists_its_files_but_keeps_them(hub: Hub, ernie: Run, code: int) -> None:
    hub.break_always("config.json", status(code, X_Error_Code="GatedRepo"))
    exit_code, said = ernie("baidu/tiny", "-o", "m")
    assert exit_code == 8
    assert "set HF_TOKEN" in said
    assert f"{hub.url}/baidu/tiny" in said


def test_a_gated_model_opens_with_the_token_which_the_cdn_never_sees(hub: Hub, ernie: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repos["baidu/tiny"].private = True
    code, said = ernie("baidu/tiny", "-o", "m")
    assert code == 8
    assert f"{hub.url}/baidu/tiny" in said
    hub.forget()
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert ernie("baidu/tiny", "-o", "m")[0] == 0
    to_cdn = {each.authorization for each in hub.log if f":{each.port}" in hub.cdn}
    to_hub = {each.authorization for each in hub.log if f":{each.port}" in hub.url}
    assert (to_hub, to_cdn) == ({"Bearer secret"}, {None})


@pytest.mark.parametrize("token", ["two\nlines", "“quoted”"])
def test_a_token_that_cannot_be_sent_is_not_shown(hub: Hub, ernie: Run, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", token)
    code, said = ernie("baidu/tiny", "--source", "modelscope", "-o", "m")
    assert code == 8
    assert token not in said
    assert "token" in said


# Resuming


@pytest.mark.parametrize("source", SOURCES)
def test_a_cut_download_goes_on_where_it_stopped(hub: Hub, ernie: Run, source: str) -> None:
    hub.break_always(blob(source), cut(0.5))
    assert ernie("baidu/tiny", "--source", source, "-o", "m")[0] == 8
    hub.forget()
    assert ernie("baidu/tiny", "--source", source, "-o", "m")[0] == 0
    shard = len(hub.repos["baidu/tiny"].files[SHARD])
    assert hub.sent() == shard - shard // 2, "only the other half, and no file that was whole"
    assert holds(M, hub.repos["baidu/tiny"].files)


def test_a_server_without_ranges_sends_it_all_again(hub: Hub, ernie: Run) -> None:
    hub.ranges = False
    hub.break_once(blob("hf"), cut(0.5))
    assert ernie("baidu/tiny", "-o", "m")[0] == 0
    assert holds(M, hub.repos["baidu/tiny"].files)


def test_a_half_of_another_revision_is_left_alone(hub: Hub, ernie: Run) -> None:
    hub.break_always(blob("hf"), cut(0.5))
    ernie("baidu/tiny", "-o", "m")
    hub.forget()
    hub.repos["baidu/tiny"] = Repo(model_files(seed=1), commit="d" * 40)
    assert ernie("baidu/tiny", "-o", "m")[0] == 0
    assert holds(M, hub.repos["baidu/tiny"].files)
    assert not [each for each in hub.log if each.start]


@pytest.mark.parametrize("damage", ["a flipped byte", "too long", "a finished file changed"])
def test_what_is_taken_up_is_hashed_first(hub: Hub, ernie: Run, damage: str) -> None:
    hub.break_always(blob("hf"), cut(0.5))
    ernie("baidu/tiny", "-o", "m")
    hub.forget()
    (half,) = (path for path in Path("m.partial/.ernie-halves").iterdir() if path.stat().st_size)
    if damage == "a flipped byte":
        half.write_bytes(b"\xff" + half.read_bytes()[1:])
    elif damage == "too long":
        half.write_bytes(bytes(1 << 20))
    else:
        Path("m.partial/config.json").write_bytes(bytes(len(hub.repos["baidu/tiny"].files["config.json"])))
    assert ernie("baidu/tiny", "-o", "m")[0] == 0
    assert holds(M, hub.repos["baidu/tiny"].files)


def test_without_a_hash_from_the_hub_nothing_is_resumed(hub: Hub, ernie: Run) -> None:
    hub.lie[f"{SHARD}.Sha256"] = None
    hub.break_once(SHARD, cut(0.5))
    assert ernie("baidu/tiny", "--source", "modelscope", "-o", "m")[0] == 0
    assert holds(M, hub.repos["baidu/tiny"].files)
    assert not [each for each in hub.log if each.start]
    assert manifest()["checks"][0]["files_by_check"] == {"sha256": 6, "size": 1}


# Without a network


def test_a_pinned_download_asks_nobody(hub: Hub, ernie: Run) -> None:
    command = ("baidu/tiny", "-o", "m", "--revision", "c" * 40)
    ernie(*command)
    hub.forget()
    code, said = ernie(*command)
    assert (code, hub.log) == (0, [])
    assert "up to date" in said


@pytest.mark.parametrize("source", SOURCES)
def test_a_finished_download_outlives_the_network(hub: Hub, ernie: Run, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    ernie("baidu/tiny", "--source", source, "-o", "m")
    for name in ("HF_ENDPOINT", "MODELSCOPE_ENDPOINT", "AISTUDIO_ENDPOINT"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    code, said = ernie("baidu/tiny", "--source", source, "-o", "m")
    assert code == 0
    assert "may not be the newest" in said
    assert "up to date" in said
    code, said = ernie("baidu/tiny", "--source", source, "-o", "other")
    assert code == 8
    assert "HTTPS_PROXY" in said


def test_offline_mode_is_honoured(hub: Hub, ernie: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert ernie("baidu/tiny", "-o", "m")[0] == 8
    assert not hub.log


@pytest.mark.parametrize("value", ["ftp://x", "http://", "http://[", "http://a b"])
def test_an_endpoint_that_is_none(hub: Hub, ernie: Run, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", value)
    code, said = ernie("baidu/tiny", "-o", "m")
    assert code in (2, 8)
    assert "error" in said
