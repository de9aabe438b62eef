"""Logits → how likely the right tokens are, and how far two models' predictions lie apart. float64 inside. Knows no models."""

from __future__ import annotations

import numpy as np

#: Elements that are worked on at a time: what a core's cache holds of float64 arrays. (Four times as many take twice the time.)
_BLOCK = 1 << 17
#: nats: -log p(target). best: the likeliest token. With a reference: the same of it, and KL(reference ‖ model).
FIELDS = np.dtype([("nats", "f8"), ("best", "i8"), ("reference_nats", "f8"), ("reference_best", "i8"), ("kl", "f8")])


def measure(targets: np.ndarray, logits: np.ndarray, reference: np.ndarray | None = None) -> np.ndarray:
    """Of each prediction float32 [n, V] of targets int64 [n], as the fields of FIELDS; the last three are 0 without a reference.

    Natural logarithms (nats). Where a model gives no finite numbers, figures are infinite.
    """
    result = np.zeros(len(targets), FIELDS)
    rows = max(1, _BLOCK // logits.shape[-1])
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, len(targets), rows):
            part = slice(start, start + rows)
            _block(result[part], targets[part], logits[part], None if reference is None else reference[part])
    return result


def _block(out: np.ndarray, targets: np.ndarray, logits: np.ndarray, reference: np.ndarray | None) -> None:
    each = np.arange(len(targets))
    mine, _, total = _shifted(logits)
    out["nats"] = _or_infinite(np.log(total) - mine[each, targets])
    out["best"] = logits.argmax(-1)
    if reference is None:
        return
    theirs, powers, other = _shifted(reference)
    out["reference_nats"] = _or_infinite(np.log(other) - theirs[each, targets])
    out["reference_best"] = reference.argmax(-1)
    theirs -= mine
    if not np.isfinite(theirs).all():
        theirs[powers == 0] = 0.0  # what the reference rules out costs nothing
    # sum of p · (log p - log q), with p = powers / other: two sums of exponentials are all that it takes
    out["kl"] = _or_infinite(np.einsum("ij,ij->i", powers, theirs) / other - np.log(other) + np.log(total))


def _shifted(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits less the row's largest, so that nothing overflows; e to that; its sum over the row."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    powers = np.exp(wide)
    return wide, powers, powers.sum(axis=-1)


def _or_infinite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(values), np.inf, values)
