"""The next token from logits: penalty, temperature, top-k, top-p, min-p, then one draw. Knows neither text nor sessions.

The same filters in the same order as transformers' logits processors, so that settings carry over.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..errors import QualityError, UsageError

#: Below this a temperature only adds rounding to what is greedy anyway.
_COLD = 1e-4
_LOWEST = np.finfo(np.float32).min


@dataclass(frozen=True)
class Sampling:
    """temperature 0: greedy. top_k 0, top_p 1, min_p 0, repetition_penalty 1: off. Raises UsageError out of range."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, 0, 100)
        _check("top-k", self.top_k, 0, math.inf)
        _check("top-p", self.top_p, 0, 1)
        _check("min-p", self.min_p, 0, 1)
        _check("repetition-penalty", self.repetition_penalty, 0.01, 100)
        _check("seed", self.seed, 0, math.inf)

    @classmethod
    def of(cls, temperature: float | None, top_k: int, top_p: float, min_p: float, repetition_penalty: float, seed: int | None) -> Sampling:
        """From a command line, where None is "not given".

        Greedy by default, so that the same command gives the same answer; top-k, top-p and min-p alone mean temperature 1,
        as they mean nothing at 0. Without a seed one is drawn, to be reported.
        """
        if temperature is None:
            temperature = 1.0 if top_k or top_p < 1 or min_p else 0.0
        return cls(temperature, top_k, top_p, min_p, repetition_penalty, secrets.randbits(31) if seed is None else seed)

    @property
    def greedy(self) -> bool:
        """Whether no chance is involved."""
        return self.temperature < _COLD or self.top_k == 1


def _check(name: str, value: float, low: float, high: float) -> None:
    if not (low <= value <= high) or value == math.inf:  # not (…): NaN fails too
        span = f"{low} to {high}" if high < math.inf else f"{low} or more"
        raise UsageError(f"--{name} {value} makes no sense", f"give --{name} a value of {span}")


class Sampler:
    """Picks tokens for one reply. Prompts of a batch get different `stream` numbers: none depends on its neighbours."""

    def __init__(self, sampling: Sampling, prompt: Iterable[int] = (), stream: int = 0) -> None:
        self._sampling = sampling
        self._random = np.random.default_rng([sampling.seed, stream])
        self._seen = set(prompt) if sampling.repetition_penalty != 1 else set()

    def pick(self, logits: np.ndarray) -> int:
        """The next token. logits: float32 [vocab_size], changed on the way. Raises QualityError where one is no number."""
        if not np.isfinite(logits).all():
            raise QualityError(
                "the model's logits hold NaN or infinity", "it overflows at this precision, or its weights are damaged: try --dtype fp32"
            )
        token = self._draw(filtered(logits, self._sampling, self._seen))
        if self._sampling.repetition_penalty != 1:
            self._seen.add(token)
        return token

    def _draw(self, logits: np.ndarray) -> int:
        if self._sampling.greedy:
            return int(logits.argmax())
        kept = np.flatnonzero(logits > -np.inf)
        cumulative = np.cumsum(_softmax(logits[kept]), dtype=np.float64)
        at = np.searchsorted(cumulative, self._random.random() * cumulative[-1], side="right")
        return int(kept[min(int(at), len(kept) - 1)])


def filtered(logits: np.ndarray, sampling: Sampling, seen: Iterable[int] = ()) -> np.ndarray:
    """What may be drawn: float32 [vocab_size], −inf where a filter said no. `seen`: the tokens of prompt and reply so far."""
    if sampling.repetition_penalty != 1:
        logits = _penalise(logits, seen, sampling.repetition_penalty)
    if sampling.greedy:
        return logits
    with np.errstate(over="ignore"):  # what falls to −inf here had no chance anyway; the shift keeps the largest from rising
        logits = (logits - logits.max()) / np.float32(sampling.temperature)
    if 0 < sampling.top_k < logits.size:
        logits[logits < np.partition(logits, -sampling.top_k)[-sampling.top_k]] = -np.inf
    if sampling.top_p < 1:
        logits = _top_p(logits, sampling.top_p)
    if sampling.min_p > 0:
        probabilities = _softmax(logits)
        logits[probabilities < sampling.min_p * probabilities.max()] = -np.inf
    return logits


def _penalise(logits: np.ndarray, seen: Iterable[int], penalty: float) -> np.ndarray:
    """Make seen tokens less likely: positive logits are divided, negative ones multiplied (CTRL, https://arxiv.org/abs/1909.05858)."""
    ids = np.fromiter((token for token in seen if token < logits.size), np.int64)
    scores = logits[ids]
    with np.errstate(over="ignore"):
        logits[ids] = np.where(scores < 0, scores * penalty, scores / penalty).clip(_LOWEST, -_LOWEST)
    return logits


def _top_p(logits: np.ndarray, top_p: float) -> np.ndarray:
    """Drop the least likely tokens as long as they hold no more than 1 − top_p together; the likeliest always stays.

    Sorts values rather than indices, which is ten times as fast; tokens exactly as likely as the last one kept stay too.
    """
    rising = np.sort(logits[logits > -np.inf])
    dropped = np.searchsorted(np.cumsum(_softmax(rising), dtype=np.float64), 1 - top_p, side="right")
    logits[logits < rising[min(int(dropped), len(rising) - 1)]] = -np.inf
    return logits


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers: np.ndarray = np.exp(logits - logits.max())
    powers /= powers.sum()
    return powers
