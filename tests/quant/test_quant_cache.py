"""Decoders with a narrow cache: what the graph becomes, that it computes what rounded keys and values would, and that it runs."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from ernie_cli import nano, route
from ernie_cli.errors import UnsupportedError
from ernie_cli.model import Model, write_manifest
from ernie_cli.onnxgraph.load import load
from ernie_cli.onnxgraph.write import save
from ernie_cli.quant.cache import bytes_per_token, cache_values, quantize_cache
from ernie_cli.runtime import onnxruntime

KINDS = {"int8": (127.0, ir.DataType.INT8), "fp8": (448.0, ir.DataType.FLOAT8E4M3FN)}
REACH = 24.0  # keys and values of nano and of the seeded checkpoints stay well within


@pytest.fixture(scope="module")
def decoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """nano with either kind of cache."""
    folder = tmp_path_factory.mktemp("decoders")
    options = {kind: route.Options(kv_cache=kind, verify=False) for kind in ("static", "growing")}
    return {kind: route.convert(nano.path(), to="onnx", out=folder / kind, options=options[kind]) for kind in options}


def narrowed(model: Model, kind: str, folder: Path, reach: float = REACH) -> Model:
    """`model` with its cache in `kind`, every scale the same."""
    graph = load(model)
    names = quantize_cache(graph, kind, dict.fromkeys(cache_values(graph), reach / KINDS[kind][0]))
    assert names == [value.name for value in graph.graph.inputs if value.dtype == KINDS[kind][1]]
    folder.mkdir()
    files = save(graph, folder)
    known = {key: model.manifest[key] for key in ("architecture", "main") if key in model.manifest}
    (folder / "config.json").write_bytes((model.folder / "config.json").read_bytes())
    return write_manifest(folder, format="onnx", files=files, **known)


def logits(model: Model, pieces: list[list[int]]) -> np.ndarray:
    """Of the last token, after each piece of a text."""
    session = onnxruntime.open(model, "cpu")
    try:
        return np.concatenate([session.step(np.array([piece])) for piece in pieces])
    finally:
        session.close()


TEXT = [1, 40, 7, 300, 22, 9, 51, 130, 77, 5]


@pytest.mark.parametrize("cache", ["static", "growing"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_same_model_but_for_rounding(cache, kind, decoders, tmp_path):
    whole = logits(decoders[cache], [TEXT[:6], TEXT[6:7], TEXT[7:]])
    narrow = logits(narrowed(decoders[cache], kind, tmp_path / "out"), [TEXT[:6], TEXT[6:7], TEXT[7:]])
    cosines = (whole * narrow).sum(-1) / np.linalg.norm(whole, axis=-1) / np.linalg.norm(narrow, axis=-1)
    assert cosines.min() > 0.99
    assert not np.array_equal(whole, narrow)


@pytest.mark.parametrize("cache", ["static", "growing"])
@pytest.mark.parametrize("kind", KINDS)
def test_pieces_of_a_prompt_do_not_matter(cache, kind, decoders, tmp_path):
    model = narrowed(decoders[cache], kind, tmp_path / "out")
    at_once, in_pieces = logits(model, [TEXT]), logits(model, [TEXT[:3], TEXT[3:4], TEXT[4:]])
    np.testing.assert_allclose(at_once[-1], in_pieces[-1], atol=1e-3 * np.abs(at_once).max())


@pytest.mark.parametrize("kind", KINDS)
def test_both_kinds_of_cache_compute_the_same(kind, decoders, tmp_path):
    static, growing = (logits(narrowed(decoders[cache], kind, tmp_path / cache), [TEXT[:6], TEXT[6:]]) for cache in ("static", "growing"))
    np.testing.assert_allclose(static, growing, atol=1e-3 * np.abs(static).max())


@pytest.mark.parametrize("kind", KINDS)
def test_rows_at_different_positions(kind, decoders, tmp_path):
    model = narrowed(decoders["static"], kind, tmp_path / "out")
    session = onnxruntime.open(model, "cpu", batch=2)
    session.step(np.array([TEXT[:4]]), [1])
    session.step(np.array([TEXT[:2]]), [0])
    both = session.step(np.array([TEXT[2:5], TEXT[4:7]]))
    session.close()
    alone = [logits(model, [TEXT[:5]])[-1], logits(model, [TEXT[:7]])[-1]]
    np.testing.assert_allclose(both, alone, atol=1e-3 * np.abs(both).max())


def test_truncated_and_asked_again(decoders, tmp_path):
    session = onnxruntime.open(narrowed(decoders["growing"], "fp8", tmp_path / "out"), "cpu")
    first = session.step(np.array([TEXT]))
    session.truncate(0, 3)
    again = session.step(np.array([TEXT[3:]]))
    session.close()
    np.testing.assert_allclose(first, again, atol=1e-3 * np.abs(first).max())


@pytest.mark.parametrize("cache", ["static", "growing"])
def test_the_cache_holds_the_nearest_codes(cache, decoders, tmp_path):
    """Against numpy: what the float graph would have written, rounded."""
    import onnxruntime as ort

    model, graph = narrowed(decoders[cache], "int8", tmp_path / "out"), load(decoders[cache])
    name = cache_values(graph)[1]  # values of the first layer: nothing before them is rounded
    graph.graph.outputs.append(next(value for node in graph.graph for value in node.outputs if value.name == name))
    feeds = {"input_ids": np.array([TEXT])}
    for value in graph.graph.inputs:
        if value.name == "positions":
            feeds["positions"] = np.zeros(1, np.int64)
        elif value.name != "input_ids":
            feeds[str(value.name)] = np.zeros((1, value.shape[1], 16 if cache == "static" else 0, value.shape[3]), np.float32)
    wide = ort.InferenceSession(ir.to_proto(graph).SerializeToString()).run([name], feeds)[0]
    narrow_feeds = {each: array.astype(np.int8) if array.dtype == np.float32 else array for each, array in feeds.items()}
    out = "cache_out.0.value" if cache == "static" else "present.0.value"
    codes = ort.InferenceSession(str(model.main_file())).run([out], narrow_feeds)[0]
    wide = wide if wide.ndim == 4 else wide.reshape(*wide.shape[:2], codes.shape[1], -1).transpose(0, 2, 1, 3)
    wanted = np.clip(np.rint(wide / np.float32(REACH / 127)), -128, 127)
    assert np.abs(codes[:, :, : len(TEXT)] - wanted).max() <= 1  # a tie may round either way
    assert (codes[:, :, : len(TEXT)] == wanted).mean() > 0.99
    assert not codes[:, :, len(TEXT) :].any()


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_and_outputs_keep_their_names(kind, decoders):
    for decoder in decoders.values():
        graph = load(decoder)
        before = [[value.name for value in ends] for ends in (graph.graph.inputs, graph.graph.outputs)]
        quantize_cache(graph, kind, dict.fromkeys(cache_values(graph), 0.1))
        assert [[value.name for value in ends] for ends in (graph.graph.inputs, graph.graph.outputs)] == before
        assert {value.dtype for value in graph.graph.outputs if value.name != "logits"} == {KINDS[kind][1]}


def test_every_code_of_8_bit_floats_comes_back(decoders, tmp_path):
    """The cache is widened and narrowed at every step: that must not wear it out, whatever the scale."""
    model = narrowed(decoders["static"], "fp8", tmp_path / "out", reach=3.7)
    import onnxruntime as ort

    session = ort.InferenceSession(str(model.main_file()))
    codes = np.arange(256, dtype=np.uint8)
    codes = codes[np.isfinite(codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32))]
    feeds = {"input_ids": np.array([[1]]), "positions": np.array([300])}
    full = np.resize(codes, (1, 2, 301, 64))
    for value in session.get_inputs()[2:]:
        feeds[value.name] = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(np.ascontiguousarray(full), 17)
    out = session.run(["cache_out.3.key"], feeds)[0]
    np.testing.assert_array_equal(out[:, :, :300], full[:, :, :300])


def test_bytes_per_token(decoders):
    for decoder in decoders.values():
        graph = load(decoder)
        assert bytes_per_token(graph) == 6 * 2 * 2 * 64 * 4  # layers × (key, value) × heads × width × float32
        quantize_cache(graph, "int8", dict.fromkeys(cache_values(graph), 0.1))
        assert bytes_per_token(graph) == 6 * 2 * 2 * 64


def test_a_cache_that_is_narrow_already(decoders):
    for decoder in decoders.values():
        graph = load(decoder)
        quantize_cache(graph, "int8", dict.fromkeys(cache_values(graph), 0.1))
        with pytest.raises(UnsupportedError, match="its cache is int8 already"):
            cache_values(graph)


def test_a_graph_without_a_cache():
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1]))
    node = ir.node("Relu", [x])
    graph = ir.Model(ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 21}), ir_version=10)
    for call in (cache_values, lambda model: quantize_cache(model, "int8", {})):
        with pytest.raises(UnsupportedError, match="keeps no keys and values") as caught:
            call(graph)
        assert "ernie convert" in caught.value.hint
