"""An account of every ONNX node: in which layers of the engine it is, for each optimisation profile, or why in none.

What the build's log says, node by node (fates.py). How people see it is layer_table.py's affair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..onnxgraph import structure
from ..onnxgraph.proto import parse
from . import log
from .fates import Fate, fates
from .log import NARROW, Layer, Tensor
from .nodes import flat, tell_apart

#: Types that numbers are computed in; the others count, choose or compare.
_COMPUTES = ("fp32", "fp16", "bf16", *NARROW)


@dataclass(frozen=True)
class EngineLayer:
    """nodes: ONNX names in its metadata, as the builder wrote them. precision: of what it writes ("fp16", "fp16+fp32", "int64").

    reads: narrow types among its inputs and constants that it does not write ("int8" of a GEMM that hands out fp16), else "".
    """

    name: str
    type: str
    profile: int
    nodes: tuple[str, ...]
    precision: str
    tactic: str
    reads: str = ""


@dataclass(frozen=True)
class Facts:
    """What a build says of its engine. Sizes in bytes; activation_bytes: per profile; peak_host_bytes: the builder's own figure.

    nodes: every node of the graph → its fate. strangers: names in the engine's layers that are no node's; none is expected.
    """

    layers: list[EngineLayer]
    nodes: dict[str, Fate]
    activation_bytes: list[int] = field(default_factory=list)
    weight_bytes: int = 0
    peak_host_bytes: int = 0
    io: list[Tensor] = field(default_factory=list)
    strangers: Sequence[str] = ()

    @cached_property
    def profiles(self) -> int:
        """How many optimisation profiles the engine has."""
        return max([len(self.activation_bytes), *(layer.profile + 1 for layer in self.layers)])

    def removed(self, profile: int) -> dict[str, list[str]]:
        """Reasons → nodes that no layer of this profile has."""
        found: dict[str, list[str]] = {}
        for key, fate in self.nodes.items():
            if fate.why[profile]:
                found.setdefault(fate.why[profile], []).append(key)
        return found

    def as_dict(self) -> dict[str, Any]:
        """For ernie.json: everything, each layer once. A node that is in no layer of a profile is under that profile's `removed`."""
        return {
            "nodes": len(self.nodes),
            "profiles": [self._profile(number) for number in range(self.profiles)],
            "weight_bytes": self.weight_bytes,
            "peak_host_bytes": self.peak_host_bytes,
            "io": [_compact(asdict(tensor)) for tensor in self.io],
            **_compact({"unknown_names": list(self.strangers)}),
        }

    def _profile(self, number: int) -> dict[str, Any]:
        return {
            "activation_bytes": self.activation_bytes[number] if number < len(self.activation_bytes) else None,
            "layers": [_layer_dict(layer) for layer in self.layers if layer.profile == number],
            "removed": self.removed(number),
        }


def read(file: Path, graph: Path) -> Facts:
    """The account of the build that wrote the log `file`, of the ONNX file `graph` with its names told apart (network.py does it).

    Raises InputError for a log without a list of layers and for a file that is no ONNX model.
    """
    said = log.read(file)
    proto = parse(graph)
    structure.check(proto, str(graph))
    tell_apart(proto)
    layers = [_engine_layer(layer) for layer in said.layers]
    profiles = max([len(said.activation_bytes), *(layer.profile + 1 for layer in layers)])
    nodes = fates(flat(proto), said, profiles)
    strangers = {name for layer in layers for name in layer.nodes} - set(nodes)
    return Facts(layers, nodes, said.activation_bytes, said.weight_bytes, said.peak_host_bytes, said.tensors, sorted(strangers))


def _engine_layer(layer: Layer) -> EngineLayer:
    writes = [each for each in layer.writes if each in _COMPUTES] or list(layer.writes)
    reads = [each for each in layer.reads if each in NARROW and each not in writes]
    return EngineLayer(layer.name, layer.type, layer.profile, layer.nodes, "+".join(writes), layer.tactic, "+".join(reads))


def _layer_dict(layer: EngineLayer) -> dict[str, Any]:
    return _compact({name: value for name, value in asdict(layer).items() if name != "profile"})


def _compact(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is empty."""
    return {name: value for name, value in values.items() if value not in ("", (), [], {}, None)}
