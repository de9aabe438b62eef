"""Which shapes an engine takes, and what is said of those that it does not."""

from __future__ import annotations

import pytest

from ernie_cli.errors import UsageError
from ernie_cli.runtime.tensorrt_io import Port, Range, profile_for


def vision(*ranges: tuple[int, int, int]) -> Port:
    """x of [N, 3, 32, 32], a profile per (least, best, most) N."""
    return Port("x", "float32", (-1, 3, 32, 32), ranges=tuple(Range(*((n, 3, 32, 32) for n in each)) for each in ranges))


Y = Port("y", "float32", (-1, 10), is_input=False)


@pytest.mark.parametrize(
    ("ranges", "batch", "profile"),
    [
        ([(1, 4, 8)], 1, 0),
        ([(1, 4, 8)], 8, 0),
        ([(1, 4, 8), (1, 1, 1)], 1, 1),  # the narrower one
        ([(1, 1, 1), (1, 4, 8)], 2, 1),
        ([(1, 4, 8), (9, 16, 16)], 9, 1),
    ],
)
def test_the_narrowest_profile_that_takes_the_shapes(ranges: list[tuple[int, int, int]], batch: int, profile: int) -> None:
    assert profile_for([vision(*ranges), Y], {"x": (batch, 3, 32, 32)}) == profile


@pytest.mark.parametrize(
    ("shape", "said", "hint"),
    [
        ((9, 3, 32, 32), "`x` is 9x3x32x32: the engine was built for 1x3x32x32 to 8x3x32x32", "--shape x:1x3x32x32,4x3x32x32,9x3x32x32"),
        ((4, 3, 16, 32), "4x3x16x32", "--shape x:1x3x16x32,4x3x32x32,8x3x32x32"),
        ((3, 32, 32), r"\[3, 32, 32\], 4 axes", "1x3x32x32 to 8x3x32x32"),
    ],
)
def test_other_shapes_are_refused_with_the_range(shape: tuple[int, ...], said: str, hint: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        profile_for([vision((1, 4, 8)), Y], {"x": shape})
    assert hint in raised.value.hint


def test_two_profiles_are_both_named() -> None:
    with pytest.raises(UsageError, match=r"1x3x32x32 or 4x3x32x32 to 8x3x32x32"):
        profile_for([vision((1, 1, 1), (4, 4, 8))], {"x": (2, 3, 32, 32)})


def test_shapes_that_only_different_profiles_take() -> None:
    ids = Port("ids", "int64", (-1,), ranges=(Range((1,), (1,), (1,)), Range((2,), (2,), (9,))))
    mask = Port("mask", "int64", (-1,), ranges=(Range((1,), (1,), (1,)), Range((2,), (2,), (9,))))
    with pytest.raises(UsageError, match="together") as raised:
        profile_for([ids, mask], {"ids": (1,), "mask": (5,)})
    assert raised.value.hint == "it takes ids 1, mask 1; or ids 2 to 9, mask 2 to 9"


def test_a_model_without_inputs_has_a_profile() -> None:
    assert profile_for([Y], {}) == 0


@pytest.mark.parametrize(
    ("port", "shape"),
    [
        (vision((1, 4, 8)), (None, 3, 32, 32)),
        (vision((4, 4, 4)), (4, 3, 32, 32)),  # free in the network, fixed by the one profile
        (vision((4, 4, 4), (8, 8, 8)), (None, 3, 32, 32)),
        (Y, (None, 10)),
        (Port("scalar", "float32", ()), ()),
    ],
)
def test_as_graph_models_show_it(port: Port, shape: tuple[int | None, ...]) -> None:
    spec = port.spec()
    assert (spec.name, spec.dtype, spec.shape) == (port.name, port.dtype, shape)
