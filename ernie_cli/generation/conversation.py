"""A conversation of several turns that forgets its beginning when the context is full. Knows no terminal."""

from __future__ import annotations

from collections.abc import Callable

from .chat import Message
from .reply import Reply
from .speaker import Speaker


class Conversation:
    """`messages`: what was said so far. Without a chat template every text is a prompt of its own and nothing is kept."""

    def __init__(self, speaker: Speaker) -> None:
        self.speaker = speaker
        self.messages: list[Message] = []
        self.forgotten = 0  # messages dropped for lack of room, so far
        self._turns = 0

    def reset(self) -> None:
        """Start anew."""
        self.messages.clear()

    def ask(self, text: str, show: Callable[[str], None]) -> Reply:
        """One turn: the model's reply to `text`, shown as it comes. An error, or no reply at all, leaves no trace of it."""
        messages = [*self.messages, {"role": "user", "content": text}]
        prompt = self._fit(messages) if self.speaker.prompter.template else self.speaker.prompter.text(text)
        reply = self.speaker.answer(prompt, show, stream=self._turns)
        self._turns += 1
        if self.speaker.prompter.template and reply.token_ids:
            self.messages = [*messages, {"role": "assistant", "content": reply.text}]
        return reply

    def _fit(self, messages: list[Message]) -> list[int]:
        """Token ids of the latest messages that leave room to answer, dropping the oldest turns from the list.

        Half of the context is cleared at once: the cache loses its beginning each time, so it should not happen every turn.
        Raises UsageError where the last message alone does not fit.
        """
        context = self.speaker.context
        room = min(self.speaker.options.max_tokens or context, context // 4)
        prompt = self.speaker.prompter.encode(messages)
        full = len(prompt) + room > context
        while full and len(prompt) > context // 2 and len(messages) > 1:
            del messages[:2]  # a user's turn and its answer
            self.forgotten += 2
            prompt = self.speaker.prompter.encode(messages)
        return self.speaker.prompter.ids(prompt, "the message")
