"""What an architecture of the zoo is: how it is built, and what goes in. Its library's own files know the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Shape = tuple["int | str", ...]
Values = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


@dataclass(frozen=True)
class Input:
    """An input: shape with a symbol where an axis is dynamic; values(rng, shape) draws an array in its plausible range."""

    name: str
    dtype: str
    shape: Shape
    values: Values

    def option(self) -> str:
        """As `ernie convert --input` takes it: "name:dtype:2x3xN"."""
        return f"{self.name}:{self.dtype}:{'x'.join(map(str, self.shape))}"

    def draw(self, rng: np.random.Generator, sizes: Mapping[str, int]) -> np.ndarray:
        """One array with the symbols' lengths taken from `sizes`."""
        shape = tuple(sizes[axis] if isinstance(axis, str) else axis for axis in self.shape)
        return self.values(rng, shape).astype(self.dtype)


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal, as normalised pictures and features are."""
    return rng.standard_normal(shape)


def tokens(size: int) -> Values:
    """Ids of a vocabulary of `size`."""
    return lambda rng, shape: rng.integers(0, size, shape)


def prefix(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A padding mask [B, T]: ones, then zeros, at least one 1 per row."""
    return np.arange(shape[1])[None, :] < rng.integers(1, shape[1] + 1, (shape[0], 1))


def between(low: float, high: float) -> Values:
    """Uniform numbers."""
    return lambda rng, shape: rng.uniform(low, high, shape)


def image(size: int, channels: int = 3, name: str = "image", batch: int | str = "batch") -> Input:
    """A batch of square pictures."""
    return Input(name, "float32", (batch, channels, size, size), normal)


#: Lengths per symbol: what a model is traced and calibrated with, small ones, odd ones.
SIZES: tuple[Mapping[str, int], ...] = (
    {"batch": 2, "length": 16, "width": 96},
    {"batch": 1, "length": 7, "width": 64},
    {"batch": 3, "length": 23, "width": 160},
)


@dataclass(frozen=True)
class Architecture:
    """library: "paddle" or "torch". build() → the module with its library's random weights. scripted: by torch.jit.script, else traced."""

    name: str
    library: str
    build: Callable[[], Any]
    inputs: tuple[Input, ...]
    scripted: bool = False

    def feeds(self, seed: int, which: int = 0) -> dict[str, np.ndarray]:
        """Seeded arrays by input name. which: 0 the typical lengths, 1 the smallest, 2 odd ones."""
        rng = np.random.default_rng(seed)
        return {each.name: each.draw(rng, SIZES[which]) for each in self.inputs}
