"""What is fed: lengths of dynamic axes, plausible values, and arrays of the user's."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import parity_nets as nets
import pytest

from ernie_cli.errors import InputError, UsageError
from ernie_cli.model import Model
from ernie_cli.parity import axes as lengths
from ernie_cli.parity.arrays import feeds_from
from ernie_cli.parity.feeds import draw
from ernie_cli.parity.hints import facts_of
from ernie_cli.runtime.graphs import TensorSpec

PICTURE = TensorSpec("image", "float32", ("batch", 3, "h", "w"))
IDS = TensorSpec("input_ids", "int64", (None, None))
MASK = TensorSpec("attention_mask", "int64", (None, None))


def sizes(**named: int) -> dict[str, int]:
    return named


def test_axes_of_one_name_are_one_and_nameless_ones_their_own() -> None:
    found = lengths.dynamic_axes([PICTURE, TensorSpec("more", "float32", ("batch", 7)), IDS])
    assert [(axis.name, axis.kind) for axis in found] == [
        ("batch", "batch"), ("h", "space"), ("w", "space"), ("input_ids[0]", "batch"), ("input_ids[1]", "length"),
    ]  # fmt: skip
    assert found[0].places == (("image", 0), ("more", 0))


def test_the_first_try_sets_different_lengths_apart() -> None:
    specs = [TensorSpec("a", "float32", ("batch", "queries", 8)), TensorSpec("b", "float32", ("batch", "keys", 8))]
    tries = list(lengths.typical(lengths.dynamic_axes(specs)))
    assert tries[0] == sizes(batch=2, queries=6, keys=9)
    assert tries[1] == sizes(batch=2, queries=6, keys=6)


def test_nameless_axes_vary_alone_then_together() -> None:
    axes = lengths.dynamic_axes([IDS, MASK])
    base = {axis.name: 2 for axis in axes}
    tries = list(lengths.odd(axes[1], axes, base))
    assert tries[0] == {**base, "input_ids[1]": 11}
    assert {**base, "input_ids[1]": 11, "attention_mask[1]": 11} in tries


def test_unknown_rank_asks_for_input() -> None:
    with pytest.raises(UsageError) as caught:
        lengths.dynamic_axes([TensorSpec("x", "float32", None)])
    assert "--input x:" in caught.value.hint


@pytest.mark.parametrize(
    ("spec", "low", "high"),
    [
        (PICTURE, 0, 1),
        (TensorSpec("image", "uint8", (2, 8, 8, 3)), 0, 255),
        (TensorSpec("x", "float64", (4, 100)), -6, 6),
        (IDS, 0, 999),
        (MASK, 0, 1),
        (TensorSpec("token_type_ids", "int32", (2, 9)), 0, 1),
        (TensorSpec("position_ids", "int64", (2, 9)), 0, 8),
        (TensorSpec("seq_lens", "int64", (3,)), 1, 5),
        (TensorSpec("flags", "bool", (50,)), 0, 1),
        (TensorSpec("scale_factor", "float32", (1, 2)), 1, 1),
        (TensorSpec("scalar", "float16", ()), -6, 6),
        (TensorSpec("h", "bfloat16", (3, 4)), -6, 6),
    ],
)
def test_plausible_ranges(spec: TensorSpec, low: float, high: float) -> None:
    where = {"batch": 2, "h": 16, "w": 16, f"{spec.name}[0]": 3, f"{spec.name}[1]": 5}
    other = TensorSpec("features", "float32", (3, 5, 4))
    array = draw([spec, other], where)[spec.name]
    assert array.dtype.name == spec.dtype and array.shape == lengths.shape_of(spec, where)
    assert low <= float(array.min()) and float(array.max()) <= high


def test_seeds_repeat_and_differ() -> None:
    where = sizes(batch=2, h=4, w=4)
    first, again, other = (draw([PICTURE], where, seed=seed)["image"] for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_ids_reach_the_last_row_of_their_table_and_no_further() -> None:
    ids = draw([IDS], {"input_ids[0]": 2, "input_ids[1]": 9}, rows={"input_ids": 17})["input_ids"]
    assert ids.max() == 16
    assert draw([IDS], {"input_ids[0]": 2, "input_ids[1]": 9}, rows={"input_ids": 17}, cap=2)["input_ids"].max() == 1


def test_padding_is_at_the_end_of_every_row_but_the_first() -> None:
    mask = draw([MASK], {"attention_mask[0]": 4, "attention_mask[1]": 12})["attention_mask"]
    assert mask[0].all() and (np.diff(mask, axis=1) <= 0).all() and (mask.sum(1) >= 6).all()
    assert not mask.all()


def test_the_table_that_ids_go_to_is_found(tmp_path: Path) -> None:
    facts = facts_of(Model.open(nets.transformer(tmp_path / "model.onnx")))
    assert facts.rows == {"input_ids": 50} and facts.precision == "fp32"


@pytest.mark.parametrize("by_name", [True, False])
def test_arrays_of_the_user(tmp_path: Path, by_name: bool) -> None:
    specs = [TensorSpec("x", "float32", ("n", 2)), TensorSpec("h", "bfloat16", (3,))]
    x, h = np.ones((5, 2), np.float32), np.arange(3).astype(ml_dtypes.bfloat16)
    np.savez(tmp_path / "in.npz", *([] if by_name else [x, h]), **({"h": h, "x": x} if by_name else {}))
    feeds = feeds_from(str(tmp_path / "in.npz"), specs)
    assert np.array_equal(feeds["x"], x) and feeds["h"].dtype == h.dtype and feeds["h"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("arrays", "error", "says"),
    [
        ({"y": np.ones(2, np.float32)}, UsageError, "no array for `x`"),
        ({"x": np.ones(2, np.float64)}, UsageError, "float64"),
        ({"x": np.ones((2, 2), np.float32)}, UsageError, "shape"),
        ({"arr_0": np.ones(2, np.float32), "arr_1": np.ones(2, np.float32)}, UsageError, "2 arrays for 1 inputs"),
        ({"x": np.array([{}], object)}, InputError, "npz"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, arrays: dict[str, np.ndarray], error: type[Exception], says: str) -> None:
    np.savez(tmp_path / "in.npz", **arrays)
    with pytest.raises(error, match=says):
        feeds_from(str(tmp_path / "in.npz"), [TensorSpec("x", "float32", ("n",))])
