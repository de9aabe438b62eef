"""Figures computed by hand, torch's own judgement, and the errors that figures of a whole output would hide."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ernie_cli.errors import UsageError
from ernie_cli.parity.metrics import compare
from ernie_cli.parity.tolerance import Tolerance, tolerances

F = np.float32


def test_figures_by_hand() -> None:
    found = compare(np.array([[3.0, 4.0], [0.0, 0.0]], F), np.array([[3.0, 3.0], [0.0, 0.0]], F))
    assert (found.max_abs, found.max_rel, found.mean_abs) == (1.0, 0.25, 0.25)
    assert found.cosine == pytest.approx((9 + 12) / (5 * math.sqrt(18)))
    assert found.snr_db == pytest.approx(20 * math.log10(5 / 1))
    assert (found.top1, found.equal) == (0.5, 0.75)
    assert not found.passed


@pytest.mark.parametrize(
    "array", [np.zeros((2, 3), F), np.ones((), F), np.empty((0, 4), F), np.arange(5), np.array([True]), np.full(3, np.nan)]
)
def test_the_same_is_the_same(array: np.ndarray) -> None:
    found = compare(array, array.copy())
    assert found.passed
    assert (found.max_abs, found.max_rel, found.snr_db, found.equal) == (0, 0, None, 1)


@pytest.mark.parametrize(
    ("want", "got", "says"),
    [
        ([1.0, 2.0], [1.0, np.nan], "1 NaN where the source has none"),
        ([1.0, np.nan], [1.0, 2.0], "1 numbers where the source has NaN"),
        ([1.0, 2.0], [np.inf, np.inf], "2 infinite"),
        ([np.inf, 2.0], [-np.inf, 2.0], "1 infinite"),
        ([1, 2], [1, 3], "50.00% of the elements differ"),
        ([2**53, 1], [2**53 + 1, 1], "50.00% of the elements differ"),
        ([True, False], [True, True], "50.00%"),
        ([1.0, 2.0], [[1.0, 2.0]], r"shape \[1, 2\]"),
        ([1.0, 2.0], [1.0, 2.001], "max_rel"),
        ([1e5, 1.0], [1e5, 1.5], None),  # 5e-6 of the output: rounding, of which one element alone is no slice
    ],
)
def test_verdicts(want: list[float], got: list[float], says: str | None) -> None:
    kind = F if isinstance(want[0], float) else None
    found = compare(np.array(want, kind), np.array(got, kind))
    if says is None:
        assert found.passed
    else:
        with pytest.raises(AssertionError, match=says):
            assert found.passed, "; ".join(found.problems)


def test_nan_and_infinities_in_both_are_the_same() -> None:
    array = np.array([np.nan, np.inf, -np.inf, 1.0], F)
    found = compare(array, array)
    assert found.passed and (found.nans, found.infs) == (1, 2)


@pytest.mark.parametrize("mask", [-1e9, float(np.finfo(F).min)])
def test_masks_do_not_hide_errors(mask: float) -> None:
    want = np.array([[0.5, -0.25, mask, mask], [0.1, mask, mask, mask]], F)
    got = want.copy()
    assert compare(want, got).passed
    got[0, 1] = 0.25
    assert not compare(want, got).passed
    assert not compare(want, np.where(want == F(mask), F(0), want)).passed


def noisy(want: np.ndarray, relative: float, seed: int = 1) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(want.shape)
    return (want + relative * np.abs(want).max() * noise).astype(want.dtype)


@pytest.mark.parametrize("rows", [1, 2, 64])
@pytest.mark.parametrize("relative", [0, 1e-8, 1e-7, 1e-6, 3e-6])
def test_rounding_passes_however_small_a_column_is(rows: int, relative: float) -> None:
    """Noise of the whole output's size in every column, as sums of large numbers leave it."""
    want = np.random.default_rng(0).standard_normal((rows, 40)).astype(F)
    want[:, 7] *= F(1e-3)
    want[:, 8] *= F(1e-6)
    assert compare(want, noisy(want, relative)).passed


