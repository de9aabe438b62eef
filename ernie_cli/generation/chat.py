"""A conversation as the text its model was trained on: the folder's own Jinja template, in Jinja's sandbox. Knows no session.

Where the template stands, first found wins: chat_template.jinja, chat_template.json, tokenizer_config.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..model import read_json
from .bounded import bounded
from .special_tokens import declared
from .tokenizer import Tokenizer

#: One message: {"role": "user", "content": "…"}; content may be a list of parts where the template takes one.
Message = Mapping[str, Any]
#: No conversation is this long; a template that goes on regardless is broken or hostile.
_MAX_CHARS = 64 << 20
_MAX_SECONDS, _MAX_BYTES = 5.0, 256 << 20
#: Of a power, which is one step, however long it takes.
_MAX_BITS = 1 << 16


class ChatTemplate:
    """Turns messages into token ids. Control tokens come from the template alone, never from what the messages say."""

    def __init__(self, source: str, tokenizer: Tokenizer, names: Mapping[str, str], where: str) -> None:
        self._tokenizer = tokenizer
        self._names = dict(names)
        self._where = where
        self._template = _compile(source, where)

    @classmethod
    def open(cls, folder: Path, tokenizer: Tokenizer) -> ChatTemplate | None:
        """The folder's template, or None where it has none (a base model). Raises InputError where it is broken."""
        source, where = _find(folder)
        return cls(source, tokenizer, declared(folder).named, where) if source else None

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """The conversation as text. Raises InputError where the template cannot take these messages."""
        pieces, length = [], 0
        try:
            with bounded(seconds=_MAX_SECONDS, n_bytes=_MAX_BYTES):
                for piece in self._template.generate(messages=list(messages), add_generation_prompt=add_generation_prompt, **self._names):
                    length += len(piece)
                    if length > _MAX_CHARS:
                        raise InputError(f"{self._where}: the chat template writes without end", "use --raw, or mend the template")
                    pieces.append(piece)
        except InputError:
            raise
        except Exception as err:  # a template is a program: anything may go wrong in it
            why = str(err) or type(err).__name__
            raise InputError(f"{self._where}: the chat template failed: {why}", "use --raw, or messages that it takes") from err
        return "".join(pieces)

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the conversation, ready for the assistant's next words."""
        shielded = [{**message, "content": self._shield(message.get("content"))} for message in messages]
        return self._tokenizer.encode(self.render(shielded), special=True)

    def turn_end(self) -> frozenset[int]:
        """The control token that the template puts behind an assistant's words: a model that writes it has finished.

        Models differ in whether they write it or only the end-of-text token, and their configs do not say.
        """
        probe = "ernie-probe"
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": probe}]
        try:
            after = self.render(turns, add_generation_prompt=False).partition(probe)[2]
        except InputError:
            return frozenset()  # a template may want other messages than these; it will be judged by the real ones
        return frozenset(token for name, token in self._tokenizer.special.items() if after.startswith(name))

    def _shield(self, content: Any) -> Any:
        if isinstance(content, str):
            return self._tokenizer.shield(content)
        if isinstance(content, list):
            return [{k: self._shield(v) if k == "text" else v for k, v in part.items()} for part in content if isinstance(part, dict)]
        return content


def _find(folder: Path) -> tuple[str, str]:
    """The template's source and the file it was found in; ("", "") where there is none."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        try:
            return file.read_text(encoding="utf-8"), str(file)
        except UnicodeDecodeError as err:
            raise InputError(f"{file}: not UTF-8 text: {err}", "use --raw, or fetch the file again") from err
    for name in ("chat_template.json", "tokenizer_config.json"):
        content = read_json(folder / name) if (folder / name).is_file() else {}
        source = content.get("chat_template")
        if isinstance(source, list):  # several, by name
            named = {entry.get("name"): entry.get("template") for entry in source if isinstance(entry, dict)}
            source = named.get("default")
        if isinstance(source, str):
            return source, str(folder / name)
    return "", ""


def _compile(source: str, where: str) -> Any:
    """Compile as transformers does, so that a template written for it renders the same."""
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    class Sandbox(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"**"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > _MAX_BITS:
                raise OverflowError("a power of too many digits")
            return super().call_binop(context, operator, left, right)

    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.globals["raise_exception"] = raise_exception
    environment.filters["tojson"] = tojson
    try:
        with bounded(seconds=_MAX_SECONDS, n_bytes=_MAX_BYTES):
            return environment.from_string(source)
    except (jinja2.TemplateError, RecursionError, SyntaxError, TimeoutError, MemoryError) as err:
        why = str(err) or type(err).__name__
        raise InputError(f"{where}: the chat template is broken: {why}", "use --raw, or fetch the file again") from err
