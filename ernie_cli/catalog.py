"""The published ERNIE 4.5 checkpoints as data: a name people type → the repository it stands for on each hub.

The facts are in catalog.toml. Fetching is the business of `ernie_cli.hub`.
"""

from __future__ import annotations

import difflib
import functools
import importlib.resources
import sys
from dataclasses import dataclass
from typing import Any

from .named import EMBEDDED

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Entry:
    """One model of the catalogue. `layouts` are the endings of its repositories' names; () where the name has none.

    parameters and active are counts, the second those that work on any one token. `bits` is the width of a stored
    parameter, None where the repository mixes widths and nobody counted.
    """

    name: str
    title: str
    layouts: tuple[str, ...]
    parameters: int
    active: int
    modality: str
    bits: int | None

    @property
    def names(self) -> tuple[str, ...]:
        """What it can be called: `x`, `x-pt`, `x-paddle`."""
        return (self.name, *(f"{self.name}-{layout.lower()}" for layout in self.layouts))

    @property
    def bytes(self) -> int | None:
        """About how much there is to fetch, None where unknown."""
        return self.parameters * self.bits // 8 if self.bits else None

    def repo(self, name: str, source: str) -> str:
        """The repository on `source` that `name` (one of `names`) stands for; the bare name means the first layout."""
        layouts = self.layouts[:1] if name == self.name else [each for each in self.layouts if name.endswith(f"-{each.lower()}")]
        return "-".join([f"{_facts()['orgs'][source]}/{self.title}", *layouts])


@functools.lru_cache(maxsize=1)
def entries() -> tuple[Entry, ...]:
    """Every model of the catalogue, in its order."""
    known = ("name", "title", "parameters", "active", "modality")
    return tuple(
        Entry(**{key: model[key] for key in known}, layouts=tuple(model.get("layouts", ())), bits=model.get("bits"))
        for model in _facts()["model"]
    )


def find(name: str) -> Entry | None:
    """The entry that `name` (of any case) is a name of, None where there is none."""
    return next((entry for entry in entries() if name.lower() in entry.names), None)


def closest(name: str) -> str:
    """The catalogue's name most like `name` (or like a repository's name), "" where nothing is."""
    names = [EMBEDDED, *(each for entry in entries() for each in entry.names)]
    return next(iter(difflib.get_close_matches(name.rsplit("/", 1)[-1].lower(), names, 1, cutoff=0.6)), "")


@functools.lru_cache(maxsize=1)
def _facts() -> dict[str, Any]:
    facts: dict[str, Any] = tomllib.loads(importlib.resources.files("ernie_cli").joinpath("catalog.toml").read_text(encoding="utf-8"))
    return facts
