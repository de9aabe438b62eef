"""The same tokens through a source and a session → metrics and a verdict. Knows sessions and arrays, no backends."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import QualityError
from ..runtime import Session

#: How the checked sequence is fed: one prefill, one further chunk, then single tokens. Every path of a cache is walked.
PREFILL, CHUNK, DECODE = 24, 6, 16


@dataclass(frozen=True)
class Limits:
    """What may differ. max_rel: largest |difference| over largest |reference|. kl: mean, in nats. top1: share of equal argmax."""

    max_rel: float
    cosine: float
    kl: float
    top1: float


#: fp32 leaves room for another order of summation only. The 16-bit figures are about four times what correct conversions
#: of random and trained checkpoints show, a tenth of what a wrong rotation, mask or transposition does. With random
#: weights the two best logits can lie closer together than a 16-bit step, hence top1 < 1.
LIMITS: Mapping[str, Limits] = {
    "fp32": Limits(max_rel=1e-4, cosine=0.999999, kl=1e-6, top1=0.95),
    "fp16": Limits(max_rel=3e-2, cosine=0.9995, kl=1e-2, top1=0.85),
    "bf16": Limits(max_rel=1.5e-1, cosine=0.99, kl=1e-1, top1=0.70),
}


@dataclass(frozen=True)
class Metrics:
    """How far `actual` is from `expected`, over all rows and columns. cosine and top1 are the worst row's and the mean."""

    max_abs: float
    max_rel: float
    cosine: float
    kl: float
    top1: float


def compare(expected: np.ndarray, actual: np.ndarray) -> Metrics:
    """Metrics of float arrays [n, V]. Raises QualityError where shapes differ or `actual` holds NaN or infinite values."""
    if expected.shape != actual.shape:
        raise QualityError(f"shapes differ: {list(expected.shape)} expected, {list(actual.shape)} found", "please report this model")
    if not np.isfinite(actual).all():
        raise QualityError("the converted model gives NaN or infinite values", "try --dtype bf16 or fp32: fp16 ends at 65504")
    want, got = expected.astype(np.float64), actual.astype(np.float64)
    max_abs = float(np.abs(want - got).max())
    norms = np.linalg.norm(want, axis=-1) * np.linalg.norm(got, axis=-1)
    cosine = (want * got).sum(-1) / np.maximum(norms, np.finfo(np.float64).tiny)
    log_want, log_got = _log_softmax(want), _log_softmax(got)
    return Metrics(
        max_abs=max_abs,
        max_rel=max_abs / max(float(np.abs(want).max()), np.finfo(np.float32).tiny),
        cosine=float(cosine.min()),
        kl=max(0.0, float((np.exp(log_want) * (log_want - log_got)).sum(-1).mean())),
        top1=float((want.argmax(-1) == got.argmax(-1)).mean()),
    )


def broken(metrics: Metrics, limits: Limits) -> list[str]:
    """What of `metrics` lies outside `limits`, in words; empty when all is well."""
    rules = [
        ("max_rel", metrics.max_rel <= limits.max_rel, "<="),
        ("cosine", metrics.cosine >= limits.cosine, ">="),
        ("kl", metrics.kl <= limits.kl, "<="),
        ("top1", metrics.top1 >= limits.top1, ">="),
    ]
    return [f"{name} {getattr(metrics, name):.3g} (must be {sign} {getattr(limits, name):g})" for name, fine, sign in rules if not fine]


def check_decoder(
    session: Session, expected: Callable[[np.ndarray, list[int]], np.ndarray], precision: str, *, reference: str, seed: int = 0
) -> dict[str, Any]:
    """Feed one seeded sequence to `session` in chunks and compare the logits after each with the source's.

    expected(tokens int64 [S], positions) → logits float32 [n, V]. reference: what computed them, for the record.
    Returns the record for the manifest. Raises QualityError (exit 6) where prefill or cached decode leaves the limits.
    """
    start = time.perf_counter()
    tokens, chunks = _schedule(session, seed)
    ends = [stop - 1 for _, stop in chunks]
    want = expected(tokens, ends)
    got = np.concatenate([session.step(tokens[None, begin:stop]) for begin, stop in chunks])
    limits = LIMITS[precision]
    phases = {"prefill": slice(0, 2), "cached decode": slice(2, None)}
    record: dict[str, Any] = {
        "name": "parity",
        "passed": True,
        "reference": reference,
        "against": f"{session.info.backend} ({session.info.device})",
        "tokens": len(tokens),
        "limits": asdict(limits),
    }
    for phase, rows in phases.items():
        if want[rows].size:
            record[phase] = asdict(_gate(phase, compare(want[rows], got[rows]), limits))
    return {**record, "seconds": round(time.perf_counter() - start, 3)}


def _gate(phase: str, metrics: Metrics, limits: Limits) -> Metrics:
    problems = broken(metrics, limits)
    if problems:
        raise QualityError(
            f"the converted model is not the same model: {phase}: " + ", ".join(problems),
            "nothing was kept; please report the model and this line (--no-verify converts without the check)",
        )
    return metrics


def _schedule(session: Session, seed: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Tokens int64 [S] and the (begin, stop) of each chunk, cut to fit a small context."""
    rng = np.random.default_rng(seed)
    length = min(PREFILL + CHUNK + DECODE, session.info.context)
    tokens = rng.integers(0, session.info.vocab_size, length)
    stops = [stop for stop in (PREFILL, PREFILL + CHUNK, *range(PREFILL + CHUNK + 1, length + 1)) if stop <= length] or [length]
    return tokens, list(zip([0, *stops[:-1]], stops, strict=True))


def _log_softmax(x: np.ndarray) -> np.ndarray:
    shifted = x - x.max(axis=-1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
