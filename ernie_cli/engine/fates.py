"""What became of each node of a graph: the layers it is in, profile by profile, or the reason why it is in none.

Joins the builder's log (log.py) with the graph (nodes.py) and its reasons (gone.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import gone
from .log import NARROW, Log
from .nodes import Graph, distinct


@dataclass(frozen=True)
class Fate:
    """layers: per profile, positions in the log's layers. why: per profile the reason where it has none, else ""."""

    layers: tuple[tuple[int, ...], ...]
    why: tuple[str, ...]

    @property
    def removed(self) -> bool:
        """Whether no layer of any profile has it."""
        return not any(self.layers)


def fates(graph: Graph, said: Log, profiles: int) -> dict[str, Fate]:
    """Every node of the graph, by what layers call it → its fate."""
    names = _names(graph, said)
    fused = [_fused(names, said, profile) for profile in range(profiles)]
    derived = _Derived(graph, names, said)
    whys = [derived.why(found) for found in fused]
    found = {}
    for place, name in enumerate(names):
        found[name] = Fate(tuple(each[place] for each in fused), tuple(each[place] for each in whys))
    return found


def _names(graph: Graph, said: Log) -> list[str]:
    """What layers' metadata calls each node: its name and where it stands, in loops its name alone."""
    used = {name for layer in said.layers for name in layer.nodes}
    return list(distinct(node.name if node.name in used and node.label not in used else node.label for node in graph.nodes))


def _fused(names: Sequence[str], said: Log, profile: int) -> list[tuple[int, ...]]:
    """For each node the positions of the layers of one profile that have it."""
    places: dict[str, list[int]] = {}
    for place, layer in enumerate(said.layers):
        if layer.profile == profile:
            for name in dict.fromkeys(layer.nodes):
                places.setdefault(name, []).append(place)
    return [tuple(places.get(name, ())) for name in names]


class _Derived:
    """What graph and log say of each node whatever the profile; `why` adds what the layers of one say."""

    def __init__(self, graph: Graph, names: Sequence[str], said: Log) -> None:
        self.said, self.twins, self.widening = said, gone.twins(graph), gone.widening(graph)
        reasons = gone.reasons(graph)
        self.reasons = [reason or self._log(node.name, name) for reason, node, name in zip(reasons, graph.nodes, names, strict=True)]

    def why(self, fused: Sequence[tuple[int, ...]]) -> list[str]:
        """fused: for each node the layers it is in. Returns the reason for those that are in none, "" for the others."""
        kept = {twin for twin, where in zip(self.twins, fused, strict=True) if where}
        return ["" if where else self._reason(place, fused, kept) for place, where in enumerate(fused)]

    def _reason(self, place: int, fused: Sequence[tuple[int, ...]], kept: set[int]) -> str:
        reason = self.reasons[place]
        if reason == gone.FOLDED and self._stays_narrow(place, fused):
            return gone.NARROW
        return gone.TWIN if reason in (gone.LAYOUT, gone.ABSORBED, gone.UNKNOWN) and self.twins[place] in kept else reason

    def _stays_narrow(self, place: int, fused: Sequence[tuple[int, ...]]) -> bool:
        layers = [self.said.layers[layer] for user in self.widening.get(place, ()) for layer in fused[user]]
        return any(kind in NARROW for layer in layers for kind in layer.reads)

    def _log(self, name: str, called: str) -> str:
        """What the log tells of a node that the graph has no reason for."""
        if name in self.said.parsed and name not in self.said.registered:
            return gone.NO_EFFECT
        if len(self.said.casts.get(name, "")) == 1:
            return gone.NO_CAST
        return gone.ABSORBED if called in self.said.compiled else gone.UNKNOWN
