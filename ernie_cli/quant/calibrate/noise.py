"""Seeded noise in plausible ranges, where nobody has data. What it measures is not what a model sees, and `said` says so."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import numpy as np

from ...console import Meter
from ...errors import UsageError
from ...model import Model
from ...parity import axes as lengths
from ...parity import feeds
from ...parity.cases import Runner
from ...runtime.graphs import open_graph
from .inputs import Inputs
from .sample import Sample

#: Tokens per text of noise.
_TOKENS = 64
#: More noise shows nothing new.
MOST_SAMPLES = 32


def read(model: Model, inputs: Inputs, samples: int, seed: int) -> tuple[list[Sample], str]:
    """(samples, what they are in words). Raises UsageError where the model takes nothing of what is tried."""
    numbers = range(min(samples, MOST_SAMPLES))
    if inputs.decoder:
        vocabulary = inputs.rows.get("input_ids", feeds.CAPS[0])
        made = [_ids(vocabulary, seed, number) for number in numbers]
    else:
        sizes, cap = _accepted(model, inputs)
        made = [_drawn(inputs, sizes, cap, seed * 1_000_003 + number) for number in numbers]
    return made, f"{len(made)} samples of random noise, not data: ranges measured on it are a guess"


def _ids(vocabulary: int, seed: int, number: int) -> Sample:
    def make() -> dict[str, np.ndarray]:
        return {"input_ids": np.random.default_rng([seed, number]).integers(0, vocabulary, (1, _TOKENS))}

    return Sample(hashlib.sha256(f"noise {vocabulary} {seed} {number}".encode()).hexdigest(), make)


def _drawn(inputs: Inputs, sizes: lengths.Sizes, cap: int | None, seed: int) -> Sample:
    def make() -> Mapping[str, np.ndarray]:
        return feeds.draw(inputs.specs, sizes, seed=seed, rows=inputs.rows, cap=cap)

    said = repr((inputs.specs, sorted(sizes.items()), cap, seed))
    return Sample(hashlib.sha256(said.encode()).hexdigest(), make)


def _accepted(model: Model, inputs: Inputs) -> tuple[lengths.Sizes, int | None]:
    """Lengths of the dynamic axes, and a bound of ids, that the model takes."""
    session = open_graph(model)
    try:
        runner = Runner(session, inputs.specs, inputs.rows, [], Meter(None))
        for sizes in _sizes(inputs):
            if runner.run("noise", sizes, caps=[None, *feeds.CAPS[1:]]):
                return sizes, runner.cap
    finally:
        session.close()
    raise UsageError(
        f"the model takes none of the noise that was tried; it says: {runner.reason}", "--data FILE.npz with inputs that it takes"
    )


def _sizes(inputs: Inputs) -> Iterator[lengths.Sizes]:
    yield from lengths.typical(lengths.dynamic_axes(inputs.specs))
