"""Makes fresh weights plausible: no scale is 1, no bias 0, no statistic its default, so that one forgotten shows. Any library."""

from __future__ import annotations

import numpy as np


def stir(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Constants become numbers around themselves, zeros small numbers around 0; anything drawn at random stays as it is."""
    if values.size == 0 or not np.issubdtype(values.dtype, np.floating) or values.min() != values.max():
        return values
    first = float(values.flat[0])
    if first == 0:
        return (0.1 * rng.standard_normal(values.shape)).astype(values.dtype)
    return (first * rng.uniform(0.7, 1.3, values.shape)).astype(values.dtype)


def statistics(batch: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Running mean and variance for a BatchNorm that sees `batch` [N, C, …]: its own, moved by a tenth or so.

    Random ones would let a deep network's activations vanish or blow up, and the outputs say nothing.
    """
    axes = (0, *range(2, batch.ndim))
    mean, variance = batch.mean(axes), batch.var(axes)
    variance = variance + 0.1 * variance.mean() + 1e-3  # a channel that hardly moves would be blown up, rounding errors with it
    mean = mean + 0.1 * np.sqrt(variance) * rng.standard_normal(mean.shape)
    return mean.astype(np.float32), (variance * rng.uniform(0.8, 1.25, variance.shape)).astype(np.float32)


def gain(out: np.ndarray) -> float:
    """What to multiply a layer's weights with so that its output [N, …] differs by about 1 between samples.

    For networks without normalisation, whose default weights let the input's trace fade from layer to layer.
    """
    return float(1 / max(out.std(0).mean(), 1e-6))
