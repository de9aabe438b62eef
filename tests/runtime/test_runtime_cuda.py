"""ONNX Runtime on a GPU against the same graphs on the CPU: every cache, every precision, with and without CUDA graphs.

Run by `make test-gpu` on a machine with an NVIDIA GPU and `pip install 'ernie-cli[gpu]'`; elsewhere skipped with a reason.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from ernie_cli import route
from ernie_cli.app import main
from ernie_cli.errors import MissingError
from ernie_cli.model import Model
from ernie_cli.runtime import Session, SessionInfo, onnxruntime, onnxruntime_session, placement
from ernie_cli.runtime.graphs import open_graph
from ernie_cli.runtime.static import SLOTS_ON_GPU, StaticRows
from ernie_cli.runtime.step import CAPTURE_AT

pytestmark = pytest.mark.gpu

BATCH, VOCABULARY = 3, 320
#: Largest difference of two logits as a share of the largest logit: of float32, and of types with 11 and 8 bits of fraction.
TOLERANCE = {"fp32": 2e-4, "fp16": 2e-2, "bf16": 1e-1, "int8": 1e-1, "int8-weight": 2e-2, "int4": 2e-2}
TEXT = [5, 9, 200, 7, 7, 31, 150, 2]


@pytest.fixture(autouse=True, scope="module")
def reaches_a_gpu() -> None:
    """A GPU is here (the marker sees to that): is it for this onnxruntime, too?"""
    try:
        onnxruntime_session.place("cuda")
    except MissingError as err:
        pytest.skip(f"{err.message}: {err.hint}")


@pytest.fixture(autouse=True)
def a_cache_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("ERNIE_CACHE", str(tmp_path_factory.getbasetemp() / "ernie-cache"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import Ernie4_5Config, Ernie4_5ForCausalLM

    torch.manual_seed(0)
    shape = {"vocab_size": VOCABULARY, "hidden_size": 128, "intermediate_size": 192, "head_dim": 64, "max_position_embeddings": 2048}
    config = Ernie4_5Config(**shape, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3)
    folder = tmp_path_factory.mktemp("cuda") / "hf"
    Ernie4_5ForCausalLM(config).save_pretrained(folder)
    return folder


def converted(checkpoint: Path, precision: str, cache: str = "static") -> Model:
    """The checkpoint as an ONNX decoder, made once. Quantised ones are made of the fp16 graph, as on a device they would be."""
    out = checkpoint.with_name(f"{precision}-{cache}")
    if (out / "ernie.json").exists():
        return Model.open(out)
    if precision in ("fp32", "fp16", "bf16"):
        return route.convert(checkpoint, to="onnx", out=out, options=route.Options(dtype=precision, kv_cache=cache, verify=False))
    from ernie_cli.quant.options import Options
    from ernie_cli.quant.quantize import quantize

    return quantize(converted(checkpoint, "fp16", cache), precision, out, Options(random_calibration=precision == "int8", measure=False))


def tokens(*rows: list[int]) -> np.ndarray:
    return np.array(rows, np.int64)


def near(found: np.ndarray, expected: np.ndarray, precision: str) -> None:
    assert found.shape == expected.shape and np.isfinite(found).all()
    assert np.abs(found - expected).max() <= TOLERANCE[precision] * np.abs(expected).max()


def played(session: Session) -> list[np.ndarray]:
    """A prompt, single tokens past the point where graphs are captured, a truncate, another row, all rows."""
    found = [session.step(tokens(TEXT), [0])]
    found += [session.step(tokens([token]), [0]) for token in (3, 1, 4, 1, 5, 9, 2, 6)]
    session.truncate(0, 5)
    found += [session.step(tokens([token]), [0]) for token in (11, 12, 13, 14)]
    found.append(session.step(tokens(TEXT[::-1]), [2]))
    session.step(tokens(TEXT[:3]), [1])
    found += [session.step(tokens([token], [token + 1], [token + 2])) for token in (20, 30, 40, 50, 60)]
    found.append(session.step(tokens([7], [8]), [0, 2]))
    return found


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8", "int8-weight", "int4", "fp32 growing", "fp16 growing"])
def test_a_gpu_says_what_the_cpu_says(checkpoint: Path, precision: str) -> None:
    precision, _, cache = precision.partition(" ")
    model = converted(checkpoint, precision, cache or "static")
    gpu, cpu = (onnxruntime.open(model, where, batch=BATCH, context=64) for where in ("cuda", "cpu"))
    assert gpu.info.device.startswith("cuda:0 ") and cpu.info.device == "cpu"
    for found, expected in zip(played(gpu), played(cpu), strict=True):
        near(found, expected, precision)
    gpu.close()
    cpu.close()


def test_auto_takes_the_gpu_and_says_so(checkpoint: Path) -> None:
    session = onnxruntime.open(converted(checkpoint, "fp16"), "auto", context=64)
    assert session.info.device.startswith("cuda:0 ") and session.info.why and "--device" not in session.info.why
    session.close()


def rows_of(model: Model, *, capture: bool, batch: int = BATCH, context: int = 64) -> StaticRows:
    where = replace(onnxruntime_session.place("cuda"), capture=capture)
    session, found = onnxruntime_session.create_session(model.main_file(), where)
    return StaticRows(session, SessionInfo("onnxruntime", found.title, VOCABULARY, context, batch), found)


def decoded(rows: StaticRows, length: int) -> list[np.ndarray]:
    """A prompt on every row, then single tokens that depend on nothing but their number."""
    found = [rows.step(tokens(TEXT, TEXT, TEXT[::-1]), [0, 1, 2], [0, 0, 0])]
    for at in range(length):
        found.append(rows.step(tokens([at % 300], [at % 299], [at % 298]), [0, 1, 2], [8 + at] * 3))
    return found


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int4"])
def test_cuda_graphs_give_the_same_logits(checkpoint: Path, precision: str) -> None:
    model = converted(checkpoint, precision)
    captured, plain = rows_of(model, capture=True), rows_of(model, capture=False)
    for found, expected in zip(decoded(captured, 20), decoded(plain, 20), strict=True):
        near(found, expected, precision)
    assert captured.captures.numbers and not plain.captures.numbers


def test_a_step_is_captured_when_it_has_proved_to_be_one(checkpoint: Path) -> None:
    rows = rows_of(converted(checkpoint, "fp16"), capture=True)
    for at in range(CAPTURE_AT - 1):
        rows.step(tokens([1], [2], [3]), [0, 1, 2], [at] * 3)
    assert not rows.captures.numbers
    rows.step(tokens([1], [2], [3]), [0, 1, 2], [CAPTURE_AT] * 3)
    assert len(rows.captures.numbers) == 1


def test_caches_that_grow_take_new_graphs(checkpoint: Path) -> None:
    """Past the first buffers: what was captured ran on addresses that are gone."""
    model = converted(checkpoint, "fp32")
    long = SLOTS_ON_GPU + 20
    gpu = onnxruntime.open(model, "cuda", context=1024)
    cpu = onnxruntime.open(model, "cpu", context=1024)
    text = np.random.default_rng(0).integers(0, VOCABULARY, (1, long))
    at = SLOTS_ON_GPU - 10
    near(gpu.step(text[:, :at]), cpu.step(text[:, :at]), "fp32")
    for place in range(at, long):
        near(gpu.step(text[:, [place]]), cpu.step(text[:, [place]]), "fp32")
    gpu.close()
    cpu.close()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int4"])
def test_only_shape_arithmetic_is_left_to_the_cpu(checkpoint: Path, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    record = placement.record
    monkeypatch.setattr(placement, "record", lambda options, where: record(options, where, always=True))
    session, _ = onnxruntime_session.create_session(converted(checkpoint, precision).main_file(), "cuda")
    found = placement.fallen(session)
    if found is None:
        pytest.skip("this onnxruntime does not tell who runs which node (1.25 does)")
    print(f"\n{precision}: {found}")
    assert not found.arithmetic


def test_the_words_are_the_same(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`ernie run` on the embedded model, whose answers are sure enough for any rounding."""
    said: dict[str, Any] = {}
    for where in ("cuda", "cpu"):
        assert main(["run", "ernie-4.5-nano", "12 + 30 = ?", "--device", where, "--json"]) == 0
        said[where] = json.loads(capsys.readouterr().out)
    assert said["cuda"]["text"] == said["cpu"]["text"] and said["cuda"]["device"].startswith("cuda:0 ")


