"""The lines of `--batch`: read and checked as a whole before any work, written as results in the same order.

A line is {"prompt": "…"} or {"messages": […]} or {"prompt_ids": […]}, with `id` and `max_tokens` if wanted; other keys are
left alone, so that a file with answers to compare can be given as it is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ErnieError, InputError
from .prompt import Prompter, check_ids, check_messages
from .reply import Options, Reply

_KINDS = ("prompt", "messages", "prompt_ids")


@dataclass(frozen=True)
class Line:
    """One prompt: its token ids, the options that hold for it, and the `id` to give back with the result."""

    id: Any
    prompt: list[int]
    options: Options


def read_lines(data: bytes, where: str, prompter: Prompter, options: Options) -> list[Line]:
    """All prompts of a file. Raises InputError naming the first bad line; blank lines are none."""
    lines = [_line(raw, f"{where}, line {number}", prompter, options) for number, raw in enumerate(data.split(b"\n"), 1) if raw.strip()]
    if not lines:
        raise InputError(f"{where}: no prompts", 'one JSON object per line: {"prompt": "…"}')
    return lines


def _line(raw: bytes, where: str, prompter: Prompter, options: Options) -> Line:
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as err:
        raise InputError(f"{where}: not valid JSON: {err}", 'one JSON object per line: {"prompt": "…"}') from err
    kinds = [kind for kind in _KINDS if isinstance(content, dict) and kind in content]
    if len(kinds) != 1:
        raise InputError(f"{where}: exactly one of `{'`, `'.join(_KINDS)}` is needed", 'for example {"prompt": "…"}')
    try:
        prompt = _prompt(kinds[0], content[kinds[0]], where, prompter)
    except ErnieError as err:
        message = err.message if err.message.startswith(where) else f"{where}: {err.message}"
        raise InputError(message, err.hint) from err
    return Line(content.get("id"), prompt, _options(content, where, options))


def _prompt(kind: str, value: Any, where: str, prompter: Prompter) -> list[int]:
    if kind == "prompt_ids":
        return prompter.ids(check_ids(value, where), "the prompt")
    if kind == "messages":
        return prompter.messages(check_messages(value, where))
    if not isinstance(value, str):
        raise InputError(f"{where}: `prompt` is no text", 'for example {"prompt": "…"}')
    return prompter.text(value)


def _options(content: dict[str, Any], where: str, options: Options) -> Options:
    limit = content.get("max_tokens")
    if limit is None:
        return options
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise InputError(f"{where}: `max_tokens` is no positive number", 'for example {"prompt": "…", "max_tokens": 64}')
    return replace(options, max_tokens=limit)


def results(lines: Sequence[Line], replies: Sequence[Reply]) -> list[dict[str, Any]]:
    """One object per line, in the order of the input."""
    return [
        {
            "index": index,
            "id": line.id,
            "text": reply.text,
            "token_ids": reply.token_ids,
            "finish_reason": reply.finish_reason,
            "prompt_tokens": len(reply.prompt),
        }
        for index, (line, reply) in enumerate(zip(lines, replies))
    ]


def to_jsonl(objects: Sequence[dict[str, Any]]) -> str:
    """One JSON object per line."""
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in objects)
