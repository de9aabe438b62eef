"""Weights that alone are 8 bits wide: which graphs have them, which shapes their engines get, and that TensorRT does not write them out."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_checkpoint import make_checkpoint

from ernie_cli import nano
from ernie_cli.engine import build, narrow_weights, precision, predict, shapes
from ernie_cli.engine.options import Options
from ernie_cli.model import Model
from ernie_cli.onnxgraph.load import load
from ernie_cli.quant.options import Options as Quantising
from ernie_cli.quant.quantize import quantize

ALONE = {"int8-weight", "fp8-weight"}
#: Wide enough that its largest weights in 16 bits, 8 MB, are more than the scratch memory of a product.
WIDE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 1, "vocab_size": 8192, "tie_word_embeddings": True}


@pytest.mark.parametrize("scheme", ["int8", "int8-weight", "fp8-weight", "int4", "int8-kv"])
def test_a_graph_is_known_by_its_scheme_and_by_itself(scheme, tmp_path):
    made = quantize(nano.path(), scheme, tmp_path / "out", Quantising(measure=False, samples=2))
    foresight = predict.Foresight(Model.open(nano.path()), scheme)
    assert narrow_weights.among(load(made).graph) == narrow_weights.among(foresight.graph.graph) == (scheme in ALONE)


@pytest.mark.parametrize("kind", ["fp16", "int8-weight", "int4"])
@pytest.mark.parametrize("batch", [1, 3])
def test_one_row_is_one_or_two_for_them(kind, batch):
    foresight = predict.Foresight(Model.open(nano.path()), kind)
    found = foresight.shapes(Options(batch=batch, context=64))
    most = max(batch, 2 if kind in ALONE else 1)
    assert found.fixed.get("batch") == (1 if most == 1 else None)
    for profile in found.profiles:
        assert [shape[0] for shape in profile.shapes["input_ids"]] == [1, batch, most]


def test_layers_that_do_not_go_into_blocks_are_such_weights_too(tmp_path):
    """4-bit blocks do not divide 100: those layers get 8 bits and a scale per channel, which the plan knows before they are made."""
    make_checkpoint(tmp_path / "odd", intermediate_size=100)
    options = Options(precision="int4", context=64)
    foreseen = predict.Foresight(Model.open(tmp_path / "odd"), "int4").shapes(options)
    made = precision.prepare(Model.open(tmp_path / "odd"), Options(precision="int4", verify=False), tmp_path)
    assert foreseen == shapes.shapes(made, options) and "batch" not in foreseen.fixed


def test_the_second_row_takes_no_cache_before_it_comes():
    foresight = predict.Foresight(Model.open(nano.path()), "int8-weight")
    once, twice = (foresight.at(foresight.shapes(Options(batch=batch, context=64))) for batch in (1, 2))
    assert 2 * once.cache_bytes == twice.cache_bytes and once.activation_bytes == twice.activation_bytes


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of one wide layer, made by transformers."""
    make_checkpoint(folder := tmp_path_factory.mktemp("wide") / "hf", dtype="bfloat16", **WIDE)
    return folder


@pytest.mark.parametrize("rows", [2, 1])
def test_they_are_not_made_wide_in_memory(rows, wide, tmp_path, monkeypatch):
    """The second case is why: the day that it fails, the rows of the first are no longer needed."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="needs the TensorRT-RTX wheels: pip install 'ernie-cli[rtx]'")
    monkeypatch.setattr(narrow_weights, "LEAST_ROWS", rows)
    options = Options(effort=0, verify=False, context=64, precision="int8-weight")
    facts = build.build(wide, "rtx4090", tmp_path / "out", options).manifest["engine"]
    whole = 2 * WIDE["hidden_size"] * WIDE["vocab_size"]  # the head in 16 bits
    print(f"{rows} rows at most: activations {facts['actual']['activation_bytes']}, the head in 16 bits {whole}")
    assert [n_bytes > 1.2 * whole for n_bytes in facts["actual"]["activation_bytes"]] == [rows == 1] * 2
