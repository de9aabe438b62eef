"""Finds what must absorb factors for one activation to carry them: makers upstream, users downstream, until all ends are constants.

How an operator lets factors through is fold_rules.py's matter; carrying it out fold.py's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .fold_label import NONE, Label, Stop, Way, dims, fitted
from .fold_rules import UNTOUCHED, back, forth
from .layers import layer_of

#: Keys and values of earlier tokens: a graph that is fed what it gave may keep them in any unit.
_CACHES = re.compile(r"(past|cache|past_key_values)\.\d+\.value"), re.compile(r"(present|cache_out)\.\d+\.value")
#: Values looked at, in all ways tried, before a search is given up: a factor that has to go that far goes through the residual.
_MOST_VALUES = 200


@dataclass(frozen=True)
class Place:
    """A constant input of a node that is multiplied with factors (`divide`: divided by them), picked by `label`."""

    node: ir.Node
    index: int
    label: Label
    divide: bool


class Search:
    """Which values carry factors, so that everything around them can absorb them. Copied where there is a choice."""

    def __init__(self, channels: int, chosen: set[ir.Node], left: list[int] | None = None) -> None:
        self.chosen = chosen
        self.left = left or [_MOST_VALUES]  # one number for all copies
        self.tied = np.arange(channels)
        self.values: dict[ir.Value, Label] = {}
        self.ways: dict[ir.Node, frozenset[int]] = {}
        self.places: list[Place] = []

    def copy(self) -> Search:
        made = Search(0, self.chosen, self.left)
        made.tied, made.values, made.ways, made.places = self.tied.copy(), dict(self.values), dict(self.ways), list(self.places)
        return made

    def grown(self, wanted: list[tuple[ir.Value, Label]]) -> Search:
        """The search with every wanted value carrying its label, and all that follows. Raises Stop."""
        search = self
        while wanted:
            value, label = wanted.pop()
            self.left[0] -= 1
            if self.left[0] < 0:
                raise Stop
            if value in search.values:
                search.same(value, label)
                continue
            search.values[value] = label
            _check_ends(value)
            search, more = search.made(value, label, wanted)
            wanted = [*more]
        search.finish()
        return search

    def made(self, value: ir.Value, label: Label, waiting: list[tuple[ir.Value, Label]]) -> tuple[Search, list[tuple[ir.Value, Label]]]:
        """Let the node that makes `value` absorb or pass its factors, then look at the users."""
        after = [*waiting, *self.used(value, label)]
        node = value.producer()
        if node is None or node in self.ways:
            return self, after
        ways = back(node, value.index() or 0, label)
        for way in ways[:-1]:
            try:
                tried = self.copy()
                return tried.grown([*after, *tried.take(node, way)]), []
            except Stop:
                continue
        if not ways:
            raise Stop
        return self, [*after, *self.take(node, ways[-1])]

    def take(self, node: ir.Node, way: Way) -> list[tuple[ir.Value, Label]]:
        """Go this way: constants absorb, other inputs carry."""
        self.ways[node] = frozenset(way.inputs)
        for one, other in way.ties:
            self.tie(one, other)
        carrying = []
        for index, label in way.inputs.items():
            value = node.inputs[index]
            assert value is not None
            if ir.convenience.get_const_tensor(value) is None:
                carrying.append((value, label))
            else:
                self.absorb(node, index, label, divide=True)
        return carrying

    def used(self, value: ir.Value, label: Label) -> list[tuple[ir.Value, Label]]:
        """Users that are linears absorb in their rows; others must pass it on."""
        carrying = []
        for node, index in value.uses():
            layer = layer_of(node) if index == 0 and node.op_type in ("MatMul", "Gemm") else None
            if layer is None:
                carrying += [(node.outputs[at], given) for at, given in forth(node, index, label).items()]
            elif any(length != 1 for length in label.shape[:-1]):
                raise Stop
            else:
                self.absorb(node, 1, label.reshape((-1, 1) if layer.sum_axis == 0 else (1, -1)), divide=False)
        return carrying

    def absorb(self, node: ir.Node, index: int, label: Label, *, divide: bool) -> None:
        value = node.inputs[index]
        assert value is not None
        layer = layer_of(node)
        others = [user for user, _ in value.uses() if user is not node]
        if value.is_graph_input() or value.is_graph_output() or value.dtype not in _FLOATS:
            raise Stop
        # A second tensor of its own is cheap for a vector; for a matrix only where the layer's becomes narrow anyway.
        if others and layer is not None and layer.weight is value:
            if node not in self.chosen or any(layer_of(user) is not None for user in others):
                raise Stop
        elif others and sum(length != 1 for length in dims(value)) > 1:
            raise Stop
        self.places.append(Place(node, index, fitted(label, value), divide))

    def same(self, value: ir.Value, label: Label) -> None:
        if self.values[value].shape != label.shape:
            raise Stop
        self.tie(self.values[value], label)

    def tie(self, one: Label, other: Label) -> None:
        """Make factors equal where two labels differ."""
        for first, second in {tuple(sorted(pair)) for pair in zip(one.flat, other.flat, strict=True)}:
            if first == second:
                continue
            if first == NONE:
                raise Stop
            low, high = sorted((int(self.tied[first]), int(self.tied[second])))
            self.tied[self.tied == high] = low

    def finish(self) -> None:
        """Every use of a value that carries factors must have been reckoned with."""
        rows = {(place.node, 0) for place in self.places if not place.divide}
        for value in self.values:
            for node, index in value.uses():
                if node.op_type not in UNTOUCHED and (node, index) not in rows and index not in self.ways.get(node, ()):
                    raise Stop


_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)


def _check_ends(value: ir.Value) -> None:
    given, back_again = _CACHES
    if value.is_graph_output() and not back_again.fullmatch(str(value.name)):
        raise Stop
    if value.producer() is None and not (value.is_graph_input() and given.fullmatch(str(value.name))):
        raise Stop
