"""Each filter, and all together, against transformers' logits processors; then the draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ernie_cli.errors import QualityError, UsageError
from ernie_cli.generation.sampling import Sampler, Sampling, filtered

VOCABULARY = 500
SEEN = [3, 3, 17, 250, 499]
SETTINGS: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 0.7},
    {"temperature": 2.5},
    {"temperature": 1.0, "top_k": 7},
    {"temperature": 1.0, "top_k": 5000},
    {"temperature": 1.0, "top_p": 0.8},
    {"temperature": 1.0, "top_p": 0.0},
    {"temperature": 1.0, "min_p": 0.1},
    {"temperature": 1.0, "min_p": 1.0},
    {"temperature": 1.0, "repetition_penalty": 1.3},
    {"temperature": 0.9, "repetition_penalty": 0.8},
    {"temperature": 0.6, "top_k": 50, "top_p": 0.95, "min_p": 0.02, "repetition_penalty": 1.2},
    {"temperature": 1.7, "top_k": 200, "top_p": 0.5},
    {"temperature": 0.3, "top_p": 0.9, "min_p": 0.3},
]


def logits(seed: int = 0, scale: float = 4.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(VOCABULARY) * scale).astype(np.float32)


def by_transformers(scores: np.ndarray, settings: dict[str, Any]) -> np.ndarray:
    """What generate() would make of the scores: its processors in its order."""
    import torch
    from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList, PretrainedConfig

    defaults = {"top_k": 0, "top_p": 1.0, "do_sample": True}
    config: Any = GenerationConfig(**{**defaults, **settings})
    config._eos_token_tensor = None

    class Anything(GenerationMixin):
        config = PretrainedConfig()

    anything: Any = Anything()
    processors = anything._get_logits_processor(config, input_ids_seq_length=len(SEEN), logits_processor=LogitsProcessorList())
    out: np.ndarray = processors(torch.tensor([SEEN]), torch.tensor(scores)[None])[0].numpy()
    return out


def probabilities(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores.astype(np.float64) - scores.max())
    return powers / powers.sum()


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("scale", [0.1, 4.0, 40.0])
def test_as_transformers_filters(settings: dict[str, Any], scale: float) -> None:
    for seed in range(5):
        expected = by_transformers(logits(seed, scale), settings)
        found = filtered(logits(seed, scale), Sampling(**settings), SEEN)
        np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
        np.testing.assert_allclose(probabilities(found), probabilities(expected), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.0, "top_p": 0.1}, {"temperature": 1e-9}, {"temperature": 1.0, "top_k": 1}])
def test_greedy(settings: dict[str, Any]) -> None:
    assert Sampler(Sampling(**settings)).pick(logits()) == logits().argmax()


def test_greedy_with_penalty_leaves_what_was_said() -> None:
    first = int(logits().argmax())
    sampler = Sampler(Sampling(repetition_penalty=100.0))
    assert sampler.pick(logits()) == first
    assert sampler.pick(logits()) != first  # what the reply said counts
    assert Sampler(Sampling(repetition_penalty=100.0), [first]).pick(logits()) != first  # and what the prompt said


def test_the_draw_follows_the_probabilities() -> None:
    sampler = Sampler(Sampling(temperature=1.0, top_k=4, seed=1))
    draws = np.array([sampler.pick(logits(scale=1.0)) for _ in range(4000)])
    expected = probabilities(filtered(logits(scale=1.0), Sampling(temperature=1.0, top_k=4)))
    np.testing.assert_allclose(np.bincount(draws, minlength=VOCABULARY) / len(draws), expected, atol=0.03)


def test_a_seed_and_a_stream_are_one_sequence() -> None:
    def draws(seed: int, stream: int) -> list[int]:
        sampler = Sampler(Sampling(temperature=1.0, seed=seed), stream=stream)
        return [sampler.pick(logits(scale=1.0)) for _ in range(20)]

    assert draws(1, 0) == draws(1, 0)
    assert len({tuple(draws(seed, stream)) for seed in (1, 2) for stream in (0, 1)}) == 4


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers(bad: float) -> None:
    broken = logits()
    broken[7] = bad
    with pytest.raises(QualityError, match="NaN or infinity"):
        Sampler(Sampling()).pick(broken)


@pytest.mark.parametrize("extreme", [3e38, -3e38])
def test_extreme_logits(extreme: float) -> None:
    scores = logits()
    scores[7] = extreme
    for settings in (*SETTINGS, {"temperature": 1.0, "repetition_penalty": 0.01}):
        assert 0 <= Sampler(Sampling(**settings), [7]).pick(scores.copy()) < VOCABULARY


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_k": -1},
        {"top_p": 1.1},
        {"top_p": -0.1},
        {"min_p": 2.0},
        {"repetition_penalty": 0.0},
        {"seed": -1},
    ],
    ids=str,
)
def test_out_of_range(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"--{next(iter(bad)).replace('_', '-')} ") as caught:
        Sampling(**bad)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("given", "temperature"),
    [
        ((None, 0, 1.0, 0.0), 0.0),
        ((None, 40, 1.0, 0.0), 1.0),
        ((None, 0, 0.9, 0.0), 1.0),
        ((None, 0, 1.0, 0.1), 1.0),
        ((0.5, 40, 0.9, 0.0), 0.5),
        ((0.0, 40, 0.9, 0.0), 0.0),
    ],
)
def test_the_temperature_nobody_gave(given: tuple[Any, ...], temperature: float) -> None:
    assert Sampling.of(*given, 1.0, None).temperature == temperature
