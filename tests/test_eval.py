"""`ernie eval`: figures of the embedded model and of graphs, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tiny_checkpoint import make_checkpoint

from ernie_cli import nano
from ernie_cli.app import main

NANO = "ernie-4.5-nano"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One conversion of the embedded model for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ERNIE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in nano.heldout()[:12]))
    return tmp_path / "lines.jsonl"


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """y = x · c, for x float32 [n, 3]; c is 1 in net.onnx and 1.5 in other.onnx."""
    for name, factor in (("net", 1.0), ("other", 1.5)):
        ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, ["n", 3]) for end in ("x", "y")]
        weights = [helper.make_tensor("c", TensorProto.FLOAT, [], [factor])]
        graph = helper.make_graph([helper.make_node("Mul", ["x", "c"], ["y"])], name, ends[:1], ends[1:], weights)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / f"{name}.onnx")
    np.savez(tmp_path / "x.npz", x=np.arange(12, dtype=np.float32).reshape(4, 3) - 5)
    return tmp_path / "net.onnx"


def run(*words: object) -> int:
    return main(["eval", *map(str, words)])


def record(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert run(*words, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_embedded_model_as_its_metrics_say(capsys: pytest.CaptureFixture[str]) -> None:
    """metrics.json was written by transformers, with another tokenizer's code and another loop."""
    told = json.loads((Path(nano.__file__).parent / "metrics.json").read_text(encoding="utf-8"))["heldout"]
    found = record(capsys, NANO)
    figures = {name: round(found[name]["perplexity"], 4) for name in ("answer", "full")}
    tokens = {f"{name}_tokens": found[name]["tokens"] for name in ("answer", "full")}
    assert {**figures, **tokens} == told["perplexity"]
    assert (round(found["exact_match"], 4), found["asked"]) == (told["exact_match"], told["lines"])
    assert found["misses"] == [{name: miss[name] for name in ("prompt", "answer", "given")} for miss in told["misses"]]
    assert found["unasked"] == found["windows"] == 0 and found["reference_exact_match"] is None


