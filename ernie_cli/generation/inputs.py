"""Where prompts come from: the command line, standard input, files. What they mean is prompt.py's and batch_file.py's business."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO

from ..errors import InputError, UsageError

_EXAMPLE = "ernie run MODEL 'some text'"
#: Of prompts. Devices and broken pipes may never end.
_MOST_BYTES = 256 << 20


def read(name: str) -> bytes:
    """A file's bytes; `-` is standard input. Raises OSError, InputError where it does not end, UsageError where it is closed."""
    if name != "-":
        with Path(name).open("rb") as file:
            return _all_of(file, name)
    if sys.stdin is None:
        raise UsageError("no prompt, and standard input is closed", _EXAMPLE)
    return _all_of(sys.stdin.buffer, "standard input")


def _all_of(file: IO[bytes], name: str) -> bytes:
    data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise InputError(f"{name}: more than {_MOST_BYTES} bytes of prompt", "split it into several files")
    return data


def read_prompt() -> str:
    """The prompt on standard input, less the newline that `echo` adds."""
    try:
        text = read("-").decode()
    except UnicodeDecodeError as err:
        raise InputError(f"standard input: not UTF-8 text: {err}", "save it as UTF-8") from err
    if not text.strip():
        raise UsageError("no prompt, and nothing on standard input", _EXAMPLE)
    return text[:-1] if text.endswith("\n") else text


def at_terminal() -> bool:
    """Whether a person sits at standard input."""
    return sys.stdin is not None and sys.stdin.isatty()


def check_flags(prompt: str | None, prompt_ids: str | None, batch: str | None, chat: bool, out: Path | None) -> None:
    """Raises UsageError where the ways to ask contradict each other, or `out` cannot be written."""
    ways = {"PROMPT": prompt, "--prompt-ids": prompt_ids, "--batch": batch}
    given = [name for name, value in ways.items() if value is not None]
    if chat and given and given != ["PROMPT"]:
        given.append("--chat")
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other", "give one of them")
    if out and batch is None:
        raise UsageError("-o is where --batch writes", "redirect standard output instead: > FILE")
    if out and ((out.exists() and not out.is_file()) or not out.absolute().parent.is_dir()):  # a device would be replaced by a file
        raise UsageError(f"cannot write {out}: a file in an existing folder is needed", "-o replies.jsonl")
    if out and batch and out.exists() and Path(batch).exists() and out.samefile(batch):
        raise UsageError(f"-o {out} would replace the prompts", "-o replies.jsonl")
