"""Batches: the same replies as one by one, in the order of the input, and bad lines named before any work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ernie_cli.errors import InputError, Interrupted
from ernie_cli.generation import batch
from ernie_cli.generation.batch_file import answer, parse, to_jsonl
from ernie_cli.generation.speaker import Speaker

Speak = Callable[..., Speaker]
ENTRIES: list[dict[str, Any]] = [
    {"prompt": "hello", "id": "first", "answer": "left alone"},
    {"prompt": "hello world " * 60, "max_tokens": 3},
    {"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "你好"}], "id": 7},
    {"prompt_ids": [5, 6, 7], "max_tokens": 90},
    {"prompt": "what is one and two?"},
    {"prompt": "x", "id": None},
    {"prompt_ids": [9]},
]
DATA = "\n".join(map(json.dumps, ENTRIES)).encode()


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 1.0, "seed": 3}, {"temperature": 0.8, "top_k": 5, "repetition_penalty": 1.2}], ids=str
)
@pytest.mark.parametrize("size", [1, 2, 3, 16])
def test_as_one_by_one(speak: Speak, settings: dict[str, Any], size: int) -> None:
    speaker = speak(batch=size, max_tokens=30, **settings)
    results, summary = answer(speaker, parse(DATA, "p.jsonl"))
    single = speak(max_tokens=30, **settings)
    for number, result in enumerate(results):
        line = parse(DATA, "p.jsonl")[number]
        alone, _ = answer(single, [line])
        if settings and number:  # a draw depends on the line's number: the only thing that may differ
            assert result["prompt_tokens"] == alone[0]["prompt_tokens"]
        else:
            assert result == {**alone[0], "index": number}
    assert [result["id"] for result in results] == ["first", None, 7, None, None, None, None]
    assert (summary["prompts"], summary["generated_tokens"]) == (7, sum(len(result["token_ids"]) for result in results))


def test_draws_do_not_depend_on_the_batch(speak: Speak) -> None:
    settings = {"max_tokens": 30, "temperature": 1.0, "seed": 3}
    found = [answer(speak(batch=size, **settings), parse(DATA, ""))[0] for size in (1, 2, 5)]
    assert found[0] == found[1] == found[2]
    same = answer(speak(batch=2, **settings), parse(b'{"prompt": "hello"}\n{"prompt": "hello"}', ""))[0]
    assert same[0]["token_ids"] != same[1]["token_ids"]


def test_the_first_line_is_what_a_single_run_says(speak: Speak) -> None:
    speaker = speak(temperature=1.0, seed=9)
    alone = speaker.answer(speaker.prompter.text("hello"), lambda text: None)
    assert answer(speak(batch=4, temperature=1.0, seed=9), parse(DATA, ""))[0][0]["token_ids"] == alone.token_ids


def test_rows_are_never_idle_while_prompts_wait(speak: Speak) -> None:
    speaker = speak(batch=2, ignore_eos=True)
    original, widths = speaker.session.step, []

    def counted(tokens: Any, rows: Any = None) -> Any:
        widths.append(len(rows))
        return original(tokens, rows)

    speaker.session.step = counted
    lines = parse("\n".join(json.dumps({"prompt_ids": [5], "max_tokens": n}) for n in (9, 2, 3, 3, 2)).encode(), "")
    results, _ = answer(speaker, lines)
    assert [len(result["token_ids"]) for result in results] == [9, 2, 3, 3, 2]
    # 5 prefills; the decodes of the four short replies (1+2+2+1) all run beside the long one, whose last 2 run alone
    assert (widths.count(2), widths.count(1)) == (6, 5 + 2)


def test_interrupted(speak: Speak) -> None:
    speaker = speak(batch=2, ignore_eos=True)
    replies = [speaker.reply([5, n]) for n in range(5)]
    ended: list[Any] = []
    asked = iter(range(100))
    assert batch.run(speaker.session, replies, ended.append, lambda: next(asked) > 25) is False
    assert 0 < len(ended) < 5


BAD = {
    "not json": (b"{", "not valid JSON"),
    "nan": (b'{"prompt": "x", "id": NaN}', "not valid JSON"),
    "deep": (b"[" * 100_000, "not valid JSON"),
    "surrogate": (b'{"prompt": "\\ud800"}', "not valid JSON"),
    "bytes": (b'{"prompt": "\xff"}', "not valid JSON"),
    "list": (b"[1]", "exactly one of"),
    "nothing": (b'{"id": 1}', "exactly one of"),
    "two": (b'{"prompt": "x", "prompt_ids": [1]}', "exactly one of"),
    "number": (b'{"prompt": 3}', "`prompt` is no text"),
    "max_tokens": (b'{"prompt": "x", "max_tokens": 0}', "max_tokens"),
    "max_tokens bool": (b'{"prompt": "x", "max_tokens": true}', "max_tokens"),
    "no ids": (b'{"prompt_ids": []}', "token ids"),
    "bool id": (b'{"prompt_ids": [true]}', "token ids"),
    "no messages": (b'{"messages": []}', "messages"),
    "role": (b'{"messages": [{"role": "boss", "content": "x"}]}', "role"),
    "content": (b'{"messages": [{"role": "user", "content": 1}]}', "content"),
    "parts": (b'{"messages": [{"role": "user", "content": []}]}', "template"),
    "vocabulary": (b'{"prompt_ids": [99999999]}', "token 99999999"),
    "too long": (b'{"prompt": "' + b"ab" * 5000 + b'"}', "the context holds"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_lines(speak: Speak, name: str) -> None:
    bad, message = BAD[name]
    speaker = speak(batch=2)
    speaker.session.step = None  # nothing may run
    with pytest.raises(InputError, match=r"p\.jsonl, line 4: ") as caught:
        answer(speaker, parse(b'{"prompt": "fine"}\n\n{"prompt": "fine"}\n' + bad + b'\n{"prompt": "fine"}', "p.jsonl"))
    assert message in caught.value.message and caught.value.hint


@pytest.mark.parametrize("data", [b"", b"\n \n"])
def test_no_prompts(data: bytes) -> None:
    with pytest.raises(InputError, match="no prompts"):
        parse(data, "p.jsonl")


def test_messages_need_a_template(speak: Speak) -> None:
    with pytest.raises(InputError, match="line 1: this model is run without a chat template"):
        answer(speak(raw=True), parse(b'{"messages": [{"role": "user", "content": "x"}]}', "p.jsonl"))


def test_jsonl_keeps_line_separators_inside_strings(tmp_path: Path) -> None:
    lines = to_jsonl([{"text": "a\nb\u2028c"}, {"text": "你"}]).split("\n")
    assert [json.loads(line)["text"] for line in lines] == ["a\nb\u2028c", "你"]


def test_ctrl_c_writes_nothing(speak: Speak, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "run", lambda *args: False)
    with pytest.raises(Interrupted, match="0 of 7"):
        answer(speak(), parse(DATA, ""))
