"""What `ernie inspect ENGINE --layers` prints: for each profile its layers, and the nodes that no layer has, by reason.

Reads what layers.Facts.as_dict() wrote into ernie.json, so it needs no TensorRT, no GPU and no graph.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import console, tables

if TYPE_CHECKING:
    from rich.console import RenderableType

#: Names shown of a layer's nodes, and of those that are gone for one reason. All of them are in the JSON.
_FEW, _SOME = 2, 6
#: What a builder adds to names beyond the first profile: here the title says it.
_PROFILE = re.compile(r" \[profile \d+\]")


def table(known: Mapping[str, Any], titles: Sequence[str] = ()) -> RenderableType:
    """known: the `layers` of an engine's record (record.py). titles: of the profiles ("prefill", "decode"), else their numbers."""
    parts: list[tuple[str, RenderableType | None]] = []
    for number, profile in enumerate(known["profiles"]):
        title = titles[number] if number < len(titles) else f"profile {number}"
        parts += [(_headline(title, known, profile), _layers(profile["layers"])), _removed(title, profile["removed"])]
    return tables.sections(*parts)


def _headline(title: str, known: Mapping[str, Any], profile: Mapping[str, Any]) -> str:
    gone = sum(map(len, profile["removed"].values()))
    memory = profile["activation_bytes"]
    said = f", {console.size(memory)} of activations" if memory else ""
    kinds = Counter(layer.get("type", "") for layer in profile["layers"]).most_common()
    layers = f"{len(profile['layers'])} layers ({', '.join(f'{count} {kind}' for kind, count in kinds)})"
    return f"{title}: {known['nodes'] - gone} of {known['nodes']} nodes in {layers}{said}"


def _layers(layers: Sequence[Mapping[str, Any]]) -> RenderableType:
    return tables.table(("layer", "kind", "precision", "nodes", ""), map(_row, layers))


def _row(layer: Mapping[str, Any]) -> tuple[str, ...]:
    """Where a layer reads something narrower than it writes, that is told: "int8 → fp16"."""
    precision = " → ".join(filter(None, (layer.get("reads"), layer.get("precision"))))
    nodes = layer.get("nodes", ())
    return _PROFILE.sub("", layer["name"]), layer.get("type", ""), precision, str(len(nodes)) if nodes else "–", _few(nodes, _FEW)


def _removed(title: str, removed: Mapping[str, Sequence[str]]) -> tuple[str, RenderableType | None]:
    rows = [(reason, str(len(keys)), _few(keys, _SOME)) for reason, keys in removed.items()]
    return f"{title}: nodes without a layer", tables.table(("why", "nodes", ""), rows) if rows else None


def _few(names: Sequence[str], most: int) -> str:
    shown = ", ".join(names[:most])
    return f"{shown}, … {len(names) - most} more" if len(names) > most else shown
