"""What a model folder declares about its special tokens, from whichever of its JSON files say so. Loads no tokenizer.

tokenizer_config.json, special_tokens_map.json and added_tokens.json overlap and may contradict each other: the one named
later here wins for names, and every id of every file counts. generation_config.json and config.json say what ends a reply.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..model import read_json


@dataclass
class Declared:
    """named: "bos_token" → its text. added: text → id, for tokens outside the vocabulary file. special: texts of control tokens."""

    named: dict[str, str] = field(default_factory=dict)
    added: dict[str, int] = field(default_factory=dict)
    special: set[str] = field(default_factory=set)


def _json(folder: Path, name: str) -> dict[str, Any]:
    return read_json(folder / name) if (folder / name).is_file() else {}


def _text(entry: Any) -> str | None:
    """A token is written as its text or as {"content": its text, …}."""
    if isinstance(entry, dict):
        entry = entry.get("content")
    return entry if isinstance(entry, str) and entry else None


def _id(value: Any, file: Path) -> int:
    """Raises InputError unless `value` is a token id, as a number or as digits."""
    text = str(value)
    if isinstance(value, bool) or len(text) > 20 or not (text.isascii() and text.isdigit()):
        raise InputError(f"{file}: {text[:80]!r} is not a token id", "fetch the tokenizer's files again")
    return int(text)


def declared(folder: Path) -> Declared:
    """Read the three files where present. Raises InputError where one is broken."""
    found = Declared()
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        _names(_json(folder, name), found)
    entries = _json(folder, "tokenizer_config.json").get("added_tokens_decoder")
    for key, entry in entries.items() if isinstance(entries, dict) else ():
        text = _text(entry)
        if text:
            found.added[text] = _id(key, folder / "tokenizer_config.json")
            if isinstance(entry, dict) and entry.get("special"):
                found.special.add(text)
    for text, value in _json(folder, "added_tokens.json").items():
        if text:
            found.added[text] = _id(value, folder / "added_tokens.json")
    return found


def _names(content: dict[str, Any], found: Declared) -> None:
    """`…_token` entries (some, like add_bos_token, are switches: not texts) and the list of additional ones."""
    for key, entry in content.items():
        text = _text(entry)
        if key.endswith("_token") and text:
            found.named[key] = text
            found.special.add(text)
    more = content.get("additional_special_tokens")
    for entry in more if isinstance(more, list) else ():
        text = _text(entry)
        if text:
            found.special.add(text)


def eos_ids(folder: Path) -> frozenset[int]:
    """The ids that end a reply: `eos_token_id`, a number or a list, of generation_config.json and config.json together."""
    ids: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        value = _json(folder, name).get("eos_token_id")
        values = value if isinstance(value, list) else [] if value is None else [value]
        ids.update(_id(entry, folder / name) for entry in values)
    return frozenset(ids)
