"""Findings laid out for people: titled sections of facts and tables, as rich renderables. Decides nothing about content.

Names from files may hold anything, so nothing here reads rich's [markup], and control characters are shown, not obeyed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .console import printable

#: A word that stands alone in a cell → how it is shown. Meaning never hangs on the colour alone.
_STYLES = {"ok": "green", "passed": "green", "limited": "yellow", "missing": "red", "failed": "red"}


def facts(pairs: Iterable[tuple[str, str]]) -> Table:
    """Names and what they are, in two columns. Pairs without a value are left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        if value:
            grid.add_row(Text(name, style="dim"), cell(value))
    return grid


def paragraph(text: str) -> Table:
    """Running text, folded between words where the line ends."""
    grid = Table.grid()
    grid.add_row(cell(text))
    return grid


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Rows under a header, without rules: it reads the same on a terminal, in a pipe and in a README."""
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in header:
        grid.add_column(name, overflow="fold")
    for row in rows:
        grid.add_row(*(cell(value) for value in row))
    return grid


def sections(*parts: tuple[str, RenderableType | None]) -> Group:
    """Titles over indented content, a blank line between; parts that are None are left out."""
    lines: list[RenderableType] = []
    for title, content in parts:
        if content is not None:
            lines += [Text()] if lines else []
            lines += [Text(printable(title), style="bold"), Padding(content, (0, 0, 0, 2))]
    return Group(*lines)


def cell(value: str) -> Text:
    """Plain text, coloured where it is a verdict."""
    return Text(printable(value), style=_STYLES.get(value, ""))
