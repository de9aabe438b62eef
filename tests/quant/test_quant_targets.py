"""Which profile runs which scheme, as a table; what is said where it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ernie_cli import device
from ernie_cli.errors import UnsupportedError
from ernie_cli.quant import targets
from ernie_cli.quant.scheme import find, schemes

INT8 = {"int8", "int8-weight", "int8-kv"}
INT4 = {"int4"}
FP8 = {"fp8", "fp8-weight", "fp8-kv"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cpu", INT8 | INT4 | FP8),
        ("v100", INT8),
        ("t4", INT8),
        ("a100", INT8 | INT4),
        ("rtx3090", INT8 | INT4),
        ("jetson-orin-nano", INT8 | INT4),
        ("jetson-orin-nx", INT8 | INT4),
        ("jetson-agx-orin", INT8 | INT4),
        ("l4", INT8 | INT4 | FP8),
        ("l40s", INT8 | INT4 | FP8),
        ("rtx4090", INT8 | INT4 | FP8),
        ("h100", INT8 | INT4 | FP8),
        ("h200", INT8 | INT4 | FP8),
        ("jetson-thor", INT8 | INT4 | FP8),  # 11.0 is more than 8.9
        ("rtx5090", INT8 | INT4 | FP8),
    ],
)
def test_what_a_device_runs(name, expected):
    found = targets.able(device.load(name))
    assert set(found) == expected
    assert found == sorted(found)


def test_every_profile_is_in_the_table():
    assert {name for name in device.names() if set(targets.able(device.load(name))) - set(schemes())} == set()
    assert all(targets.able(device.load(name)) for name in device.names())


@pytest.mark.parametrize("name", device.names())
@pytest.mark.parametrize("scheme", sorted(schemes()))
def test_check_and_able_agree(name, scheme):
    target = device.load(name)
    try:
        targets.check(find(scheme), target)
        refused = False
    except UnsupportedError:
        refused = True
    assert refused == (scheme not in targets.able(target))


@pytest.mark.parametrize(
    ("scheme", "name", "instead"),
    [
        ("fp8", "t4", "int8"),
        ("fp8-weight", "a100", "int8-weight"),
        ("fp8-kv", "jetson-orin-nano", "int8-kv"),
        ("int4", "t4", "int8-weight"),
    ],
)
def test_a_refusal_names_the_nearest_that_runs(scheme, name, instead):
    with pytest.raises(UnsupportedError) as caught:
        targets.check(find(scheme), device.load(name))
    assert caught.value.exit_code == 4
    assert f"{name} cannot run {scheme}" in caught.value.message and "compute capability" in caught.value.message
    assert caught.value.hint.startswith(f"--to {instead} ")


def test_bfloat16_graphs_need_ampere():
    with pytest.raises(UnsupportedError, match=r"bfloat16 need compute capability 8\.0, it has 7\.5"):
        targets.check(find("int8"), device.load("t4"), "bf16")
    targets.check(find("int8"), device.load("t4"), "fp16")


def test_an_unknown_gpu_is_not_refused():
    unknown = replace(device.load("t4"), name="gpu", compute_capability=None)
    targets.check(find("fp8"), unknown)


def test_a_gpu_too_old_for_anything():
    old = replace(device.load("v100"), name="gpu", compute_capability="5.2")
    with pytest.raises(UnsupportedError) as caught:
        targets.check(find("int8"), old)
    assert "runs none" in caught.value.hint
