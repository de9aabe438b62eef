"""What is built, for which GPUs, on a machine that has none: the embedded decoder and three networks for pictures, in every precision that
the GPU has. Each engine goes through the door, and none is run. `pytest -s` prints a table of seconds and sizes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ernie_cli import nano, route
from ernie_cli.engine import precision
from ernie_cli.engine.build import build
from ernie_cli.engine.options import Options
from ernie_cli.errors import UnsupportedError, UsageError
from ernie_cli.model import Model
from ernie_cli.quant.options import Options as Quantizing
from ernie_cli.quant.quantize import quantize

pytest.importorskip(
    "tensorrt_rtx_bindings", reason="needs the TensorRT-RTX wheels: pip install 'ernie-cli[rtx]' (Linux and Windows on x86-64)"
)

sys.path += [str(Path(__file__).parents[1] / room) for room in ("quant", "bench")]
import seeded
import vision

#: A profile of each compute capability.
DEVICES = {"t4": "7.5", "rtx3090": "8.6", "rtx4090": "8.9", "rtx5090": "12.0"}
#: Precision → the devices that lack it.
NANO = {"fp16": (), "int8": (), "int8-weight": (), "int4": ("t4",), "fp8": ("t4", "rtx3090")}
NETS = ("resnet", "mobilenet", "vit")
SHAPE = f"{vision.INPUT}:1x3x32x32,2x3x32x32,4x3x32x32"

Sources = Callable[[str, str], Model]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """`sources(name, precision)` → its graph as an ONNX folder, made once. With as little data as will do: engines do not depend on it."""
    folder = tmp_path_factory.mktemp("sources")

    def make(name: str, wanted: str) -> Model:
        out = folder / f"{name}-{wanted}"
        if not out.exists():
            (decoder if name == "nano" else picture)(name, wanted, out)
        return Model.open(out)

    def decoder(name: str, wanted: str, out: Path) -> None:
        if wanted == "fp16":
            route.convert(nano.path(), to="onnx", out=out, options=route.Options(dtype="fp16", kv_cache="static", verify=False))
        else:
            quantize(make(name, "fp16"), wanted, out, Quantizing(measure=False, samples=2, observer="minmax", smooth="off"))

    def picture(name: str, wanted: str, out: Path) -> None:
        if wanted == "fp32":
            import torch

            torch.manual_seed(0)
            out.mkdir()
            net = vision.NETS[name]
            vision._export(net.build().eval(), torch.zeros(2, 3, net.side, net.side), out / "model.onnx", fold=True)
            return
        np.savez(folder / "data.npz", **{vision.INPUT: vision.images(2, seed=0)})
        scratch = folder / f"{name}-{wanted}-scratch"
        scratch.mkdir()
        options = Options(precision=wanted, data=str(folder / "data.npz"), verify=wanted == "fp16")
        precision.prepare(make(name, "fp32"), options, scratch).path.rename(out)

    return make


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    rows: list[str] = []
    yield rows
    print("\nmodel      precision    for       parse s   build s   plan MB  peak memory MB", *rows, sep="\n")


def built(model: Path, name: str, target: str, out: Path, options: Options, table: list[str]) -> Model:
    """Through the door, with a look at the papers."""
    made = build(model, target, out, options)
    facts, plan = made.manifest["engine"], made.main_file()
    assert facts["target"]["capabilities"] == ([] if options.portable else [DEVICES[target]])
    assert plan.stat().st_size == made.manifest["files"][plan.name]["size"] > 100_000
    assert made.manifest["checks"][-1]["passed"] is None  # nobody has run it here
    assert sorted(out.parent.glob(f"{out.name}*")) == [out] and not (out / "scratch").exists()
    seconds, actual = facts["seconds"], facts["actual"]
    table.append(
        f"{name:<10} {made.precision:<12} {'portable' if options.portable else DEVICES[target]:<9} {seconds['parse']:7.2f} "
        f"{seconds['build']:9.2f} {actual['plan_bytes'] / 1e6:9.2f} {actual['host_peak_bytes'] / 1e6:15.0f}"
    )
    return made


def test_what_was_checked_on_the_way_is_in_the_papers(sources, tmp_path):
    """The graph was compared with its source when it was made float16."""
    made = build(sources("vit", "fp32").path, "rtx4090", tmp_path / "out", Options(effort=0, precision="fp16", shapes=(SHAPE,)))
    hop, engine = made.manifest["checks"]
    assert hop["edge"] == "fp32 → fp16" and hop["passed"]
    assert engine["passed"] is None or engine["passed"]


def quick(**more: Any) -> Options:
    """The shortest way to an engine."""
    return Options(**{"effort": 0, "verify": False, **more})


def test_a_bare_file_in_another_precision(sources, tmp_path, table):
    """A float32 graph without papers, for a GPU without tensor cores for anything but 16 bits: the graph is made float16 first."""
    file = sources("mobilenet", "fp32").main_file()
    made = built(file, "mobilenet", "t4", tmp_path / "out", quick(precision="fp16", shapes=(SHAPE,)), table)
    assert made.precision == "fp16"
    assert made.manifest["engine"]["profiles"][0]["inputs"] == {vision.INPUT: [[1, 3, 32, 32], [2, 3, 32, 32], [4, 3, 32, 32]]}


def test_the_shapes_to_type_are_said_before_any_work(sources, tmp_path):
    with pytest.raises(UsageError, match="nobody says how long the axes of `pixel_values` may be") as caught:
        build(sources("mobilenet", "fp32").main_file(), "t4", tmp_path / "out", quick(precision="fp16"))
    assert f"--shape {vision.INPUT}:1x3x32x32,4x3x32x32,8x3x32x32" in caught.value.hint
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("target", DEVICES)
@pytest.mark.parametrize("wanted", NANO)
def test_nano(wanted, target, sources, tmp_path, table):
    source = sources("nano", wanted).path
    if target in NANO[wanted]:
        with pytest.raises(UnsupportedError, match=f"{target} cannot run {wanted}"):
            build(source, target, tmp_path / "out", quick(context=128))
        assert not list(tmp_path.iterdir())
        return
    made = built(source, "nano", target, tmp_path / "out", quick(context=128), table)
    assert [profile["name"] for profile in made.manifest["engine"]["profiles"]] == ["prefill", "decode"]


@pytest.mark.slow
@pytest.mark.parametrize("target", DEVICES)
@pytest.mark.parametrize("wanted", ["fp16", "int8"])
@pytest.mark.parametrize("name", NETS)
def test_pictures(name, wanted, target, sources, tmp_path, table):
    built(sources(name, wanted).path, name, target, tmp_path / "out", quick(shapes=(SHAPE,)), table)


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [{"precision": "int4"}, {"precision": "bf16"}, {"batch": 4}, {"portable": True}], ids=["int4", "bf16", "batch", "portable"]
)
def test_a_checkpoint(more, tmp_path, table):
    """From safetensors to an engine in one step."""
    made = built(nano.path(), "nano", "rtx4090", tmp_path / "out", quick(context=64, **more), table)
    assert made.precision == more.get("precision", "fp16") and (tmp_path / "out" / "tokenizer.json").is_file()


@pytest.fixture(scope="module")
def smallest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkpoint with ERNIE-4.5-0.3B's shapes and random weights, 0.7 GB."""
    folder = tmp_path_factory.mktemp("seeded")
    yield seeded.make(folder)
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize(("wanted", "plan_gb"), [("fp16", 1.3), ("int4", 0.6)])
def test_the_smallest_published_size(wanted, plan_gb, smallest, tmp_path, table):
    """4 GB of memory are enough. Of the plan's fp16 weights the library keeps two copies: one for prompts, one for single tokens."""
    made = built(smallest, "0.3B", "rtx4090", tmp_path / "out", quick(precision=wanted), table)
    assert made.manifest["engine"]["actual"]["host_peak_bytes"] < 4e9
    assert made.main_file().stat().st_size < plan_gb * 1e9
    shutil.rmtree(made.path)
