"""Runs a graph on data and shows what flows through it to statistics, a bounded number of them at a time.

What is measured is the statistics' own business; what the data are is data.py's; how a graph is cut and fed is graph.py's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Protocol

import numpy as np

from ... import console, host
from ...model import Model
from .graph import Graph

#: Of statistics in memory at once. Where they need more, the data run through the graph again.
MAX_BYTES = 256 << 20
#: Up to so many values are fetched in one run without a look at their sizes; of more, as many as this share of free memory holds.
_FEW, _SHARE = 64, 0.2


class Statistic(Protocol):
    """Sees a value's arrays one by one. nbytes: what it will hold in memory, whatever comes."""

    @property
    def nbytes(self) -> int: ...

    def add(self, value: np.ndarray) -> None: ...


def collect(
    model: Model,
    wanted: Mapping[str, Statistic],
    data: Iterable[Mapping[str, np.ndarray]],
    *,
    max_bytes: int = MAX_BYTES,
    title: str = "calibrating",
) -> None:
    """Run `model`'s ONNX graph on all of `data` and give every named value of the main graph to its statistic.

    data: feeds by input name, gone through once per pass; of ERNIE decoders `input_ids` int64 [B, S] alone. A decoder sees all
    tokens at once with an empty cache, and its last block computes all of them, too. max_bytes: of statistics at once; more
    take several passes. Raises UsageError for feeds that the graph does not take, InputError for graphs that cannot run.
    """
    if not wanted:
        return
    graph = Graph(model)
    passes = list(_passes(graph, wanted, data, max_bytes))
    total = len(data) * len(passes) if isinstance(data, Sized) else None
    with console.progress(title, total, unit="samples") as meter:
        for number, names in enumerate(passes, 1):
            part = graph.part(names)
            for feeds in data:
                for name, value in part.run(feeds):
                    wanted[name].add(value)
                meter.advance(1, f"pass {number} of {len(passes)}" if len(passes) > 1 else None)


def _passes(graph: Graph, wanted: Mapping[str, Statistic], data: Iterable[Mapping[str, np.ndarray]], max_bytes: int) -> Iterator[list[str]]:
    """Names in the order of computation, as many at a time as memory takes of their statistics and of themselves."""
    names = graph.in_order(wanted)
    most = _at_once(graph, names, data)
    part: list[str] = []
    held = 0
    for name in names:
        needed = wanted[name].nbytes
        if part and (held + needed > max_bytes or len(part) == most):
            yield part
            part, held = [], 0
        part.append(name)
        held += needed
    yield part


def _at_once(graph: Graph, names: Sequence[str], data: Iterable[Mapping[str, np.ndarray]]) -> int:
    """How many values one run may give: judged by some of them, from all over the graph, on the first sample."""
    feeds = next(iter(data), None) if len(names) > _FEW else None
    if feeds is None:
        return _FEW
    some = [names[at * len(names) // _FEW] for at in range(_FEW)]
    n_bytes = sum(value.nbytes for _, value in graph.part(some).run(feeds)) / _FEW
    room = host.memory().available * _SHARE
    return max(1, int(room / max(2 * n_bytes, 1)))  # twice: later samples may be longer
