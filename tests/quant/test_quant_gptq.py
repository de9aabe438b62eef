"""GPTQ's codes: better than rounding, the same every time, and sound where inputs are odd."""

import numpy as np
import pytest

from ernie_cli.errors import InputError
from ernie_cli.quant import gptq
from ernie_cli.quant.codes import round_to_nearest
from ernie_cli.quant.moments import SecondMoments, cost, relative_error
from ernie_cli.quant.scheme import WeightFormat

FORM = WeightFormat("int4", 32)


def correlated(rows: int, channels: int, seed: int = 0) -> np.ndarray:
    """Inputs as a network has them: some directions much stronger than others."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(channels, channels)) * np.geomspace(1, 0.02, channels)[:, None]
    return (rng.normal(size=(rows, channels)) @ mixing).astype(np.float32)


def weight(channels: int, outputs: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(channels, outputs)).astype(np.float32)


@pytest.mark.parametrize("block", (32, 64, 128))
def test_loses_less_at_the_output_than_rounding(block: int) -> None:
    form, inputs, dense = WeightFormat("int4", block), correlated(600, 256), weight(256, 48)
    held_out = correlated(2000, 256)[600:]
    rounded = round_to_nearest(dense, form, 1, 0).dequantized()
    made = gptq.codes(dense, inputs.T @ inputs, form)
    assert (made.codes.shape, made.scale.shape, made.axis, made.block) == (dense.shape, (256 // block, 48), 0, block)
    lost, plain = (np.square(held_out @ (each - dense)).sum() for each in (made.dequantized(), rounded))
    assert lost < 0.5 * plain


def test_codes_are_the_same_every_time_and_for_a_factor_made_once() -> None:
    inputs, dense = correlated(300, 96), weight(96, 20)
    products = inputs.T @ inputs
    one, two = gptq.codes(dense, products, FORM), gptq.codes(dense, gptq.factor(products), FORM)
    assert np.array_equal(one.codes.view(np.uint8), two.codes.view(np.uint8)) and np.array_equal(one.scale, two.scale)


def test_rows_by_halves_equal_rows_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, dense = correlated(300, 128), weight(128, 20)
    halves = gptq.codes(dense, inputs.T @ inputs, FORM)
    monkeypatch.setattr(gptq, "_LEAF", 128)
    single = gptq.codes(dense, inputs.T @ inputs, FORM)
    assert np.mean(halves.codes.view(np.uint8) == single.codes.view(np.uint8)) > 0.99


def test_the_factor_is_that_of_the_inverse() -> None:
    inputs = correlated(500, 150)
    products = (inputs.T @ inputs).astype(np.float64)
    made = gptq.factor(products)
    damped = products / products.diagonal().mean() + gptq.DAMPING * np.eye(150)
    whole = made.upper.astype(np.float64).T @ made.upper
    np.testing.assert_allclose(whole @ damped[np.ix_(made.order, made.order)], np.eye(150), atol=1e-3)
    assert not np.tril(made.upper, -1).any()


@pytest.mark.parametrize(
    "products",
    (np.zeros((64, 64)), np.ones((64, 64)), -np.ones((64, 64)) + 2 * np.eye(64), np.diag(np.r_[np.ones(10), np.zeros(54)])),
    ids=("nothing seen", "one direction", "not positive definite", "dead channels"),
)
def test_odd_moments_give_codes_no_worse_than_rounding_would_give_the_weight(products: np.ndarray) -> None:
    dense = weight(64, 8)
    made = gptq.codes(dense, products, FORM).dequantized()
    assert np.isfinite(made).all()
    dead = products.diagonal() == 0
    rounded = round_to_nearest(dense, FORM, 1, 0).dequantized()
    np.testing.assert_array_equal(made[dead], rounded[dead])


def test_odd_weights() -> None:
    inputs = correlated(300, 64)
    products = inputs.T @ inputs
    zero = gptq.codes(np.zeros((64, 3), np.float32), products, FORM)
    assert not zero.dequantized().any() and (zero.scale == 1).all()
    half = gptq.codes(weight(64, 3).astype(np.float16), products, FORM, np.float16)
    assert half.scale.dtype == np.float16
    with pytest.raises(FloatingPointError):
        gptq.codes(np.full((64, 3), np.nan, np.float32), products, FORM)


def test_moments_do_not_depend_on_batches_and_see_what_is_not_finite() -> None:
    rows = correlated(700, 24)
    sums = []
    for size in (1, 7, 700):
        moments = SecondMoments(24)
        for start in range(0, 700, size):
            moments.add(rows[start : start + size].reshape(1, -1, 24))
        sums.append((moments.products.copy(), moments.means.copy(), moments.count))
    for products, means, count in sums[1:]:
        assert np.array_equal(products, sums[0][0]) and np.array_equal(means, sums[0][1]) and count == 700
    np.testing.assert_allclose(sums[0][0], rows.T.astype(np.float64) @ rows, rtol=1e-4, atol=1e-4 * np.abs(sums[0][0]).max())
    np.testing.assert_allclose(sums[0][1], np.abs(rows).mean(axis=0), rtol=1e-5)
    moments.add(np.full((1, 24), np.inf, np.float32))
    with pytest.raises(InputError, match="`here` is not finite"):
        moments.check("here")


def test_the_cost_is_the_squared_error_at_the_output() -> None:
    inputs, dense, error = correlated(100, 32), weight(32, 6), weight(32, 6, seed=2) / 10
    products = inputs.T @ inputs
    np.testing.assert_allclose(cost(error, products), np.square(inputs @ error).sum(), rtol=1e-3)
    expected = np.square(inputs @ error).sum() / np.square(inputs @ dense).sum()
    np.testing.assert_allclose(relative_error(dense, dense + error, products), expected, rtol=1e-3)
    assert relative_error(np.zeros_like(dense), dense * 0) == 0
