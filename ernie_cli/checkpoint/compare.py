"""Are two checkpoints the same weights, whatever their layouts? Looks at every tensor, and at a few elements of each."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import QualityError
from .reader import Checkpoint

#: Elements per tensor: enough that no wrong transposition, split or order of parts can pass, few enough to cost nothing.
_SAMPLES = 32


def check_same(made: Checkpoint, source: Checkpoint) -> dict[str, Any]:
    """Compare names, types, shapes and, bit for bit, the first, the last and seeded random elements of every tensor.

    Returns the record for the manifest. Raises QualityError that names the first tensor that differs.
    """
    rng = np.random.default_rng(0)
    if made.names() != source.names():
        raise QualityError(f"{made.folder}: not the tensors of {source.folder}", "please report it with the command you typed")
    for name in source.names():
        if made.info(name) != source.info(name) or not _same_elements(made.view(name), source.view(name), rng):
            raise QualityError(f"{made.folder}: tensor `{name}` differs from the source's", "please report it with the command you typed")
    return {"name": "same weights", "passed": True, "tensors": len(source.names()), "samples_per_tensor": _SAMPLES}


def _same_elements(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> bool:
    """Whether a and b, of one shape, agree at the first element, the last one and random ones, bit for bit."""
    where = tuple(np.concatenate([[0, n - 1], rng.integers(0, n, _SAMPLES - 2)]) for n in a.shape)
    return bool(a[where].tobytes() == b[where].tobytes())
