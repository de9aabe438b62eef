"""One calibration sample, and which samples of many are taken."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ...evaluate.texts import Text

T = TypeVar("T")


@dataclass(frozen=True)
class Sample:
    """digest: of its content. make: gives the feeds, {input name: array}. text: what it was made from, if from text."""

    digest: str
    make: Callable[[], Mapping[str, np.ndarray]]
    text: Text | None = None


def chosen(found: Sequence[T], samples: int, seed: int) -> list[T]:
    """At most `samples` of them in their order, the same ones for the same seed."""
    if len(found) <= samples:
        return list(found)
    return [found[at] for at in sorted(random.Random(seed).sample(range(len(found)), samples))]
