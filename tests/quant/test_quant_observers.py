"""Ranges of activations: right by their own definition, the same whatever the batches, defined for every degenerate input."""

from __future__ import annotations

import contextlib
import io
import math

import ml_dtypes
import numpy as np
import pytest

from ernie_cli.errors import UsageError
from ernie_cli.quant.calibrate.histogram import OCTAVES, Histogram
from ernie_cli.quant.calibrate.observers import NAMES, observer
from ernie_cli.quant.scheme import TYPES

KINDS = ("int8", "fp8")
RNG = np.random.default_rng(0)
SHAPES = {
    "normal": RNG.normal(size=20_000),
    "laplace": RNG.laplace(size=20_000),
    "heavy tails": RNG.standard_t(2, size=20_000),
    "relu": np.maximum(RNG.normal(size=20_000), 0),
    "nearly all zero": np.maximum(RNG.normal(size=20_000) - 3, 0),
    "few far out": np.concatenate([RNG.normal(size=20_000), [900.0, -800.0]]),
    "tiny": RNG.normal(size=20_000) * 1e-12,
    "huge": RNG.normal(size=20_000) * 1e30,
    "over forty octaves": np.exp2(RNG.uniform(-30, 10, size=20_000)),
}
ARRAYS = {name: array.astype(np.float32) for name, array in SHAPES.items()}


def seen(name: str, *arrays: np.ndarray, kind: str = "int8") -> float:
    watching = observer(name)
    for array in arrays:
        watching.add(array)
    return watching.threshold(kind)


def coded(values: np.ndarray, threshold: float, kind: str) -> np.ndarray:
    """What a QuantizeLinear → DequantizeLinear pair gives, written down independently."""
    largest = TYPES[kind][0]
    scale = threshold / largest
    codes = np.clip(values.astype(np.float64) / scale, -largest, largest)
    return (np.rint(codes) if kind == "int8" else codes.astype(ml_dtypes.float8_e4m3fn).astype(np.float64)) * scale


def loss(values: np.ndarray, threshold: float, kind: str) -> float:
    return float(np.square(coded(values, threshold, kind) - values).mean())


# --- what does not matter -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*NAMES, "percentile:99.9"])
@pytest.mark.parametrize("shape", ARRAYS)
def test_order_batches_and_signs_change_no_bit(name, shape):
    values, whole, pieces = ARRAYS[shape], observer(name), observer(name)
    whole.add(values)
    rng = np.random.default_rng(len(shape))
    cuts = np.sort(rng.integers(0, values.size, rng.integers(1, 300)))
    for piece in np.split(rng.permutation(values) * rng.choice([-1, 1], values.size).astype(np.float32), cuts):
        pieces.add(piece)
    assert [pieces.threshold(kind) for kind in KINDS] == [whole.threshold(kind) for kind in KINDS]


def test_rising_and_falling_values_count_alike():
    values = np.sort(ARRAYS["over forty octaves"])
    for name in NAMES:
        assert seen(name, *values.reshape(400, -1)) == seen(name, *values[::-1].reshape(400, -1))


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32", ml_dtypes.bfloat16])
def test_other_types_and_strides_are_taken(dtype):
    values = np.arange(-60, 60).astype(dtype).reshape(10, 12)
    assert seen("minmax", values.T[::2], kind="int8") == np.abs(values.T[::2].astype(float)).max()


