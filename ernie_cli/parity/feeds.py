"""Seeded arrays in the ranges that inputs plausibly have: pictures, token ids, masks, lengths. Shapes come from axes.py."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from ..runtime.graphs import TensorSpec
from .axes import Sizes, shape_of

#: Ids stay below this where no table tells how many there are; where the source refuses them, below the next.
CAPS = (1000, 100, 16, 2, 1)


def draw(
    specs: Sequence[TensorSpec],
    sizes: Sizes,
    *,
    seed: int = 0,
    rows: Mapping[str, int] | None = None,
    cap: int | None = None,
    gain: float = 1.0,
) -> dict[str, np.ndarray]:
    """An array for every input.

    rows: input → rows of the table it indexes, where known. cap: ids stay below it (default: below the rows, else CAPS[0]).
    gain: floats are this many times their usual size.
    """
    shapes = {spec.name: shape_of(spec, sizes) for spec in specs}
    feeds = {}
    for number, spec in enumerate(specs):
        rng = np.random.default_rng([seed, number])
        known = (rows or {}).get(spec.name)
        below = min(known or cap or CAPS[0], cap or known or CAPS[0])
        values = _values(spec, shapes, rng, below, known or below)
        if gain != 1.0 and _dtype(spec).kind not in "biu" and not _named(spec.name, "mask"):
            values = values * gain
        feeds[spec.name] = np.ascontiguousarray(values.astype(_dtype(spec))).reshape(shapes[spec.name])
    return feeds


def ids(spec: TensorSpec) -> bool:
    """Whether an input is drawn as ids, which the source may refuse where they are too large."""
    return np.dtype(_dtype(spec)).kind in "iu"


def _values(spec: TensorSpec, shapes: Mapping[str, tuple[int, ...]], rng: np.random.Generator, below: int, rows: int) -> np.ndarray:
    shape, kind = shapes[spec.name], _dtype(spec).kind
    if _named(spec.name, "mask", "padding"):
        return _mask(shape, rng)
    if kind == "b":
        return rng.integers(0, 2, shape)
    if kind in "iu":
        return _integers(spec, shapes, rng, below, rows)
    if _named(spec.name, "im_shape", "image_shape"):  # detectors made by PaddleDetection ask for these two
        return np.broadcast_to(np.array(_picture(shapes), float)[: shape[-1] if shape else 2], shape)
    if _named(spec.name, "scale_factor"):
        return np.ones(shape)
    return rng.random(shape) if _is_picture(shape) else rng.standard_normal(shape)


def _integers(spec: TensorSpec, shapes: Mapping[str, tuple[int, ...]], rng: np.random.Generator, below: int, rows: int) -> np.ndarray:
    shape = shapes[spec.name]
    if _named(spec.name, "token_type", "segment"):
        return rng.integers(0, min(2, below), shape)
    if _named(spec.name, "position") and len(shape) > 1:
        return np.broadcast_to(np.arange(shape[-1]) % below, shape)
    if _named(spec.name, "position"):
        return np.zeros(shape)  # where the first token stands: an empty cache
    if _named(spec.name, "len", "lens", "length", "lengths", "seq_len", "seq_lens"):
        return _lengths(shape, shapes, rng)
    if _is_picture(shape):
        return rng.integers(0, 256, shape)
    drawn = rng.integers(0, below, shape)
    if drawn.size and below == rows:
        drawn.flat[-1] = rows - 1  # the table's last row, too
    return drawn


def _mask(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Ones, with zeros at the end of every row but the first: what padding looks like."""
    values = np.ones(shape)
    if not shape or shape[-1] < 2:
        return values
    rows = values.reshape(-1, shape[-1])
    for row in rows[1:] if len(rows) > 1 else rows:
        row[rng.integers(shape[-1] // 2, shape[-1]) + 1 :] = 0
    return values


def _lengths(shape: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]], rng: np.random.Generator) -> np.ndarray:
    """Lengths within the sequence, longest first, as packing wants them; the first is all of it."""
    inner = [size for other in shapes.values() if len(other) > 1 for size in other[1:2]]
    longest = min(inner, default=1)
    drawn = np.sort(rng.integers(1, longest + 1, shape).ravel())[::-1].reshape(shape).copy()
    if drawn.size:
        drawn.flat[0] = longest
    return drawn


def _named(name: str, *words: str) -> bool:
    """Whether one of the words is in a name, between its ends, dots, dashes, underscores or changes of case."""
    flat = "_" + re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()) + "_"
    return any(f"_{word}_" in flat or f"_{word}s_" in flat for word in words)


def _is_picture(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and (shape[1] in (1, 3) or shape[-1] in (1, 3))


def _picture(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
    found = next((shape for shape in shapes.values() if len(shape) == 4), (1, 3, 64, 64))
    return (found[2], found[3]) if found[1] in (1, 3) else (found[1], found[2])


def _dtype(spec: TensorSpec) -> np.dtype[np.generic]:
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16 if spec.dtype == "bfloat16" else spec.dtype or "float32")
