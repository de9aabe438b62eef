"""Files of texts → token ids, ready to be scored: jsonl with {"prompt", "answer"}, {"text"} or {"messages"}, or a .txt.

Says nothing about how well a model does on them; that is language.py's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import nano
from ..errors import InputError, UsageError
from ..generation.chat import ChatTemplate
from ..generation.prompt import check_messages
from ..generation.special_tokens import eos_ids
from ..generation.tokenizer import Tokenizer
from ..nano.chat import answer_text

_EXAMPLE = 'one JSON object per line: {"prompt": "…", "answer": "…"} or {"text": "…"} or {"messages": […]}'
#: A .txt is one text; --limit counts pieces of this many tokens of it.
PIECE_TOKENS = 1024
#: Tokenising takes a hundred times a text's size in memory.
_MOST_BYTES = 256 << 20


@dataclass(frozen=True)
class Text:
    """ids: all tokens. answer: how many of the last ones are the answer with its end token, 0: none. expected: the answer's words.
    where: file and line, for messages."""

    ids: tuple[int, ...]
    answer: int = 0
    expected: str = ""
    prompt: str = ""
    where: str = ""


class Encoder:
    """A model folder's tokenizer, chat template and end token, as training used them: nothing is added in front of a text."""

    def __init__(self, folder: Path) -> None:
        found = Tokenizer.open(folder)
        if found is None:
            raise InputError(f"{folder}: no tokenizer (tokenizer.json or tokenizer.model)", "copy the tokenizer's files there")
        self.tokenizer = found
        self.template = ChatTemplate.open(folder, self.tokenizer)
        self.ends = eos_ids(folder) | (self.template.turn_end() if self.template else frozenset())
        self.end: tuple[int, ...] = tuple(sorted(eos_ids(folder))[:1])

    def answer(self, prompt: list[int], answer: str, shown: str, where: str, *, written: str | None = None) -> Text:
        """Prompt and answer are encoded apart, as they are when the model writes the answer itself; the end token follows."""
        ids = [*self.tokenizer.encode(answer if written is None else written, special=False), *self.end]
        return Text((*prompt, *ids), len(ids), answer, shown, where)

    def prompted(self, line: Mapping[str, Any], where: str) -> Text:
        """{"prompt", "answer"}: one user turn where the model has a chat template. `form` "raw" leaves the template out; with a `lang`
        beside it, as nano's lines have, the answer begins as nano/chat.py says."""
        prompt, answer = _text(line, "prompt", where), _text(line, "answer", where)
        form = line.get("form", "chat" if self.template else "raw")
        if form not in ("raw", "chat"):
            raise InputError(f"{where}: `form` is {form!r:.40}", "it is chat or raw, or left out")
        chat = form == "chat"
        ids = self._chat([{"role": "user", "content": prompt}], where) if chat else self.tokenizer.encode(prompt, special=True)
        written = answer_text({"answer": answer, "form": form, "lang": str(line["lang"])}) if "lang" in line else answer
        return self.answer(ids, answer, prompt, where, written=written)

    def bare(self, line: Mapping[str, Any], where: str) -> Text:
        """{"text"}: as the model is given it, control tokens spelled out."""
        return Text(tuple(self.tokenizer.encode(_text(line, "text", where), special=True)), where=where)

    def talked(self, line: Mapping[str, Any], where: str) -> Text:
        """{"messages"}: the last one is the answer if it is the assistant's."""
        messages = check_messages(line["messages"], where)
        last = messages[-1]
        if len(messages) > 1 and last["role"] == "assistant" and isinstance(last["content"], str):
            return self.answer(self._chat(messages[:-1], where), last["content"], str(messages[-2]["content"]), where)
        return Text(tuple(self._chat(messages, where)), where=where)

    def _chat(self, messages: Sequence[Mapping[str, Any]], where: str) -> list[int]:
        if self.template is None:
            raise InputError(f"{where}: the model has no chat template", 'give {"text": "…"}, or {"prompt", "answer", "form": "raw"}')
        return self.template.encode(messages)


_KINDS: dict[str, Callable[[Encoder, Mapping[str, Any], str], Text]] = {
    "prompt": Encoder.prompted,
    "messages": Encoder.talked,
    "text": Encoder.bare,
}