def test_verbose_tells_the_place_the_reason_and_what_fell(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "ernie-4.5-nano", "12 + 30 = ?", "-v"]) == 0
    said = capsys.readouterr().err
    assert "using onnxruntime on cuda:0" in said and "nodes run on the CPU" in said


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_graphs_of_any_kind(dtype: str, tmp_path: Path) -> None:
    kind = {"float32": ir.DataType.FLOAT, "float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}[dtype]
    first, second = ir.val("a", kind, ["n", 16]), ir.val("b", kind, [16, 16])
    product = ir.node("MatMul", [first, second])
    result = ir.node("Tanh", product.outputs)
    result.outputs[0].name, result.outputs[0].type, result.outputs[0].shape = "y", ir.TensorType(kind), ir.Shape(["n", 16])
    graph = ir.Graph([first, second], result.outputs, nodes=[product, result], opset_imports={"": 20})
    ir.save(ir.Model(graph, ir_version=10), tmp_path / "m.onnx")
    rng = np.random.default_rng(0)
    feeds = {name: rng.normal(size=(16, 16)).astype(kind.numpy()) for name in "ab"}
    found = {where: open_graph(Model.open(tmp_path), device=where).run(feeds)["y"] for where in ("cuda", "cpu")}
    np.testing.assert_allclose(found["cuda"].astype(float), found["cpu"].astype(float), atol={"float32": 1e-5}.get(dtype, 2e-2))


def test_float32_is_float32(tmp_path: Path) -> None:
    """TF32 would show: it keeps 10 bits of 23."""
    a, b = ir.val("a", ir.DataType.FLOAT, [256, 256]), ir.val("b", ir.DataType.FLOAT, [256, 256])
    product = ir.node("MatMul", [a, b])
    product.outputs[0].name, product.outputs[0].type = "y", ir.TensorType(ir.DataType.FLOAT)
    ir.save(ir.Model(ir.Graph([a, b], product.outputs, nodes=[product], opset_imports={"": 20}), ir_version=10), tmp_path / "m.onnx")
    rng = np.random.default_rng(0)
    feeds = {name: rng.normal(size=(256, 256)).astype(np.float32) for name in "ab"}
    exact = feeds["a"].astype(np.float64) @ feeds["b"].astype(np.float64)
    found = open_graph(Model.open(tmp_path), device="cuda").run(feeds)["y"]
    assert np.abs(found - exact).max() / np.abs(exact).max() < 2e-6
