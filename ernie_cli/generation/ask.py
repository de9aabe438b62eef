"""The three ways to ask an opened model: one prompt, a conversation, a file of prompts. Prints what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .. import console
from ..errors import Interrupted
from ..staging import write_file
from . import batch_file, inputs, repl
from .conversation import Conversation
from .report import line, record
from .speaker import Speaker


def once(speaker: Speaker, prompt: Sequence[int]) -> None:
    """One reply, streamed, or as JSON at its end. Raises Interrupted (exit 130) after what came until Ctrl-C."""
    reply = speaker.answer(prompt, console.stream)
    facts = record(reply, speaker.session.info)
    # Without a tokenizer there is no text: the token ids are the reply.
    console.stream("\n" if reply.text is not None else " ".join(map(str, reply.token_ids)) + "\n")
    if console.settings.json:
        console.result(data=facts)
    console.info(line(facts))
    if reply.finish_reason == "interrupted":
        raise Interrupted(f"stopped after {len(reply.token_ids)} tokens", "the same command starts over")


def talk(speaker: Speaker, first: str | None) -> None:
    """A conversation on the terminal, or one message per line of a pipe, which Ctrl-C ends (Interrupted, exit 130)."""
    conversation = Conversation(speaker)
    turns = repl.run(conversation, first)
    if console.settings.json:
        console.result(data={"turns": turns, "messages": conversation.messages})
    if turns and turns[-1]["finish_reason"] == "interrupted" and not inputs.at_terminal():
        raise Interrupted(f"stopped in turn {len(turns)}", "the same command starts over")


def batch(speaker: Speaker, lines: Sequence[batch_file.Line], out: Path | None) -> None:
    """All prompts of a file: one JSON object per line into `out`, whole or not at all, else to standard output."""
    results, summary = batch_file.answer(speaker, lines)
    text = f"{summary['prompts']} replies, {summary['generated_tokens']} tokens in {summary['seconds']} s ({summary['tokens_per_s']} tok/s)"
    if out is None:
        console.result(batch_file.to_jsonl(results), data={**summary, "results": results})
        console.info(text)
    else:
        write_file(out, batch_file.to_jsonl(results) + "\n")
        console.result(f"{out}: {text}", data={**summary, "out": str(out)})
