"""Downloads from three hubs when all goes well: what is fetched, where it goes, and when nothing needs to be done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hub_model import CARD, SHARD, SOURCES, M, Run, holds, manifest, model_files
from hub_server import LARGE, Hub, Repo, sha256

# Whole


@pytest.mark.parametrize("source", SOURCES)
def test_every_hub_brings_every_file_and_the_lock_says_what_and_from_where(hub: Hub, ernie: Run, source: str) -> None:
    code, said = ernie("baidu/tiny", "--source", source, "-o", "m")
    repo = hub.repos["baidu/tiny"]
    assert (code, holds(M, repo.files)) == (0, True), said
    lock = manifest()
    assert {"source": source, "repo": "baidu/tiny", "commit": repo.commit, "licence": "apache-2.0"}.items() <= lock["made_from"].items()
    assert {path: (facts["size"], facts["sha256"]) for path, facts in lock["files"].items()} == {
        path: (len(data), sha256(data)) for path, data in repo.files.items()
    }
    assert (lock["format"], lock["architecture"], lock["precision"]) == ("hf", "ernie4_5", "bf16")
    assert not Path("m.partial").exists()


@pytest.mark.parametrize("stock", [False, True])
def test_gitea_may_count_large_files_as_their_pointers_or_as_what_they_are(hub: Hub, ernie: Run, stock: bool) -> None:
    hub.gitea_stock = stock
    assert ernie("baidu/tiny", "--source", "aistudio", "-o", "m")[0] == 0
    assert manifest()["checks"][0]["files_by_check"] == ({"git": 5, "sha256": 2} if stock else {"git": 7})


@pytest.mark.parametrize("source", SOURCES)
def test_the_second_run_fetches_nothing(hub: Hub, ernie: Run, source: str) -> None:
    command = ("baidu/tiny", "--source", source, "-o", "m")
    ernie(*command)
    before = (M / "ernie.json").stat().st_mtime_ns
    hub.forget()
    code, said = ernie(*command)
    assert (code, hub.sent(), (M / "ernie.json").stat().st_mtime_ns) == (0, 0, before)
    assert "up to date" in said
    assert ernie(*command, "--force")[0] == 0
    assert hub.sent() == sum(map(len, hub.repos["baidu/tiny"].files.values()))


def test_json_tells_what_was_done(hub: Hub, ernie: Run) -> None:
    total = sum(map(len, hub.repos["baidu/tiny"].files.values()))
    facts = json.loads(ernie("baidu/tiny", "-o", "m", "--json", "-q")[1])
    assert facts == {
        "path": "m", "source": "hf", "repo": "baidu/tiny", "revision": "main", "commit": "c" * 40, "licence": "apache-2.0",
        "format": "hf", "files": 7, "bytes": total, "fetched_bytes": total, "up_to_date": False,
    }  # fmt: skip
    assert json.loads(ernie("baidu/tiny", "-o", "m", "--json", "-q")[1]) == {**facts, "fetched_bytes": 0, "up_to_date": True}


def test_include_and_exclude(hub: Hub, ernie: Run) -> None:
    assert ernie("baidu/tiny", "-o", "m", "--include", "*.json", "--include", "extra/", "--exclude", "config.*")[0] == 0
    assert set(manifest()["files"]) == {"model.safetensors.index.json", "extra/notes 1+1.txt"}
    code, said = ernie("baidu/tiny", "-o", "m", "--include", "*.gguf")
    assert code == 2
    assert "README.md" in said
    assert ernie("baidu/tiny", "-o", "m")[0] == 0, "other files than before: not up to date"
    assert holds(M, hub.repos["baidu/tiny"].files)


def test_a_repository_of_no_known_format_is_fetched_and_said_to_be_so(hub: Hub, ernie: Run) -> None:
    hub.repos["a/b"] = Repo({"data.csv": b"1,2\n"})
    code, said = ernie("a/b", "-o", "m")
    assert code == 0
    assert "warning" in said
    assert manifest()["format"] == ""


# Another revision


def test_a_new_commit_fetches_only_what_changed(hub: Hub, ernie: Run) -> None:
    ernie("baidu/tiny", "-o", "m")
    hub.forget()
    repo = hub.repos["baidu/tiny"] = Repo({**model_files(), "README.md": CARD + b"new"}, commit="d" * 40)
    assert ernie("baidu/tiny", "-o", "m")[0] == 0
    assert holds(M, repo.files)
    assert manifest()["made_from"]["commit"] == "d" * 40
    assert [each.path.rpartition("/")[2] for each in hub.log if each.sent] == ["README.md"]


def test_a_disk_without_hard_links_gets_copies(hub: Hub, ernie: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError("Operation not permitted")

    ernie("baidu/tiny", "-o", "m")
    hub.forget()
    hub.repos["baidu/tiny"] = Repo({**model_files(), "README.md": CARD + b"new"}, commit="d" * 40)
    monkeypatch.setattr("os.link", refuse)
    assert ernie("baidu/tiny", "-o", "m")[0] == 0
    assert holds(M, hub.repos["baidu/tiny"].files)
    assert len([each for each in hub.log if each.sent]) == 1


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"made_by": 1, "made_from": [], "files": {}, "key": 3}'])
def test_a_manifest_that_somebody_broke(hub: Hub, ernie: Run, content: bytes) -> None:
    ernie("baidu/tiny", "-o", "m")
    (M / "ernie.json").write_bytes(content)
    assert ernie("baidu/tiny", "-o", "m")[0] in (0, 2)
    assert ernie("baidu/tiny", "-o", "m", "--force")[0] == 0
    assert holds(M, hub.repos["baidu/tiny"].files)


def test_a_file_that_went_missing_is_fetched_again(hub: Hub, ernie: Run) -> None:
    ernie("baidu/tiny", "-o", "m")
    hub.forget()
    (M / SHARD).unlink()
    assert ernie("baidu/tiny", "-o", "m")[0] == 0
    assert holds(M, hub.repos["baidu/tiny"].files)
    assert hub.sent() == len(hub.repos["baidu/tiny"].files[SHARD])


@pytest.mark.parametrize("source", SOURCES)
def test_an_unknown_repository_or_revision_is_a_slip_of_the_command_line(hub: Hub, ernie: Run, source: str) -> None:
    code, said = ernie("baidu/ernie-4.5-0.3b-pd", "--source", source, "-o", "m")
    assert code == 2
    assert "did you mean `ernie download ernie-4.5-0.3b" in said
    code, said = ernie("baidu/tiny", "--source", source, "--revision", "v9", "-o", "m")
    assert code == 2
    assert "no revision `v9`" in said
    assert not list(Path().glob("m*"))


def test_a_catalogue_name_that_a_hub_lacks_sends_to_another_hub(hub: Hub, ernie: Run) -> None:
    code, said = ernie("ernie-4.5-0.3b")
    assert code == 2
    assert "--source" in said
    assert "did you mean" not in said


def test_ai_studio_finds_annotated_tags(hub: Hub, ernie: Run) -> None:
    assert ernie("baidu/tiny", "--source", "aistudio", "--revision", "v1", "-o", "m")[0] == 0
    assert manifest()["made_from"]["commit"] == "c" * 40


# The place


def test_a_folder_that_holds_something_else_is_left_alone(hub: Hub, ernie: Run) -> None:
    hub.repos["a/b"] = Repo({"x.csv": b"1"})
    ernie("a/b", "-o", "m")
    code, said = ernie("baidu/tiny", "-o", "m")
    assert code == 2
    assert "--force" in said
    assert set(manifest()["files"]) == {"x.csv"}
    Path("own").mkdir()
    Path("own/thesis.txt").write_text("mine")
    assert ernie("baidu/tiny", "-o", "own", "--force")[0] == 2
    assert Path("own/thesis.txt").read_text() == "mine"


def test_the_default_place_is_the_models_name(hub: Hub, ernie: Run) -> None:
    hub.repos["baidu/ERNIE-4.5-0.3B-PT"] = hub.repos["PaddlePaddle/ERNIE-4.5-0.3B-Paddle"] = Repo(model_files())
    code, said = ernie("ERNIE-4.5-0.3b")
    assert code == 0
    assert "using baidu/ERNIE-4.5-0.3B-PT" in said
    assert manifest(Path("ernie-4.5-0.3b"))["made_from"]["repo"] == "baidu/ERNIE-4.5-0.3B-PT"
    assert ernie("ernie-4.5-0.3b-paddle", "--source", "modelscope")[0] == 0
    assert manifest(Path("ernie-4.5-0.3b-paddle"))["made_from"]["repo"] == "PaddlePaddle/ERNIE-4.5-0.3B-Paddle"
    assert ernie("baidu/tiny")[0] == 0
    assert Path("tiny").is_dir()


def test_dry_run_shows_the_plan_and_writes_nothing(hub: Hub, ernie: Run, tmp_path: Path) -> None:
    code, said = ernie("baidu/tiny", "-o", "m", "--dry-run", "--device", "l4")
    assert code == 0
    assert SHARD in said
    assert "memory of NVIDIA L4" in said
    plan = json.loads(ernie("baidu/tiny", "-o", "m", "--dry-run", "--json", "-q")[1])
    files = hub.repos["baidu/tiny"].files
    assert {each["path"]: each["size"] for each in plan["files"]} == {path: len(data) for path, data in files.items()}
    assert plan["bytes"] == sum(map(len, files.values()))
    assert [each["verdict"] for each in plan["fits"]] == ["fits", "fits"]
    assert hub.sent() == 0
    assert not list(tmp_path.iterdir())


def test_a_model_larger_than_the_disk_is_refused_before_a_byte_is_fetched(hub: Hub, ernie: Run, tmp_path: Path) -> None:
    hub.extra = [{"rfilename": "huge.bin", "size": 10**17, "blobId": "0" * 40}]
    for extra in ((), ("--dry-run",)):
        code, said = ernie("baidu/tiny", "-o", "m", *extra)
        assert code == 7
        assert "100000.0 TB" in said
    assert hub.sent() == 0
    assert not list(tmp_path.iterdir())


def test_large_is_small_enough_to_be_quick() -> None:
    assert LARGE < len(model_files()[SHARD]) < 1 << 20
