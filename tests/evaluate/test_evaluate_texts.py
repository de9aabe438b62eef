"""Files of texts → token ids: what each kind of line means, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from text_models import write_model

from ernie_cli import nano
from ernie_cli.errors import InputError, UsageError
from ernie_cli.evaluate import texts
from ernie_cli.nano.chat import answer_text, prompt_text
from ernie_cli.nano.tokenizer import EOS_ID, Tokenizer


def read(tmp_path: Path, content: str | bytes, name: str = "lines.jsonl", limit: int | None = None) -> list[texts.Text]:
    file = tmp_path / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return texts.read(file, nano.path(), limit)


def one(tmp_path: Path, **line: Any) -> texts.Text:
    return read(tmp_path, json.dumps(line))[0]


def ids(text: str) -> tuple[int, ...]:
    return tuple(Tokenizer(nano.path()).encode(text))


def test_nanos_lines_are_what_nano_was_scored_on() -> None:
    """Prompt and answer as nano/chat.py builds them, cut by the tokenizers library itself."""
    lines = nano.heldout()
    found = texts.heldout(nano.path())
    assert len(found) == len(lines) == 407
    for text, line in list(zip(found, lines, strict=True))[::5]:
        answer = (*ids(answer_text(line)), EOS_ID)
        assert text.ids == ids(prompt_text(line)) + answer and text.answer == len(answer) and text.expected == line["answer"]


def test_kinds_of_lines(tmp_path: Path) -> None:
    chat = ids("<|begin_of_sentence|>User: 1 + 1 =\nAssistant: ")
    assert one(tmp_path, prompt="1 + 1 =", answer="2") == texts.Text(
        (*chat, *ids("2"), EOS_ID), 2, "2", "1 + 1 =", f"{tmp_path / 'lines.jsonl'}, line 1"
    )
    assert one(tmp_path, prompt="1 + 1 =", answer=" 2", form="raw").ids == (*ids("1 + 1 ="), *ids(" 2"), EOS_ID)
    messages = [{"role": "user", "content": "1 + 1 ="}, {"role": "assistant", "content": "2"}]
    assert one(tmp_path, messages=messages).ids == (*chat, *ids("2"), EOS_ID) and one(tmp_path, messages=messages).answer == 2
    assert one(tmp_path, messages=messages[:1]) == texts.Text(chat, where=f"{tmp_path / 'lines.jsonl'}, line 1")
    assert one(tmp_path, text="hello</s>").ids == (*ids("hello"), EOS_ID)


def test_what_people_say_opens_no_turns(tmp_path: Path) -> None:
    assert EOS_ID not in one(tmp_path, prompt="say </s>", answer="</s>").ids[:-1]
    assert EOS_ID not in read(tmp_path, "a </s> b", "a.txt")[0].ids


def test_a_txt_is_one_text(tmp_path: Path) -> None:
    found = read(tmp_path, "﻿one\n\ntwo 三\n", "a.txt")
    assert [text.ids for text in found] == [ids("one\n\ntwo 三\n")] and found[0].answer == 0
    assert len(read(tmp_path, "ab " * 5000, "a.txt", 2)[0].ids) == 2 * texts.PIECE_TOKENS


def test_the_first_lines_and_blank_ones(tmp_path: Path) -> None:
    content = '\n{"text": "one two"}\n\n{"text": "two three"}\r\n{broken\n'
    assert [text.where.split(", ")[-1] for text in read(tmp_path, content, limit=2)] == ["line 2", "line 4"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", "", "no texts"),
        ("a.jsonl", "\n\n", "no texts"),
        ("a.txt", " \n", "no texts"),
        ("a.jsonl", '{"text": "one two"}\n{"text": ', "line 2: not valid JSON"),
        ("a.jsonl", "[" * 100_000, "line 1: not valid JSON"),
        ("a.jsonl", '{"question": "q", "reply": "r"}', "line 1: `prompt`, `text` or `messages` is needed, one of them; it has question"),
        ("a.jsonl", '["prompt"]', "line 1: `prompt`"),
        ("a.jsonl", '{"prompt": "a"}', "line 1: `answer` is missing"),
        ("a.jsonl", '{"prompt": "a", "answer": 3}', "line 1: `answer` is no text"),
        ("a.jsonl", '{"prompt": "a", "answer": "b", "text": "c"}', "one of them"),
        ("a.jsonl", '{"prompt": "a", "answer": "b", "form": "loud"}', "`form` is 'loud'"),
        ("a.jsonl", '{"text": ""}', "line 1: the text is empty"),
        ("a.jsonl", '{"text": "</s>"}', "no text has two tokens"),
        ("a.jsonl", '{"messages": []}', "line 1: `messages` is no list"),
        ("a.jsonl", '{"messages": [{"role": "king", "content": "x"}]}', "line 1: a message needs"),
        ("a.jsonl", b'{"text": "\xff\xfe two"}', "line 1: not valid JSON"),
        ("a.jsonl", '{"text": "\\ud800 two"}', "surrogate"),
        ("a.txt", b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_bad_files_name_the_line(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, content, name)
    assert said in caught.value.message and caught.value.hint


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no .jsonl or .txt"):
        read(tmp_path, "x", "x.npz")
    with pytest.raises(InputError, match="no such file"):
        texts.read(tmp_path / "none.jsonl", nano.path())


def test_models_without_a_tokenizer_or_template(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "lines.jsonl").write_text('{"messages": [{"role": "user", "content": "a"}]}')
    with pytest.raises(InputError, match="no tokenizer"):
        texts.read(tmp_path / "lines.jsonl", tmp_path / "bare")
    base = write_model(tmp_path / "base", template=False)
    with pytest.raises(InputError, match="line 1: the model has no chat template"):
        texts.read(tmp_path / "lines.jsonl", base)
    (tmp_path / "lines.jsonl").write_text('{"prompt": "hello", "answer": " world"}')
    assert texts.read(tmp_path / "lines.jsonl", base)[0].answer


def test_only_nanos_tokenizer_knows_nanos_lines(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"what should .* be measured on") as caught:
        texts.heldout(write_model(tmp_path / "other"))
    assert "--data" in caught.value.hint


def test_another_tokenizer_is_noticed(tmp_path: Path) -> None:
    data = tmp_path / "lines.jsonl"
    data.write_text('{"text": "hello world"}')
    found = texts.read(data, nano.path())
    shutil.copytree(nano.path(), tmp_path / "spm")
    (tmp_path / "spm" / "tokenizer.json").unlink()
    texts.check_same(found, nano.path(), tmp_path / "spm", str(data))  # the same one in its other form
    other = write_model(tmp_path / "other")
    for chosen, source in ((found, str(data)), (texts.heldout(nano.path(), 3), None)):
        with pytest.raises(UsageError, match="into different tokens"):
            texts.check_same(chosen, nano.path(), other, source)
