"""What the builder is told: profiles that fit, GPUs it knows, flags; and what it does not hear. Nothing is built."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_engine_builder import ROWS, mlp, request

from ernie_cli.engine import configure, listen, network
from ernie_cli.engine.shapes import Profile
from ernie_cli.errors import InputError, UnsupportedError, UsageError

trt = pytest.importorskip("tensorrt_rtx_bindings", reason="needs the TensorRT-RTX wheels: pip install 'ernie-cli[rtx]'")


def configured(folder: Path, **more):
    """The configuration for a graph with one free axis, and the log."""
    wanted = request(mlp(folder / "m.onnx"), **more)
    with (folder / "log").open("w") as file:
        log = listen.logger(trt, file)
        builder = trt.Builder(log)
        made, parser = network.network(trt, builder, log, folder / "m.onnx", {})
        config = configure.configured(trt, builder, made, wanted)
        facts = (config.num_optimization_profiles, config.num_compute_capabilities, config.builder_optimization_level)
        flags = {name for name, flag in trt.BuilderFlag.__members__.items() if config.get_flag(flag)}
        del config, made, parser, builder
    return facts, flags, (folder / "log").read_text()


def test_what_is_said(tmp_path):
    facts, flags, _ = configured(tmp_path, profiles=(*ROWS, *ROWS), capabilities=("8.6", "12.0"), effort=2, refit=True, strip_weights=True)
    assert facts == (2, 2, 2)
    assert {"REFIT", "STRIP_PLAN"} <= flags and "WEIGHT_STREAMING" not in flags


def test_where_nothing_is_said_it_builds_for_all(tmp_path):
    assert configured(tmp_path, profiles=ROWS, capabilities=())[0][1] == 0


@pytest.mark.parametrize(
    ("profiles", "said"),
    [
        ((), "how large the input `x` is"),
        ((Profile("p", {}),), "how large `x` is"),
        ((Profile("p", {"z": ((1,), (1,), (1,))}),), "no input `z`"),
        ((Profile("p", {"x": ((8, 32), (4, 32), (1, 32))}),), "profile p"),
        ((Profile("p", {"x": ((1, 31), (1, 31), (1, 31))}),), "profile p"),
        ((Profile("p", {"x": ((1,), (1,), (1,))}),), "profile p"),
    ],
)
def test_shapes_that_do_not_fit(profiles, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        configured(tmp_path, profiles=profiles)


def test_a_gpu_that_the_library_does_not_know(tmp_path):
    with pytest.raises(UnsupportedError, match="SM70"):
        configured(tmp_path, profiles=ROWS, capabilities=("7.0",))


@pytest.mark.parametrize("level", ["ampere-plus", "same-capability"])
def test_levels_of_hardware_are_not_heard(level, tmp_path):
    """Why library.py says that TensorRT-RTX has none."""
    said = configured(tmp_path, profiles=ROWS, hardware_compatible=level)[2]
    assert "setHardwareCompatibilityLevel() is unsupported in TensorRT-RTX" in said


def test_a_folder_is_no_timing_cache(tmp_path):
    (tmp_path / "cache").mkdir()
    with pytest.raises(InputError, match="cache"):
        configured(tmp_path, profiles=ROWS, timing_cache=str(tmp_path / "cache"))
