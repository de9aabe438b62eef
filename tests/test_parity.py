"""The gate between a conversion and its user: right models pass, every wrong one is refused and leaves nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ernie_cli import parity, route
from ernie_cli.app import main
from ernie_cli.checkpoint import Checkpoint
from ernie_cli.errors import QualityError
from ernie_cli.graph import convert as graph_convert
from ernie_cli.graph import layerwise
from ernie_cli.graph.dense import DenseDecoder
from ernie_cli.model import Model


def test_equal_logits_have_no_distance():
    logits = np.random.default_rng(0).standard_normal((5, 40), dtype=np.float32)
    metrics = parity.compare(logits, logits)
    assert (metrics.max_abs, metrics.max_rel, metrics.kl, metrics.top1) == (0, 0, 0, 1)
    assert metrics.cosine == pytest.approx(1)


def test_kl_is_that_of_the_definition():
    want, got = np.log(np.array([[0.5, 0.5]])), np.log(np.array([[0.9, 0.1]]))
    assert parity.compare(want, got).kl == pytest.approx(0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1))


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_numbers_that_are_none_fail(poison):
    want = np.zeros((2, 3), np.float32)
    got = want.copy()
    got[1, 1] = poison
    with pytest.raises(QualityError, match="NaN or infinite"):
        parity.compare(want, got)


def _half_rope(decoder, name, x, heads, cos, sin):
    return decoder.b.op("RotaryEmbedding", x, cos, sin, name=name, interleaved=0, num_heads=heads)


def _no_rope(decoder, name, x, heads, cos, sin):
    return x


def _gelu(decoder, name, x):
    b, hidden, inner = decoder.b, decoder.config.hidden_size, decoder.config.intermediate_size
    gate = b.op("Gelu", decoder.linear(f"{name}.gate_proj", x, hidden, inner), name=f"{name}.gelu")
    return decoder.linear(
        f"{name}.down_proj", b.op("Mul", gate, decoder.linear(f"{name}.up_proj", x, hidden, inner), name=name), inner, hidden
    )


def _swapped_gate(decoder, name, x):
    b, hidden, inner = decoder.b, decoder.config.hidden_size, decoder.config.intermediate_size
    gate, up = decoder.linear(f"{name}.up_proj", x, hidden, inner), decoder.linear(f"{name}.gate_proj", x, hidden, inner)
    silu = b.op("Mul", gate, b.op("Sigmoid", gate, name=f"{name}.sigmoid"), name=f"{name}.silu")
    return decoder.linear(f"{name}.down_proj", b.op("Mul", silu, up, name=f"{name}.gated"), inner, hidden)


@pytest.mark.parametrize("kv_cache", ["static", "growing"])
@pytest.mark.parametrize(
    ("part", "wrong"),
    [("rotate", _half_rope), ("rotate", _no_rope), ("mlp", _gelu), ("mlp", _swapped_gate)],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_a_wrong_graph_is_refused(part, wrong, kv_cache, checkpoint, tmp_path, monkeypatch, capsys):
    folder, _ = checkpoint()
    monkeypatch.setattr(DenseDecoder, part, wrong)
    out = tmp_path / "onnx"
    assert main(["convert", str(folder), "--to", "onnx", "--kv-cache", kv_cache, "-o", str(out)]) == 6
    said = capsys.readouterr().err
    assert "not the same model" in said
    assert "layer 0" in said  # the first part that differs
    assert not out.exists()
    assert not list(tmp_path.glob("*.partial"))


def test_no_verify_says_so_in_the_record(checkpoint, tmp_path, capsys):
    folder, _ = checkpoint()
    assert main(["convert", str(folder), "--to", "onnx", "--no-verify", "-o", str(tmp_path / "o")]) == 0
    assert "not verified" in capsys.readouterr().err
    record = json.loads((tmp_path / "o" / "ernie.json").read_text())["checks"]
    assert record == [{"name": "parity", "passed": None, "why": "--no-verify"}]


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("kv_cache", ["static", "growing"])
@pytest.mark.parametrize("all_logits", [False, True])
def test_layer_by_layer_where_memory_will_not_hold_the_model(dtype, kv_cache, all_logits, checkpoint, tmp_path):
    folder, _ = checkpoint(dtype="bfloat16", tie_word_embeddings=False)
    options = route.Options(dtype, kv_cache, all_logits, verify=False)
    made = route.convert(folder, to="onnx", out=tmp_path / "o", options=options)
    record = graph_convert.verify(Checkpoint.open(folder), made, dtype, memory_bytes=0)
    assert record["how"] == "layer by layer"
    assert record["worst layer"]["max_rel"] <= record["limits"]["max_rel"]
    assert sorted(path.name for path in made.path.iterdir() if "piece" in path.name) == []


def test_layer_by_layer_names_the_layer_whose_weights_differ(checkpoint, tmp_path):
    folder, _ = checkpoint(seed=0)
    made = route.convert(folder, to="onnx", out=tmp_path / "o", options=route.Options(verify=False))
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(made.main_file())
    for tensor in graph.graph.initializer:
        if tensor.name == "model.layers.2.mlp.up_proj.weight":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.01, tensor.name))
    onnx.save(graph, made.main_file())
    with pytest.raises(QualityError, match="layer 2 is the first"):
        layerwise.check(Checkpoint.open(folder), Model.open(made.path), "fp32")
