"""From what was typed to a session: names, backends, and the cache of converted checkpoints."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from text_models import write_model

from ernie_cli.app import main
from ernie_cli.errors import InputError, UnsupportedError, UsageError
from ernie_cli.runtime.open import backends, cache_folder, open_session

needs_onnxruntime = pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is not installed")


def test_the_folder_is_the_registry() -> None:
    assert {"fake", "onnxruntime"} <= set(backends())
    assert not {"open", "static", "growing"} & set(backends())  # helpers are none


def test_asking_for_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no backend named `onxruntime`") as caught:
        open_session(tmp_path, "onxruntime")
    assert caught.value.hint == "did you mean `onnxruntime`?"
    with pytest.raises(InputError, match="no such file"):
        open_session(tmp_path / "nothing", "fake")
    with pytest.raises(InputError, match="empty folder"):
        open_session(tmp_path)


def test_a_format_that_nothing_runs(tmp_path: Path) -> None:
    (tmp_path / "ernie.json").write_text('{"format": "openvino"}')
    for backend in ("auto", "onnxruntime", "tensorrt"):
        with pytest.raises(UnsupportedError, match="no backend here runs openvino"):
            open_session(tmp_path, backend)


def test_an_engine_is_no_graph(tmp_path: Path) -> None:
    (tmp_path / "m.plan").write_bytes(b"x")
    with pytest.raises(UnsupportedError, match="no backend here runs engine"):
        open_session(tmp_path, "onnxruntime")


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ERNIE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/ernie")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/h")
    assert cache_folder() == Path("/h/.cache/ernie")
    monkeypatch.setenv("ERNIE_CACHE", "/c")
    assert cache_folder() == Path("/c")


@pytest.fixture
def source(checkpoint: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Any]:
    """A tiny checkpoint with a tokenizer, its transformers model, and a cache folder of its own."""
    monkeypatch.setenv("ERNIE_CACHE", str(tmp_path / "cache"))
    folder, reference = checkpoint(vocab_size=600, num_hidden_layers=2, eos_token_id=2)
    config = json.loads((folder / "config.json").read_text())
    write_model(folder)
    (folder / "config.json").write_text(json.dumps(config))
    return folder, reference


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[Any, str]:
    code = main(["run", *args, "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    return json.loads(out), err


@needs_onnxruntime
def test_a_checkpoint_is_converted_once(source: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = source
    first, said = run(capsys, str(folder), "hello", "--max-tokens", "12")
    assert "converting" in said and str(tmp_path / "cache") in said
    assert (first["backend"], len(list((tmp_path / "cache" / "onnx").iterdir()))) == ("onnxruntime", 1)
    again, said = run(capsys, str(folder), "hello", "--max-tokens", "12")
    assert "converting" not in said and "up to date" not in said
    assert again["token_ids"] == first["token_ids"] and again["text"] == first["text"]
    tokenizer_config = folder / "tokenizer_config.json"
    tokenizer_config.write_text(tokenizer_config.read_text() + " ")  # another model now
    assert "converting" in run(capsys, str(folder), "hello", "--max-tokens", "2")[1]


@needs_onnxruntime
@pytest.mark.parametrize("args", [[], ["--repetition-penalty", "1.3"]], ids=str)
def test_the_words_are_those_of_transformers(source: tuple[Path, Any], capsys: pytest.CaptureFixture[str], args: list[str]) -> None:
    import torch
    from transformers import PreTrainedTokenizerFast

    folder, reference = source
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    prompt = tokenizer("<|begin_of_sentence|>User: hello world\nAssistant: ", add_special_tokens=False, return_tensors="pt")
    penalty = float(args[1]) if args else 1.0
    with torch.no_grad():
        theirs = reference.generate(**prompt, max_new_tokens=40, do_sample=False, repetition_penalty=penalty, eos_token_id=[2, 4])
    expected = theirs[0, prompt["input_ids"].shape[1] :].tolist()
    found, _ = run(capsys, str(folder), "hello world", "--max-tokens", "40", *args)
    assert found["prompt_tokens"] == prompt["input_ids"].shape[1]
    assert found["token_ids"] == expected


@needs_onnxruntime
def test_a_batch_says_what_single_runs_say(source: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = source
    prompts = ["hello", "what is one and two? " * 9, "世界", "the end", "x"]
    (tmp_path / "p.jsonl").write_text("\n".join(json.dumps({"prompt": prompt}) for prompt in prompts))
    found, _ = run(capsys, str(folder), "--batch", str(tmp_path / "p.jsonl"), "--batch-size", "3", "--max-tokens", "16")
    alone = [run(capsys, str(folder), prompt, "--max-tokens", "16")[0] for prompt in prompts]
    assert [result["token_ids"] for result in found["results"]] == [result["token_ids"] for result in alone]


@needs_onnxruntime
def test_hf_paddle_and_onnx_say_the_same(source: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = source
    for form in ("paddle", "onnx"):
        assert main(["convert", str(folder), "--to", form, "-o", str(tmp_path / form), "-q"]) == 0
    capsys.readouterr()
    places = [folder, tmp_path / "paddle", tmp_path / "onnx", next((tmp_path / "onnx").glob("*.onnx"))]
    found = [run(capsys, str(place), "hello 世界", "--max-tokens", "24")[0] for place in places]
    assert len({json.dumps([entry["prompt_tokens"], entry["token_ids"], entry["text"]]) for entry in found}) == 1
    assert "converting" not in run(capsys, str(tmp_path / "onnx"), "hello")[1]


@needs_onnxruntime
def test_first_runs_at_the_same_time_wait_for_one_conversion(source: tuple[Path, Any], tmp_path: Path) -> None:
    words = [sys.executable, "-m", "ernie_cli", "run", str(source[0]), "hello", "--max-tokens", "2", "--json"]
    runs = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    said = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], said
    assert len({json.dumps(json.loads(out)["token_ids"]) for out, _ in said}) == 1
    assert len(list((tmp_path / "cache" / "onnx").iterdir())) == 1


@needs_onnxruntime
def test_the_embedded_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ERNIE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    found, said = run(capsys, "ernie-4.5-nano", "26 + 10 =", "--max-tokens", "8")
    assert found["backend"] == "onnxruntime" and "converting" in said
    (tmp_path / "ernie-4.5-nano").mkdir()  # a folder of that name goes first
    assert main(["run", "ernie-4.5-nano", "hi"]) == 3