def test_people_get_a_table(lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(NANO, "--data", lines) == 0
    title, header, answers, all_tokens, exact, *rest = capsys.readouterr().out.splitlines()
    assert title == f"{NANO}, 12 texts of {lines}" and header.split() == ["tokens", "perplexity"]
    assert answers.split()[0] == "answers" and all_tokens.split()[:2] == ["all", "tokens"]
    assert exact == "  exact match  91.67%, 11 of 12 answers"
    assert [line.split() for line in rest] == [[], ["Wrong", "answers"], ["prompt", "right", "given"], ["8", "+", "18", "=", "26", "106"]]


def test_json_and_the_report_are_the_same(lines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = record(capsys, NANO, "--data", lines, "--report", tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == found
    assert (found["kind"], found["texts"], found["asked"], found["weighting"]) == ("language", 12, 12, "every token alike")
    assert found["answer"]["perplexity"] == pytest.approx(1, abs=0.2) and found["against"] is None


def test_against_itself_in_another_form(lines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", NANO, "--to", "paddle", "-o", str(tmp_path / "paddle"), "-q"]) == 0
    capsys.readouterr()
    assert run(tmp_path / "paddle", "--against", NANO, "--data", lines) == 0
    header, answers, all_tokens, exact = capsys.readouterr().out.splitlines()[1:5]
    assert header.split() == ["tokens", "perplexity", "against", "ratio", "KL,", "nats", "top-1"]
    assert answers.split()[-3:] == all_tokens.split()[-3:] == ["1.00000", "0.00e+00", "100.00%"]
    assert "against" in exact


@pytest.mark.parametrize(
    ("words", "there", "absent"),
    [
        (("--metric", "perplexity"), "perplexity", "exact match"),
        (("--metric", "exact-match"), "exact match", "perplexity"),
        (("--metric", "kl", "--metric", "top1", "--against", NANO), "KL, nats", "perplexity"),
    ],
)
def test_only_the_metrics_that_were_asked_for(
    lines: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], there: str, absent: str
) -> None:
    assert run(NANO, "--data", lines, "--limit", 4, *words) == 0
    out = capsys.readouterr().out
    assert there in out and absent not in out and "4 texts" in out


def test_plain_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("The sky is blue. " * 100)
    found = record(capsys, NANO, "--data", tmp_path / "a.txt")
    assert found["answer"] is None and found["exact_match"] is None and found["full"]["tokens"] > 300
    assert run(NANO, "--data", tmp_path / "a.txt", "--metric", "exact-match") == 2
    assert "needs answers" in capsys.readouterr().err


def test_graphs_against_each_other(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = record(capsys, net.with_name("other.onnx"), "--against", net, "--data", net.with_name("x.npz"))
    assert (found["kind"], found["samples"]) == ("graph", 4)
    assert found["outputs"]["y"] == pytest.approx(
        {"cosine": 1.0, "snr_db": 6.0206, "top1": 1.0, "max_abs": 3.0, "not_finite": 0, "elements": 12}, abs=1e-3
    )
    assert run(net, "--against", net, "--data", net.with_name("x.npz"), "--metric", "snr") == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()[1:]] == [["output", "SNR", "dB"], ["y", "equal"]]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("none",), 3, "no such file or folder: none"),
        ((NANO, "--data", "none.jsonl"), 3, "no such file: none.jsonl"),
        ((NANO, "--data", "empty.jsonl"), 3, "empty.jsonl: no texts"),
        ((NANO, "--data", "broken.jsonl"), 3, "broken.jsonl, line 2: not valid JSON"),
        ((NANO, "--data", "keys.jsonl"), 3, "keys.jsonl, line 1: `prompt`, `text` or `messages` is needed"),
        ((NANO, "--data", "x.npz"), 2, "a language model is measured on texts"),
        ((NANO, "--metric", "cosine"), 2, "no metric named `cosine` for a language model"),
        ((NANO, "--metric", "kl"), 2, "`kl` compares two models"),
        ((NANO, "--limit", "0"), 2, "--limit"),
        ((NANO, "--report", "none/report.json"), 2, "cannot write none/report.json"),
        ((NANO, "--against", "net.onnx"), 2, "is a language model, net.onnx a graph model"),
        ((NANO, "--against", "hf", "--data", "text.jsonl"), 2, "has a vocabulary of 1536 tokens, "),
        (("hf",), 2, "what should hf be measured on?"),
        (("hf", "--data", "text.jsonl"), 3, "hf: no tokenizer"),
        (("net.onnx",), 2, "net.onnx: a graph that is no language model"),
        (("net.onnx", "--data", "text.jsonl"), 2, "net.onnx: a graph that is no language model"),
        (("net.onnx", "--against", "other.onnx"), 2, "what should net.onnx be measured on?"),
        (("net.onnx", "--against", NANO), 2, "net.onnx is a graph model"),
        (("net.onnx", "--against", "other.onnx", "--data", "none.npz"), 2, "none.npz"),
        (("net.onnx", "--against", "other.onnx", "--data", "wrong.npz"), 2, "wrong.npz: no array named `x`"),
        (("net.onnx", "--against", "other.onnx", "--data", "nan.npz"), 3, "nan.npz: `x` holds NaN"),
        (("net.onnx", "--against", "other.onnx", "--data", "text.jsonl"), 3, ".: no tokenizer"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_refused(
    net: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, said: str
) -> None:
    monkeypatch.chdir(net.parent)
    Path("empty.jsonl").write_text("")
    Path("broken.jsonl").write_text('{"text": "one two"}\n{"text": \n')
    Path("keys.jsonl").write_text('{"question": "q"}\n')
    Path("text.jsonl").write_text('{"text": "hello world"}\n')
    np.savez("nan.npz", x=np.full((2, 3), np.nan, np.float32))
    np.savez("wrong.npz", q=np.zeros((2, 3), np.float32))
    if "hf" in words:
        make_checkpoint(Path("hf"))
    before = sorted(Path().iterdir())
    assert run(*words) == code
    out, err = capsys.readouterr()
    assert said in err.partition("error: ")[2].partition("hint: ")[0]
    assert not out and "hint: " in err and "bug" not in err
    assert sorted(Path().iterdir()) == before, "nothing is left behind"


def test_without_the_runtime_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lines: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert run(NANO, "--data", lines) == 5
    assert "pip install 'ernie-cli[cpu]'" in capsys.readouterr().err


def test_a_folder_that_may_not_be_written(lines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The graph for all logits is made in memory."""
    assert main(["convert", NANO, "--to", "onnx", "-o", str(tmp_path / "onnx"), "-q"]) == 0
    capsys.readouterr()
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "onnx").iterdir()}
    (tmp_path / "onnx").chmod(0o555)
    try:
        assert record(capsys, tmp_path / "onnx", "--data", lines)["texts"] == 12
    finally:
        (tmp_path / "onnx").chmod(0o755)
    assert {file.name: file.stat().st_mtime_ns for file in (tmp_path / "onnx").iterdir()} == before
    shutil.rmtree(tmp_path / "onnx")
