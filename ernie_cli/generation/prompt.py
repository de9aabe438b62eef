"""Prompts as token ids: bare text, conversations, or ids given outright, each checked against the model before it runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, UsageError
from ..runtime import SessionInfo
from .chat import ChatTemplate, Message
from .special_tokens import eos_ids
from .tokenizer import Tokenizer

ROLES = ("system", "user", "assistant", "tool")
#: Words have five or ten, the runs of spaces that some vocabularies hold up to 128.
_MOST_CHARS_PER_TOKEN = 128


class Prompter:
    """The text side of an opened model. `tokenizer` and `template` are None where the folder has none; `eos` ends a reply."""

    def __init__(self, folder: Path, info: SessionInfo, *, raw: bool = False, system: str | None = None) -> None:
        self._folder = folder
        self._info = info
        self._system = system
        self.tokenizer = Tokenizer.open(folder)
        self.template = None if raw or self.tokenizer is None else ChatTemplate.open(folder, self.tokenizer)
        if system is not None and self.template is None:
            why = "--raw turns it off" if raw else f"{folder} has none"
            raise UsageError(f"--system needs a chat template, and {why}", f"leave out --{'raw' if raw else 'system'}")
        self.eos = eos_ids(folder) | (self.template.turn_end() if self.template else frozenset())

    def text(self, text: str) -> list[int]:
        """A prompt as the user typed it: one user turn where there is a chat template, else bare.

        Bare text may hold control tokens: it is the place where one writes them by hand.
        """
        if self.template is not None:
            return self.messages([{"role": "user", "content": text}])
        tokenizer = self._tokenizer()
        self._refuse_endless(len(text))
        ids = tokenizer.encode(text, special=True)
        if not ids:
            raise UsageError("the prompt is empty", "ernie run MODEL 'some text'")
        return self.ids(ids, "the prompt")

    def messages(self, messages: Sequence[Message]) -> list[int]:
        """A conversation that ends in a user turn. Raises UsageError where the model has no chat template, or --raw is on."""
        return self.ids(self.encode(messages), "the prompt")

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """The same, of any length. --system comes first unless the messages bring a system text of their own."""
        if self.template is None:
            hint = "give `prompt` instead, or leave out --raw"
            raise UsageError("this model is run without a chat template: it takes bare prompts, not messages", hint)
        if self._system is not None and not any(message["role"] == "system" for message in messages):
            messages = [{"role": "system", "content": self._system}, *messages]
        self._refuse_endless(sum(len(message["content"]) for message in messages if isinstance(message["content"], str)))
        return self.template.encode(messages)

    def _refuse_endless(self, chars: int) -> None:
        """Encoding takes a hundred times the memory of the text: what can never fit is not encoded to find out."""
        if chars > self._info.context * _MOST_CHARS_PER_TOKEN:
            raise UsageError(f"the prompt has {chars} characters, and the context holds {self._info.context} tokens", "shorten it")

    def ids(self, ids: Sequence[int], what: str) -> list[int]:
        """Token ids, checked: raises InputError where one is outside the vocabulary, UsageError where they exceed the context."""
        vocabulary, context = self._info.vocab_size, self._info.context
        wrong = next((token for token in ids if not 0 <= token < vocabulary), None)
        if wrong is not None:
            hint = "do the tokenizer and the model belong together?"
            raise InputError(f"{what} holds token {wrong}, and the model knows 0 to {vocabulary - 1}", hint)
        if len(ids) > context:
            hint = f"shorten it, or try --context {len(ids) + 256} if the model was trained for that many"
            raise UsageError(f"{what} has {len(ids)} tokens, and the context holds {context}", hint)
        return list(ids)

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise InputError(
                f"{self._folder}: no tokenizer (tokenizer.json or tokenizer.model)", "give token ids with --prompt-ids FILE.json"
            )
        return self.tokenizer


def read_ids(data: bytes, where: str) -> list[int]:
    """Token ids from JSON: a list, or an object with `prompt_ids`. Raises InputError."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as err:
        raise InputError(f"{where}: not valid JSON: {err}", "a list of token ids is wanted: [1, 2, 3]") from err
    return check_ids(content.get("prompt_ids") if isinstance(content, dict) else content, where)


def check_ids(value: Any, where: str) -> list[int]:
    """`value` if it is a non-empty list of integers. Raises InputError."""
    if not isinstance(value, list) or not value or any(isinstance(token, bool) or not isinstance(token, int) for token in value):
        raise InputError(f"{where}: a non-empty list of token ids expected", "for example [1, 2, 3]")
    return value


def check_messages(value: Any, where: str) -> list[Message]:
    """`value` if it is a non-empty list of {"role", "content"}. Raises InputError."""
    if not isinstance(value, list) or not value:
        raise InputError(f"{where}: `messages` is no list of messages", 'for example [{"role": "user", "content": "hi"}]')
    for message in value:
        if not isinstance(message, dict) or message.get("role") not in ROLES or not isinstance(message.get("content"), (str, list)):
            raise InputError(f"{where}: a message needs a `role` ({', '.join(ROLES)}) and a `content`", '{"role": "user", "content": "hi"}')
    return value
