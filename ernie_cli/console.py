"""One voice: results on stdout, everything else on stderr. Knows --json, -q/-v, NO_COLOR and whether a person watches.

What a command found out goes through `result` (text for people) or `result(data=…)` (the same as one JSON object,
printed instead when --json is given). Everything said along the way goes through `info`, `detail`, `warn` and
`progress`, which write to stderr only.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


@dataclass
class Settings:
    """What the common options said. One process has one voice, so this is the one piece of global state."""

    json: bool = False
    verbosity: int = 0  # -1 quiet, 0 normal, 1 and more verbose


settings = Settings()


def _rich(file: Any) -> Console:
    """A rich console on `file`: wide when piped so that no line is folded, colourless where NO_COLOR or no terminal."""
    from rich.console import Console

    terminal = file.isatty()
    return Console(file=file, soft_wrap=not terminal, highlight=False, width=None if terminal else 200)


def result(text: RenderableType | None = None, *, data: Any = None) -> None:
    """Print the result of a command: `data` as JSON under --json, else `text` (a string or any rich renderable)."""
    if settings.json:
        print(_json(finite(data)))
    elif isinstance(text, str):
        print(text)
    elif text is not None and sys.stdout.isatty():
        _rich(sys.stdout).print(text)
    elif text is not None:
        console = _rich(sys.stdout)
        with console.capture() as lines:
            console.print(text)
        print("\n".join(line.rstrip() for line in lines.get().splitlines()))  # tables pad their last column
    sys.stdout.flush()


def _json(data: Any) -> str:
    """As people read it. Halves of characters, which JSON may hold, have no encoding: they are escaped, and all else with them."""
    text = json.dumps(data, ensure_ascii=False, indent=2, allow_nan=False, default=str)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(data, indent=2, allow_nan=False, default=str)
    return text


def finite(data: Any) -> Any:
    """The same with null where a number is NaN or infinite, which JSON cannot say (and files that we quote do)."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {name: finite(value) for name, value in data.items()}
    return [finite(value) for value in data] if isinstance(data, (list, tuple)) else data


def stream(text: str) -> None:
    """A piece of a result that is shown while it grows; silent under --json, where `result` gives the whole."""
    if not settings.json:
        sys.stdout.write(text)
        sys.stdout.flush()


def _say(text: str, style: str) -> None:
    if style and sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        text = f"\x1b[{style}m{text}\x1b[0m"
    print(text, file=sys.stderr, flush=True)


def info(text: str) -> None:
    """Something worth knowing along the way: what was chosen and why, what is being done."""
    if settings.verbosity >= 0:
        _say(text, "")


def show(findings: RenderableType) -> None:
    """Something worth seeing along the way, laid out as rich renderables; the result itself is `result`'s."""
    if settings.verbosity >= 0:
        _rich(sys.stderr).print(findings)


def detail(text: str) -> None:
    """Shown with -v only."""
    if settings.verbosity >= 1:
        _say(text, "2")


def warn(text: str) -> None:
    """Shown even with -q: the result stands, but not quite as the reader may think."""
    _say(f"warning: {text}", "33")


def error(message: str, hint: str = "") -> None:
    """The last words of a failed command. Whatever names and texts of others the message quotes, it stays one line."""
    _say(f"error: {printable(message)}", "31")
    if hint:
        _say(f"hint: {hint}", "")


class Meter:
    """Counts work done. `advance` costs next to nothing, so it can be called for every chunk."""

    def __init__(self, update: Callable[[float, str | None], None] | None) -> None:
        self._update = update

    def advance(self, amount: float, note: str | None = None) -> None:
        """`amount` more units are done; `note`, if given, replaces the text right of the bar."""
        if self._update:
            self._update(amount, note)


@contextmanager
def progress(title: str, total: float | None, *, unit: str = "items") -> Iterator[Meter]:
    """A bar with an ETA on stderr (`unit="bytes"` also shows the speed); silent when quiet.

    Where stderr is no terminal, a plain line every ten seconds takes the bar's place, so that logs show life.
    `total=None` means unknown.
    """
    if settings.verbosity < 0:
        yield Meter(None)
    elif sys.stderr.isatty():
        with _bar(title, total, unit) as meter:
            yield meter
    else:
        yield Meter(_ticker(title, total))


@contextmanager
def _bar(title: str, total: float | None, unit: str) -> Iterator[Meter]:
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    amounts = [DownloadColumn(), TransferSpeedColumn()] if unit == "bytes" else [MofNCompleteColumn()]
    columns = [TextColumn("{task.description}"), BarColumn(), *amounts, TimeRemainingColumn(), TextColumn("{task.fields[note]}")]
    with Progress(*columns, console=_rich(sys.stderr), transient=True) as bar:
        task = bar.add_task(title, total=total, note="")

        def update(amount: float, note: str | None) -> None:
            bar.advance(task, amount)
            if note is not None:
                bar.update(task, note=note)

        yield Meter(update)


def _ticker(title: str, total: float | None, every_s: float = 10.0) -> Callable[[float, str | None], None]:
    start = last = time.monotonic()
    done = 0.0

    def update(amount: float, note: str | None) -> None:
        nonlocal done, last
        done += amount
        now = time.monotonic()
        if now - last < every_s:
            return
        last = now
        share = f" {done / total:.0%}" if total else f" {done:.0f}"
        left = f", {(now - start) * (total - done) / done:.0f} s left" if total and done >= total / 1000 else ""  # from less nobody knows
        info(f"{title}:{share}{left}{f' ({note})' if note else ''}")

    return update


def printable(text: str) -> str:
    """Control characters as \\x1b and the like: a file cannot drive the terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def size(n_bytes: float) -> str:
    """12345678 → '12.3 MB' (decimal units, as disks and hubs count)."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(n_bytes) < 1000 or unit == "TB":
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    raise AssertionError("unreachable")
