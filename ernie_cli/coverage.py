"""Which operators of a model an edge can map, told before any work. Edges know; this is the form they tell it in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .errors import UnsupportedError

#: How many nodes' names are listed per operator.
NODES = 8


@dataclass(frozen=True)
class OpUse:
    """One operator of the source. how: what it becomes ("torch.add", "expanded", …), "" where there is no mapping.
    why: for an operator without one, what is missing. nodes: names of the nodes that use it."""

    operator: str
    nodes: tuple[str, ...]
    how: str
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As --check --json prints it."""
        return {**asdict(self), "nodes": list(self.nodes[:NODES]), "count": len(self.nodes)}


def refuse(uses: Sequence[OpUse], edge: str) -> None:
    """Raise UnsupportedError (exit 4) naming every operator without a mapping, with its nodes. Nothing where all have one."""
    missing = [use for use in uses if not use.how]
    if not missing:
        return
    said = [f"{use.operator} × {len(use.nodes)} ({_some(use.nodes)}){f': {use.why}' if use.why else ''}" for use in missing]
    what = f"{edge.replace('_to_', ' → ')} has no mapping for {len(missing)} operator{'s' if len(missing) > 1 else ''}: {'; '.join(said)}"
    raise UnsupportedError(what, "`ernie convert … --check` lists how every other operator is mapped")


def _some(nodes: Sequence[str]) -> str:
    return ", ".join(nodes[:3]) + (", …" if len(nodes) > 3 else "")
