"""Figures of logits, against torch's own functions."""

from __future__ import annotations

import numpy as np
import pytest

from ernie_cli.evaluate import likelihood


def draw(rows: int = 50, width: int = 97, scale: float = 3.0, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((rows, width)) * scale).astype(np.float32)


@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0, 1e30])
def test_nats_and_kl_are_torchs(scale: float) -> None:
    import torch
    from torch.nn import functional

    mine, other, targets = draw(scale=scale), draw(scale=scale, seed=1), np.arange(50) % 97
    found = likelihood.measure(targets, mine, other)
    a, b = torch.from_numpy(mine).double(), torch.from_numpy(other).double()
    assert found["nats"] == pytest.approx(functional.cross_entropy(a, torch.from_numpy(targets), reduction="none").numpy(), rel=1e-12)
    assert found["reference_nats"] == pytest.approx(functional.cross_entropy(b, torch.from_numpy(targets), reduction="none").numpy())
    kl = functional.kl_div(a.log_softmax(-1), b.log_softmax(-1), log_target=True, reduction="none")
    kl = torch.where(b.softmax(-1) > 0, kl, 0.0).sum(-1)
    assert found["kl"] == pytest.approx(kl.numpy(), rel=1e-9, abs=1e-12)
    assert (found["best"] == mine.argmax(-1)).all() and (found["reference_best"] == other.argmax(-1)).all()


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    args = np.arange(50) % 97, draw(), draw(seed=1)
    whole = likelihood.measure(*args)
    monkeypatch.setattr(likelihood, "_BLOCK", 200)
    assert (likelihood.measure(*args) == whole).all()


def test_a_model_against_itself_loses_nothing() -> None:
    found = likelihood.measure(np.arange(50), draw(), draw())
    assert found["kl"] == pytest.approx(0, abs=1e-15) and (found["best"] == found["reference_best"]).all()


def test_what_a_model_rules_out_is_infinitely_unlikely() -> None:
    """-inf is what a mask leaves of a logit: a probability of 0, no error."""
    logits = np.array([[0.0, -np.inf, 0.0]] * 2, np.float32)
    found = likelihood.measure(np.array([0, 1]), logits, logits)
    assert found["nats"].tolist() == [pytest.approx(np.log(2)), np.inf]
    assert found["kl"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_logits_that_are_no_numbers_count_as_the_worst(broken: float) -> None:
    logits = draw(2, 5)
    logits[1, 3] = broken
    found = likelihood.measure(np.array([0, 0]), logits, draw(2, 5))
    assert np.isfinite(found["nats"][0]) and np.isfinite(found["kl"][0])
    assert found["nats"][1] == np.inf and found["kl"][1] == np.inf