# --- the histogram --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ARRAYS)
def test_bins_count_every_value_once_where_it_is(shape):
    values = np.abs(ARRAYS[shape]).astype(np.float64)
    histogram = Histogram()
    histogram.add(ARRAYS[shape])
    edges, counts = histogram.bins()
    assert counts.sum() == values.size and histogram.largest == values.max() == edges[-1, 1]
    inner = edges[1:] if edges[0, 0] == 0 else edges
    assert (inner[:, 1] <= inner[:, 0] * (1 + 2**-10)).all() and (edges[1:, 0] >= edges[:-1, 1]).all()
    for place in range(0, len(edges), max(1, len(edges) // 50)):
        low, high = edges[place]
        top = values <= high if place == len(edges) - 1 else values < high
        assert counts[place] == ((values >= low) & top).sum()
    assert edges[0, 1] <= values.max() * 2.0 ** -(OCTAVES - 2) or edges[0, 0] > 0


def test_memory_is_what_it_says():
    watching = observer("mse")
    watching.add(np.ones(1 << 20, np.float32))
    histogram = watching.histogram
    assert histogram._counts.nbytes <= watching.nbytes and histogram._count < 1 << 16


# --- what each observer means ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ARRAYS)
def test_minmax_is_the_largest(shape, kind):
    assert seen("minmax", ARRAYS[shape], kind=kind) == np.abs(ARRAYS[shape]).max()


@pytest.mark.parametrize("percent", [50.0, 99.0, 99.9])
@pytest.mark.parametrize("shape", ["normal", "laplace", "heavy tails", "relu"])
def test_percentile_is_that_of_what_is_not_zero(shape, percent):
    values = np.sort(np.abs(ARRAYS[shape][ARRAYS[shape] != 0]))
    wanted = values[round(percent / 100 * values.size + 0.49) - 1]
    assert seen(f"percentile:{percent}", ARRAYS[shape]) == pytest.approx(wanted, rel=0.01)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ARRAYS)
def test_mse_is_the_least_of_all_thresholds(shape, kind):
    values = ARRAYS[shape]
    if shape == "huge":
        values = values / np.float32(1e30)  # its squares would leave float64's comfortable range, no more
    largest = float(np.abs(values).max())
    least = min(loss(values, largest * share, kind) for share in np.geomspace(1 / 250, 1, 100))
    assert loss(values, seen("mse", values, kind=kind), kind) <= 1.02 * least


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", ARRAYS)
def test_mse_loses_no_more_than_any_other(shape, name):
    values = ARRAYS[shape]
    for kind in KINDS:
        assert loss(values, seen("mse", values, kind=kind), kind) <= 1.005 * loss(values, seen(name, values, kind=kind), kind)


def test_fp8_hardly_clips_where_int8_does():
    """Relative steps: the largest values cost little, so clipping them gains nothing."""
    values = ARRAYS["few far out"]
    assert seen("mse", values, kind="fp8") > 0.95 * 900
    values = np.concatenate([ARRAYS["normal"], np.array([6.0], np.float32)])
    assert seen("mse", values, kind="int8") < 0.95 * 6 < seen("mse", values, kind="fp8")


def migacz(values: np.ndarray) -> float:
    """The slides' procedure word by word: every number of bins from 128 to 2048, the best one's edge."""
    largest = np.abs(values).max()
    bins = np.histogram(np.abs(values), 2048, (0, largest))[0].astype(float)
    bins[0] = bins[1]
    best, kept = math.inf, 2048
    for count in range(2048, 127, -1):
        reference = bins[:count].copy()
        reference[-1] += bins[count:].sum()
        filled, begins = bins[:count] > 0, [-(-code * count // 128) for code in range(128)]
        means = np.add.reduceat(bins[:count], begins) / np.maximum(1, np.add.reduceat(filled.astype(float), begins))
        quantised = np.where(filled, np.repeat(means, np.diff([*begins, count])), 0)
        inside = reference > 0
        if (quantised[inside] == 0).any():
            continue
        p, q = reference[inside] / reference.sum(), quantised[inside] / quantised.sum()
        if (divergence := float((p * np.log(p / q)).sum())) < best:
            best, kept = divergence, count
    return float(largest * kept / 2048)


@pytest.mark.parametrize("shape", ["normal", "laplace", "relu"])
def test_entropy_is_what_the_slides_describe(shape):
    values = np.concatenate([ARRAYS[shape], np.random.default_rng(1).permutation(ARRAYS[shape]) * np.float32(0.99)])
    mine, wanted = seen("entropy", values), migacz(values)
    assert mine == pytest.approx(wanted, rel=0.06)


# --- against a peer on the same arrays --------------------------------------------------------------------------------------


def theirs(method: str, values: np.ndarray) -> float:
    from onnxruntime.quantization.calibrate import HistogramCollector

    with contextlib.redirect_stdout(io.StringIO()):
        collector = HistogramCollector(method, True, 128 if method == "entropy" else 2048, 128, 99.999, "same")
        collector.collect({"x": values})
        return float(np.abs(collector.compute_collection_result()["x"][:2]).max())


@pytest.mark.parametrize("method", ["percentile", "entropy"])
@pytest.mark.parametrize("shape", ["normal", "laplace", "heavy tails", "relu", "nearly all zero", "few far out"])
def test_ours_lose_no_more_than_onnxruntimes(shape, method):
    pytest.importorskip("onnxruntime.quantization.calibrate", reason="the peer needs its own dependencies")
    values = ARRAYS[shape]
    assert loss(values, seen("mse", values), "int8") <= loss(values, theirs(method, values), "int8") * 1.02


# --- degenerate inputs ------------------------------------------------------------------------------------------------------

DEGENERATE = {
    "nothing": [],
    "an empty array": [np.zeros((0, 3))],
    "zeros": [np.zeros((2, 3))],
    "one number": [np.array(0.25)],
    "all equal": [np.full(1000, -3.7)],
    "the smallest normal": [np.full(10, np.finfo(np.float32).tiny)],
    "a subnormal": [np.full(10, 1e-44)],
    "the largest": [np.full(10, np.finfo(np.float32).max)],
    "zeros and one": [np.zeros(100_000), np.ones(1)],
    "from smallest to largest": [np.array([1e-44, 1e-30, 1.0, 3e38])],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", DEGENERATE)
def test_threshold_is_above_zero_and_finite(case, name, kind):
    found = seen(name, *(array.astype(np.float32) for array in DEGENERATE[case]), kind=kind)
    assert 0 < found < math.inf


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_zeros_make_the_scale_one_and_a_constant_is_exact(name, kind):
    assert seen(name, np.zeros(5), kind=kind) / TYPES[kind][0] == 1.0
    constant = np.full(1000, -3.7, np.float32)
    assert coded(constant, seen(name, constant, kind=kind), kind) == pytest.approx(constant, rel=1e-3)


def test_what_is_not_finite_is_told_and_left_out():
    watching = observer("minmax")
    watching.add(np.array([1.0, np.nan, -np.inf, 2.0, np.inf], np.float32))
    watching.add(np.array([np.nan], np.float32))
    assert (watching.threshold("int8"), watching.histogram.bad) == (2.0, 4)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("mean", "minmax"), ("percentil", "percentile"), ("percentile:101", "99.9"), ("percentile:x", "99.9"), ("percentile:0", "99.9")],
)
def test_unknown_names_are_refused(name, hint):
    with pytest.raises(UsageError) as err:
        observer(name)
    assert hint in err.value.hint