@pytest.mark.parametrize("rows", [1, 2, 64])
@pytest.mark.parametrize("axis", [1, 2])
def test_a_bias_missing_from_one_small_column_is_seen(rows: int, axis: int) -> None:
    """3 % of a column that is a thousand times smaller than the rest: 3e-5 of the output, below the limit for the whole."""
    shape = (rows, 16, 12)
    want = np.random.default_rng(0).standard_normal(shape).astype(F)
    small = (slice(None), 7) if axis == 1 else (slice(None), slice(None), 7)
    want[small] *= F(1e-3)
    got = noisy(want, 1e-7)
    assert compare(want, got).passed
    got[small] += F(0.03 * np.abs(want[small]).max() + 2e-5)
    found = compare(want, got)
    assert found.max_rel < 1e-4 and not found.passed
    assert found.slice == f"index 7 of axis {axis}"


@pytest.mark.parametrize(("precision", "relative"), [("fp16", 3e-3), ("bf16", 2e-2), ("fp64", 1e-12)])
def test_each_precision_has_its_own_rounding(precision: str, relative: float) -> None:
    want = np.random.default_rng(0).standard_normal((4, 30))
    assert compare(want, noisy(want, relative), precision=precision).passed
    assert not compare(want, noisy(want, 60 * relative if precision != "fp64" else 1e-7), precision=precision).passed


@pytest.mark.parametrize("seed", range(40))
def test_torch_judges_alike(seed: int) -> None:
    rng = np.random.default_rng(seed)
    want = rng.standard_normal((3, 5)).astype(F)
    rtol, atol = 10.0 ** rng.uniform(-6, -2), 10.0 ** rng.uniform(-7, -2)
    got = (want + (atol + rtol * np.abs(want)) * rng.uniform(-1.3 if seed % 2 else -0.99, 0.99, want.shape)).astype(F)
    try:
        torch.testing.assert_close(torch.tensor(got), torch.tensor(want), rtol=rtol, atol=atol)
        close = True
    except AssertionError:
        close = False
    assert compare(want, got, tolerance=Tolerance(rtol, atol)).passed == close


def test_torch_judged_both_ways() -> None:
    """The test above would prove nothing if all of its cases were close."""
    verdicts = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        rng.standard_normal((3, 5)), rng.uniform(), rng.uniform()
        verdicts.add(bool((rng.uniform(-1.3 if seed % 2 else -0.99, 0.99, (3, 5)) < -1).any()))
    assert verdicts == {True, False}


@pytest.mark.parametrize(
    ("tolerance", "passes"),
    [
        (Tolerance(rtol=0.2), True),
        (Tolerance(rtol=0.05), False),
        (Tolerance(atol=1), True),
        (Tolerance(atol=0.9), False),
        (Tolerance(0, 0), False),
    ],
)
def test_tolerances_of_integers_and_of_the_largest(tolerance: Tolerance, passes: bool) -> None:
    assert compare(np.array([10, 1, 0]), np.array([10, 2, 0]), tolerance=tolerance).passed is passes


def test_tolerances_by_name() -> None:
    found = tolerances(["1e-3", "b=0.1"], ["a=2"], ["a", "b", "c"])
    assert found == {"a": Tolerance(1e-3, 2.0), "b": Tolerance(0.1), "c": Tolerance(1e-3)}
    assert tolerances([], [], ["a"]) == {}


@pytest.mark.parametrize("text", ["x", "-1", "nan", "inf", "a=", "d=1e-3", ""])
def test_tolerances_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError, match="--rtol"):
        tolerances([text], [], ["a", "b"])


def test_a_tolerance_given_twice() -> None:
    with pytest.raises(UsageError, match="twice"):
        tolerances([], ["a=1", "a=2"], ["a"])
