"""The lines of `--batch`: checked as a whole before any work, answered in whatever order suits, given back in theirs.

A line is {"prompt": "…"} or {"messages": […]} or {"prompt_ids": […]}, with `id` and `max_tokens` if wanted; other keys are
left alone, so that a file with answers to compare can be given as it is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .. import console
from ..errors import ErnieError, InputError, Interrupted
from . import batch
from .interrupt import listening
from .prompt import Prompter, check_ids, check_messages
from .reply import Reply
from .report import peak_memory_mb
from .speaker import Speaker

_EXAMPLE = 'for example {"prompt": "…"}'


@dataclass(frozen=True)
class Line:
    """One prompt as it stands in the file. where: file and line number. kind: prompt, messages or prompt_ids."""

    where: str
    id: Any
    kind: str
    value: Any
    max_tokens: int | None


def parse(data: bytes, where: str) -> list[Line]:
    """All prompts of a file, without knowing the model yet. Raises InputError naming the first bad line; blank ones are skipped."""
    lines = [_line(raw, f"{where}, line {number}") for number, raw in enumerate(data.split(b"\n"), 1) if raw.strip()]
    if not lines:
        raise InputError(f"{where}: no prompts", f"one JSON object per line, {_EXAMPLE}")
    return lines


def _line(raw: bytes, where: str) -> Line:
    try:
        content = json.loads(raw, parse_constant=_no_number)
        json.dumps(content, ensure_ascii=False).encode()  # half a surrogate pair can be read, but never written again
    except (ValueError, RecursionError) as err:
        raise InputError(f"{where}: not valid JSON: {err}", f"one JSON object per line, {_EXAMPLE}") from err
    kinds = [kind for kind in _CHECKS if isinstance(content, dict) and kind in content]
    if len(kinds) != 1:
        raise InputError(f"{where}: exactly one of `{'`, `'.join(_CHECKS)}` is needed", _EXAMPLE)
    limit = content.get("max_tokens")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise InputError(f"{where}: `max_tokens` is no positive number", 'for example {"prompt": "…", "max_tokens": 64}')
    value = _CHECKS[kinds[0]](content[kinds[0]], where)
    return Line(where, content.get("id"), kinds[0], value, limit)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _check_text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where}: `prompt` is no text", _EXAMPLE)
    return value


_CHECKS: dict[str, Callable[[Any, str], Any]] = {"prompt": _check_text, "messages": check_messages, "prompt_ids": check_ids}


def answer(speaker: Speaker, lines: Sequence[Line]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Answer all lines: one object per line in their order, and what it took.

    Raises InputError naming the first line that does not fit the model, before any is run; Interrupted on Ctrl-C.
    """
    replies = [_reply(speaker, line, number) for number, line in enumerate(lines)]
    begun = time.perf_counter()
    with listening() as pressed, console.progress("answering", len(lines), unit="prompts") as meter:
        if not batch.run(speaker.session, replies, lambda reply: meter.advance(1), pressed):
            finished = sum(bool(reply.finish_reason) for reply in replies)
            raise Interrupted(f"stopped after {finished} of {len(lines)} prompts; nothing was written", "the same command starts over")
    seconds = time.perf_counter() - begun
    results = [_result(number, *pair) for number, pair in enumerate(zip(lines, replies, strict=True))]
    return results, _summary(speaker, replies, seconds)


def _reply(speaker: Speaker, line: Line, number: int) -> Reply:
    options = speaker.options if line.max_tokens is None else replace(speaker.options, max_tokens=line.max_tokens)
    try:
        return speaker.reply(_prompt(speaker.prompter, line), options, stream=number)
    except ErnieError as err:
        raise InputError(f"{line.where}: {err.message}", err.hint) from err


def _prompt(prompter: Prompter, line: Line) -> list[int]:
    if line.kind == "messages":
        return prompter.messages(line.value)
    return prompter.ids(line.value, "the prompt") if line.kind == "prompt_ids" else prompter.text(line.value)


def _result(index: int, line: Line, reply: Reply) -> dict[str, Any]:
    return {
        "index": index,
        "id": line.id,
        "text": reply.text,
        "token_ids": reply.token_ids,
        "finish_reason": reply.finish_reason,
        "prompt_tokens": len(reply.prompt),
    }


def _summary(speaker: Speaker, replies: Sequence[Reply], seconds: float) -> dict[str, Any]:
    generated = sum(len(reply.token_ids) for reply in replies)
    return {
        "prompts": len(replies),
        "prompt_tokens": sum(len(reply.prompt) for reply in replies),
        "generated_tokens": generated,
        "seconds": round(seconds, 3),
        "tokens_per_s": round(generated / seconds, 3) if seconds else None,
        "peak_memory_mb": peak_memory_mb(),
        "backend": speaker.session.info.backend,
        "device": speaker.session.info.device,
    }


def to_jsonl(objects: Sequence[dict[str, Any]]) -> str:
    """One JSON object per line."""
    return "\n".join(json.dumps(entry, ensure_ascii=False) for entry in objects)
