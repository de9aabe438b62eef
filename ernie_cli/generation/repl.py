"""The interactive session: read a message, show the reply, again. On a pipe it reads one message per line and shows no prompt."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from .. import console
from ..errors import ErnieError, InputError, Interrupted
from .conversation import Conversation
from .report import line as speed_line
from .report import record

PROMPT = ">>> "
HELP = """\
/reset  forget the conversation
/help   this text
/exit   leave (so does Ctrl-D)
Ctrl-C  ends a reply; twice at the prompt leaves"""


def run(conversation: Conversation, first: str | None = None) -> list[dict[str, Any]]:
    """Talk until the input ends; `first` is said before anything is read. Returns a record per reply, as --json gives it.

    On a terminal an error is shown and the session goes on; on a pipe it ends the run.
    """
    interactive = sys.stdin.isatty()
    records: list[dict[str, Any]] = []
    for text in _messages(first, interactive):
        if text in ("/exit", "/quit"):
            break
        if interactive and _command(text, conversation):
            continue
        try:
            records.append(_turn(conversation, text))
            if interactive and records[-1]["finish_reason"] == "length":
                console.info(f"cut after {len(records[-1]['token_ids'])} tokens: --max-tokens or --context allows more")
        except KeyboardInterrupt:
            if not interactive:
                raise
            console.stream("\n")  # the second Ctrl-C of a reply: what is in the cache no longer counts, the session goes on
        except ErnieError as err:
            if not interactive:
                raise
            console.error(err.message, err.hint)
        if not interactive and records[-1]["finish_reason"] == "interrupted":
            break
    return records


def _messages(first: str | None, interactive: bool) -> Iterator[str]:
    if first is not None:
        yield first
    if interactive:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - gives input() line editing and a history
        console.info("type a message; /help tells the rest")
    for text in _typed() if interactive else _piped():
        if text.strip():
            yield text.strip()


def _typed() -> Iterator[str]:
    """Lines from the terminal. Raises Interrupted at the second Ctrl-C in a row."""
    again = False
    while True:
        try:
            line = input(PROMPT) if sys.stdout.isatty() else _input_beside_output()
        except EOFError:
            console.stream("\n")
            return
        except KeyboardInterrupt:
            if again:
                raise Interrupted("left with Ctrl-C") from None
            again = True
            console.info("\nCtrl-C again, Ctrl-D or /exit leaves")
            continue
        except UnicodeDecodeError:
            console.error("that was not UTF-8", "set the terminal's encoding to UTF-8")
            continue
        again = False
        yield line


def _input_beside_output() -> str:
    """Standard output is a file: the prompt must not go there."""
    sys.stderr.write(PROMPT)
    sys.stderr.flush()
    return input()


def _piped() -> Iterator[str]:
    for number, raw in enumerate(sys.stdin.buffer, 1):
        try:
            yield raw.decode()
        except UnicodeDecodeError as err:
            raise InputError(f"standard input, line {number}: not UTF-8 text: {err}", "save it as UTF-8") from err


def _command(text: str, conversation: Conversation) -> bool:
    """Whether `text` was a command. A lone word after a slash that is none is taken for a slip, not for a message."""
    if not (text.startswith("/") and text[1:].isalpha()):
        return False
    if text == "/reset":
        conversation.reset()
        console.info("forgotten")
    elif text == "/help":
        console.info(HELP)
    else:
        console.info(f"no command {text}\n{HELP}")
    return True


def _turn(conversation: Conversation, text: str) -> dict[str, Any]:
    forgotten = conversation.forgotten
    reply = conversation.ask(text, console.stream)
    console.stream("\n")
    facts = record(reply, conversation.speaker.session.info)
    console.detail(speed_line(facts))
    if conversation.forgotten > forgotten:
        console.info(f"the context is full: forgot the {conversation.forgotten - forgotten} oldest messages; /reset starts anew")
    return facts
