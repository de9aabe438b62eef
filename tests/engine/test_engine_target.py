"""Which GPUs are built for, as a table over every profile; what is said of the others."""

from __future__ import annotations

import pytest

from ernie_cli import device
from ernie_cli.engine import target
from ernie_cli.engine.library import Library
from ernie_cli.engine.options import Options
from ernie_cli.errors import UnsupportedError, UsageError

RTX = Library("tensorrt-rtx", "tensorrt_rtx_bindings", "1.7.1", False)
FULL = Library("tensorrt", "tensorrt", "11.3.0", True)
BUILT = {"t4": "7.5", "a100": "8.0", "rtx3090": "8.6", "l4": "8.9", "l40s": "8.9", "rtx4090": "8.9", "rtx5090": "12.0"}
OTHERS = {
    "v100": "7.0",
    "jetson-orin-nano": "8.7",
    "jetson-orin-nx": "8.7",
    "jetson-agx-orin": "8.7",
    "h100": "9.0",
    "h200": "9.0",
    "jetson-thor": "11.0",
}


def test_every_profile_is_in_a_table():
    known = {name: device.load(name).compute_capability for name in device.names()}
    assert known == {**BUILT, **OTHERS, "cpu": None}


def test_the_table_is_the_librarys_own():
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="needs the TensorRT-RTX wheels: pip install 'ernie-cli[rtx]'")
    names = [name for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
    assert {"SM" + each.replace(".", "") for each in target.RTX} == set(names)


@pytest.mark.parametrize(("name", "capability"), BUILT.items())
def test_built_for_exactly_that_gpu(name, capability):
    assert target.capabilities(device.load(name), RTX, Options()) == (capability,)


@pytest.mark.parametrize(("name", "capability"), OTHERS.items())
def test_what_the_library_does_not_compile_for(name, capability):
    with pytest.raises(UnsupportedError, match=f"has compute capability {capability}; TensorRT-RTX builds for 7.5, 8.0") as caught:
        target.capabilities(device.load(name), RTX, Options())
    assert ("--backend onnxruntime" if capability == "7.0" else "--engine-library tensorrt") in caught.value.hint
    assert ("--portable" in caught.value.hint) == (capability != "7.0")
    assert ("board" in caught.value.hint) == name.startswith("jetson")


def test_portable_engines_are_for_no_one_gpu():
    assert target.capabilities(device.load("rtx4090"), RTX, Options(portable=True)) == ()


@pytest.mark.parametrize("name", ["t4", "v100"])
def test_portable_engines_begin_with_ampere(name):
    with pytest.raises(UnsupportedError, match=r"--portable engines are for 8\.0, 8\.6, 8\.9, 12\.0, 12\.1"):
        target.capabilities(device.load(name), RTX, Options(portable=True))


@pytest.mark.parametrize("name", ["h100", "jetson-agx-orin"])
def test_a_portable_engine_for_a_gpu_that_nobody_promises(name, capsys):
    assert target.capabilities(device.load(name), RTX, Options(portable=True)) == ()
    assert "is for you to try" in capsys.readouterr().err


def test_a_processor_is_no_gpu():
    with pytest.raises(UsageError, match="engines are for NVIDIA GPUs, and `cpu` is none") as caught:
        target.capabilities(device.load("cpu"), RTX, Options())
    assert "rtx4090" in caught.value.hint


def test_tensorrt_builds_for_the_gpu_at_hand_alone():
    here = device.detect()[0]
    other = next(name for name in ("v100", "t4") if device.load(name).compute_capability != here.compute_capability)
    with pytest.raises(UnsupportedError, match="TensorRT builds on a GPU of compute capability 7"):
        target.capabilities(device.load(other), FULL, Options())


@pytest.mark.gpu
def test_tensorrt_builds_for_this_gpu():
    here = device.detect()[0]
    assert target.capabilities(here, FULL, Options()) == (here.compute_capability,)


@pytest.mark.parametrize(
    ("name", "precision", "lacks", "near"),
    [
        ("t4", "fp16", "", ""),
        ("t4", "int8", "", ""),
        ("t4", "bf16", "bfloat16", "--precision fp16"),
        ("t4", "int4", "4-bit weights", "--precision int8-weight"),
        ("t4", "fp8", "8-bit floats", "--precision int8"),
        ("t4", "fp8-weight", "8-bit floats", "--precision int8-weight"),
        ("a100", "bf16", "", ""),
        ("a100", "int4", "", ""),
        ("a100", "fp8", "8-bit floats", "--precision int8"),
        ("jetson-agx-orin", "fp8-weight", "8-bit floats", "--precision int8-weight"),
        ("rtx4090", "fp8", "", ""),
        ("rtx5090", "fp8-kv", "", ""),
    ],
)
def test_what_a_gpu_computes_in(name, precision, lacks, near):
    if not lacks:
        return target.check(device.load(name), precision, floats="fp16")
    with pytest.raises(UnsupportedError, match=lacks) as caught:
        target.check(device.load(name), precision)
    assert caught.value.hint.startswith(near)
    return None


def test_a_quantised_graph_is_changed_by_no_option():
    with pytest.raises(UnsupportedError) as caught:
        target.check(device.load("t4"), "int4", "int4")
    assert caught.value.hint.startswith("build what it was quantised from with --precision int8")


def test_the_rest_of_a_quantised_graph_counts_too():
    with pytest.raises(UnsupportedError, match="bfloat16 need compute capability"):
        target.check(device.load("t4"), "int8", "int8", "bf16")
