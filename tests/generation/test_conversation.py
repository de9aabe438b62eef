"""Turns: what is remembered, what is forgotten, and what the cache saves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from text_models import write_model

from ernie_cli.errors import UsageError
from ernie_cli.generation.conversation import Conversation
from ernie_cli.generation.speaker import Speaker

Speak = Callable[..., Speaker]


def nothing(text: str) -> None: ...


def test_turns_are_remembered(speak: Speak) -> None:
    talk = Conversation(speak(max_tokens=4, ignore_eos=True, system="be brief"))
    first = talk.ask("hello", nothing)
    second = talk.ask("world", nothing)
    said = [("user", "hello"), ("assistant", first.text), ("user", "world"), ("assistant", second.text)]
    assert [(message["role"], message["content"]) for message in talk.messages] == said
    stateless = speak(system="be brief").prompter.messages(talk.messages[:3])
    assert second.prompt == stateless


def test_the_cache_keeps_what_turns_share(speak: Speak) -> None:
    talk = Conversation(speak(max_tokens=4, ignore_eos=True))
    first = talk.ask("hello " * 50, nothing)
    second = talk.ask("world", nothing)
    assert first.timing.computed == len(first.prompt)
    assert second.timing.computed < len(second.prompt) - 50
    talk.reset()
    fresh = talk.ask("hello " * 50, nothing)
    assert fresh.token_ids == first.token_ids


def test_without_a_template_every_text_stands_alone(speak: Speak) -> None:
    talk = Conversation(speak(raw=True, max_tokens=4))
    assert talk.ask("hello", nothing).prompt == talk.ask("hello", nothing).prompt
    assert talk.messages == []


def test_the_oldest_turns_are_forgotten(speak: Speak) -> None:
    talk = Conversation(speak(context=200, max_tokens=20, ignore_eos=True))
    for number in range(12):
        reply = talk.ask(f"message {number}", nothing)
        assert len(reply.prompt) + 20 <= 200 and len(reply.token_ids) == 20
    assert talk.forgotten > 0 and len(talk.messages) + talk.forgotten == 24
    assert talk.messages[0]["role"] == "user"


def test_a_message_that_never_fits(speak: Speak) -> None:
    talk = Conversation(speak(context=60, max_tokens=4, ignore_eos=True))
    talk.ask("hello", nothing)
    before = list(talk.messages)
    with pytest.raises(UsageError, match="the message has"):
        talk.ask("hello there " * 60, nothing)
    assert talk.messages == before
    assert talk.ask("hello", nothing).token_ids


def test_system_without_a_template(tmp_path: Path, speak: Speak) -> None:
    with pytest.raises(UsageError, match="--system needs a chat template"):
        speak(system="x", raw=True)
    with pytest.raises(UsageError, match="--system needs a chat template"):
        speak(write_model(tmp_path / "base", template=False), system="x")
