"""How far each layer's output is from the float model's, on data: both graphs side by side, sums of squares alone kept."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ... import console
from ...model import Model
from .files import fit_together
from .quality import power, sqnr_db

if TYPE_CHECKING:
    from ..calibrate.graph import Graph

Feeds = Mapping[str, np.ndarray]
#: Samples looked at, and tokens of each: SQNR is a mean over thousands of numbers already.
SAMPLES, TOKENS = 16, 128
#: Samples looked at where memory holds but one of the two models: the first one's values are kept meanwhile.
_SAMPLES_APART = 2
#: Bytes of values that one run of one model may give. More layers than that take turns.
MAX_BYTES = 512 << 20


def layer_errors(
    before: Model,
    after: Model,
    layers: Mapping[str, str],
    data: Iterable[Feeds],
    *,
    inputs: Mapping[str, str] | None = None,
    folded: Mapping[str, np.ndarray] | None = None,
    samples: int = SAMPLES,
) -> dict[str, dict[str, float]]:
    """For each layer {"output_sqnr_db", "input_sqnr_db", "rms"}: its output's signal over noise in dB, the noise that came with its
    input included; that of its input (where `inputs` names it); the root mean square of the float output.

    before, after: ONNX models with values of the same names. layers: layer → the value it gives; inputs: layer → the value it
    multiplies. folded: value → factors along its last axis (or a shape that broadcasts) that were folded out of it: after × factors is
    compared with before. data: feeds; of decoders `input_ids` alone. Layers that one of the two does not have are left out.
    Memory: the values of one sample.
    """
    wanted = dict.fromkeys([*layers.values(), *(inputs or {}).values()])
    sums = _Sums(folded or {})
    some = _short(itertools.islice(data, samples))
    with console.progress("comparing layers", samples) as meter:
        for ours, theirs in _pairs(before, after, list(wanted), list(some)):
            sums.add(ours, theirs)
            meter.advance(1)
    return {name: sums.figures(value, (inputs or {}).get(name)) for name, value in layers.items() if value in sums.signal}


class _Sums:
    """Per value: sum of squares of the float model's and of the difference, and how many numbers."""

    def __init__(self, folded: Mapping[str, np.ndarray]) -> None:
        self.folded = folded
        self.signal: dict[str, float] = {}
        self.noise: dict[str, float] = {}
        self.count: dict[str, int] = {}

    def add(self, before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> None:
        for name, want in before.items():
            got = after[name].astype(np.float64)
            if name in self.folded:
                got *= self.folded[name]
            got -= want
            self.signal[name] = self.signal.get(name, 0.0) + power(want.astype(np.float64))
            self.noise[name] = self.noise.get(name, 0.0) + power(got)
            self.count[name] = self.count.get(name, 0) + want.size

    def figures(self, output: str, source: str | None) -> dict[str, float]:
        signal, noise = self.signal[output], self.noise[output]
        found = {"output_sqnr_db": round(sqnr_db(signal, noise), 2), "rms": float(f"{(signal / max(1, self.count[output])) ** 0.5:.4g}")}
        if source in self.signal:
            found["input_sqnr_db"] = round(sqnr_db(self.signal[source], self.noise[source]), 2)
        return found


def _short(data: Iterable[Feeds]) -> Iterator[Feeds]:
    """Texts cut to their first tokens."""
    for feeds in data:
        yield {**feeds, "input_ids": feeds["input_ids"][:, :TOKENS]} if set(feeds) == {"input_ids"} else feeds


# --- running both -------------------------------------------------------------------------------------------------------------------

Values = dict[str, np.ndarray]


def _pairs(before: Model, after: Model, names: Sequence[str], data: Sequence[Feeds]) -> Iterator[tuple[Values, Values]]:
    """The named values that both models have, of one sample after the other; of some of the names at a time where they are too many."""
    from ..calibrate.graph import Graph

    graphs = Graph(before), Graph(after)
    known = [graph.inputs.union(str(value.name) for node in graph.model.graph for value in node.outputs) for graph in graphs]
    both = [name for name in names if all(name in each for each in known)]
    if not both or not data:
        return
    if not fit_together((before, after)):
        yield from _one_after_the_other(graphs, both, data)
        return
    parts = -(-sum(value.nbytes for _, value in graphs[0].part(both).run(data[0])) // MAX_BYTES)
    for at in range(parts):
        mine, theirs = (graph.part(both[at::parts]) for graph in graphs)
        for feeds in data:
            yield dict(mine.run(feeds)), dict(theirs.run(feeds))


def _one_after_the_other(graphs: tuple[Graph, Graph], names: list[str], data: Sequence[Feeds]) -> Iterator[tuple[Values, Values]]:
    console.detail("memory holds one of the two models at a time: layers are compared on two samples")
    first = graphs[0].part(names)
    ours = [dict(first.run(feeds)) for feeds in data[:_SAMPLES_APART]]
    del first
    second = graphs[1].part(names)
    for mine, feeds in zip(ours, data, strict=False):
        yield mine, dict(second.run(feeds))