def read(path: str | Path, folder: Path, limit: int | None = None) -> list[Text]:
    """The texts of a file for the model in `folder`; the first `limit` of them.

    Raises InputError naming the file and the first bad line, UsageError for a file of another kind.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"no such file: {file}", "give --data a .jsonl or .txt file")
    if file.suffix.lower() not in (".jsonl", ".json", ".txt"):
        raise UsageError(f"{file}: a language model is measured on texts, and this is no .jsonl or .txt file", _EXAMPLE)
    if file.stat().st_size > _MOST_BYTES:
        raise InputError(f"{file}: {file.stat().st_size} bytes are more than can be tokenised at once", "give a part of it")
    content = file.read_bytes()
    encoder = Encoder(folder)
    if file.suffix.lower() == ".txt":
        found = _document(content, str(file), encoder, limit)
    else:
        lines = ((number, raw) for number, raw in enumerate(content.split(b"\n"), 1) if raw.strip())
        found = [_parsed(raw, f"{file}, line {number}", encoder) for _, (number, raw) in zip(_count(limit), lines, strict=False)]
    if not found:
        raise InputError(f"{file}: no texts", _EXAMPLE)
    if not any(len(text.ids) > 1 for text in found):
        raise InputError(f"{file}: no text has two tokens, so nothing is predicted", "give longer texts")
    return found


def heldout(folder: Path, limit: int | None = None) -> list[Text]:
    """nano's held-out lines, for a model with nano's tokenizer. Raises UsageError for any other."""
    if not nano.speaks(folder):
        raise UsageError(f"what should {folder} be measured on?", "give texts: --data FILE.jsonl")
    return _embedded(folder, limit)


def _embedded(folder: Path, limit: int | None) -> list[Text]:
    encoder = Encoder(folder)
    lines = nano.heldout()[:limit]
    return [encoder.prompted(line, f"held-out line {number}") for number, line in enumerate(lines, 1)]


def _count(limit: int | None) -> Any:
    import itertools

    return itertools.count() if limit is None else range(limit)


def _parsed(raw: bytes, where: str, encoder: Encoder) -> Text:
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError) as err:
        raise InputError(f"{where}: not valid JSON: {err}", _EXAMPLE) from err
    kinds = [kind for kind in _KINDS if isinstance(line, dict) and kind in line]
    if len(kinds) != 1:
        said = f"it has {', '.join(list(line)[:5])}" if isinstance(line, dict) and line else "it has none of them"
        raise InputError(f"{where}: `prompt`, `text` or `messages` is needed, one of them; {said}"[:300], _EXAMPLE)
    text = _KINDS[kinds[0]](encoder, line, where)
    if not text.ids:
        raise InputError(f"{where}: the text is empty", _EXAMPLE)
    return text


def _document(content: bytes, where: str, encoder: Encoder, limit: int | None) -> list[Text]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise InputError(f"{where}: not UTF-8 text: {err}", "save it as UTF-8") from err
    ids = encoder.tokenizer.encode(text, special=False) if text.strip() else []
    return [Text(tuple(ids if limit is None else ids[: limit * PIECE_TOKENS]), where=where)] if ids else []


def _text(line: Mapping[str, Any], name: str, where: str) -> str:
    value = line.get(name)
    if not isinstance(value, str):
        raise InputError(f"{where}: `{name}` is {'missing' if value is None else 'no text'}", _EXAMPLE)
    return value


def check_same(texts: Sequence[Text], folder: Path, other: Path, data: str | None) -> None:
    """Raise UsageError where the tokenizer in `other` cuts these texts into other tokens. A folder without one is taken at its word."""
    for name in ("tokenizer.json", "tokenizer.model"):
        mine, theirs = folder / name, other / name
        if mine.is_file() and theirs.is_file() and mine.read_bytes() == theirs.read_bytes():
            return
    if Tokenizer.open(other) is None:
        return
    again = read(data, other, _COMPARED_TEXTS) if data else _embedded(other, _COMPARED_TEXTS)
    for text, twin in zip(texts, again, strict=False):
        shared = min(len(text.ids), PIECE_TOKENS)
        if text.ids[:shared] != twin.ids[:shared]:
            what = f"{folder} and {other} cut {text.where} into different tokens"
            raise UsageError(f"{what}: their predictions cannot be compared", "compare a model with one made from the same checkpoint")


#: So many texts are cut by both tokenizers to see whether they are one.
_COMPARED_TEXTS = 64
