"""Quantised graphs on disk: every kind of layer, weights that are shared, large or broken, and what ONNX Runtime computes."""

from __future__ import annotations

import hashlib

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from weights_only import fused, model_of, quantised, relative, session

from ernie_cli.errors import InputError
from ernie_cli.model import Model
from ernie_cli.onnxgraph.names import fresh
from ernie_cli.quant import edit, layers, pending, tables, write
from ernie_cli.quant.codes import round_to_nearest
from ernie_cli.quant.scheme import WeightFormat, find
from ernie_cli.quant.source import open_source

X = np.random.default_rng(1).standard_normal((64, 64)).astype(np.float32)
IMAGE = np.random.default_rng(1).standard_normal((2, 8, 9, 9)).astype(np.float32)


def _w(*shape: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def _proto(*nodes: onnx.NodeProto, x: np.ndarray = X, kind: int = TensorProto.FLOAT, outputs: tuple[str, ...] = (), **arrays: np.ndarray):
    known = [ir.serde.serialize_tensor(ir.tensor(array, name=name)) for name, array in arrays.items()]
    ends = [helper.make_tensor_value_info(name, kind, None) for name in (nodes[-1].output[0], *outputs)]
    graph = helper.make_graph(list(nodes), "g", [helper.make_tensor_value_info("x", kind, x.shape)], ends, known)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _node(op: str, inputs: str, output: str = "y", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [output], name=f"node_{output}", **attributes)


def _both(proto, tmp_path, scheme: str, x: np.ndarray = X, **more):
    """(float output, quantised output with nothing fused, the quantised model)."""
    model = model_of(proto, tmp_path / "float")
    made = quantised(model, scheme, tmp_path / "out", **more)
    want, got = (session(each, plain=True).run(None, {"x": x}) for each in (model, made))
    return want[0], got[0], made


LAYERS = {
    "MatMul": (_proto(_node("MatMul", "x w"), w=_w(64, 96)), X),
    "MatMul + bias": (_proto(_node("MatMul", "x w", "h"), _node("Add", "h b"), w=_w(64, 96), b=_w(96)), X),
    "Gemm": (_proto(_node("Gemm", "x w"), w=_w(64, 96)), X),
    "Gemm + bias": (_proto(_node("Gemm", "x w b"), w=_w(64, 96), b=_w(96)), X),
    "Gemm transB": (_proto(_node("Gemm", "x w", transB=1), w=_w(96, 64)), X),
    "Gemm transB + bias": (_proto(_node("Gemm", "x w b", transB=1), w=_w(96, 64), b=_w(96)), X),
    "Gemm alpha beta": (_proto(_node("Gemm", "x w b", transB=1, alpha=0.5, beta=2.0), w=_w(96, 64), b=_w(96)), X),
    "square Gemm transB": (_proto(_node("Gemm", "x w", transB=1), w=_w(64, 64)), X),
    "Conv": (_proto(_node("Conv", "x w b"), x=IMAGE, w=_w(16, 8, 3, 3), b=_w(16)), IMAGE),
    "Conv in groups": (_proto(_node("Conv", "x w", group=4), x=IMAGE, w=_w(16, 2, 3, 3)), IMAGE),
    "depthwise Conv": (_proto(_node("Conv", "x w", group=8), x=IMAGE, w=_w(8, 1, 3, 3)), IMAGE),
}
FUSED = [name for name in LAYERS if "Conv" not in name and "alpha" not in name]


@pytest.mark.parametrize("scheme, most", [("int8-weight", 0.01), ("fp8-weight", 0.06)])
@pytest.mark.parametrize("name", LAYERS)
def test_every_kind_of_layer_is_near_its_float_self(name, scheme, most, tmp_path):
    proto, x = LAYERS[name]
    want, got, made = _both(proto, tmp_path, scheme, x)
    taken = "Conv" not in name or scheme == "int8-weight"  # weights of convolutions stay float under fp8-weight
    assert layers.already(open_source(made)) is taken
    assert (0 < relative(want, got) < most) if taken else relative(want, got) == 0


@pytest.mark.parametrize("block", [32, 64, 128])  # 128 does not divide 64
@pytest.mark.parametrize("name", FUSED)
def test_int4_layers_run_in_the_n_bit_kernel(name, block, tmp_path):
    proto, x = LAYERS[name]
    want, got, made = _both(proto, tmp_path, "int4", x, block=block)
    assert 0 < relative(want, got) < 0.15
    assert fused(made, tmp_path) == {"MatMulNBits": 1}
    assert relative(got, session(made).run(None, {"x": x})[0]) < 0.03  # its activations are 8-bit integers


@pytest.mark.parametrize("name", FUSED)
def test_int8_layers_run_in_the_n_bit_kernel(name, tmp_path):
    _, got, made = _both(LAYERS[name][0], tmp_path, "int8-weight")
    assert fused(made, tmp_path) == {"MatMulNBits": 1}
    assert relative(got, session(made).run(None, {"x": X})[0]) < 0.03


def test_a_length_that_no_block_divides_becomes_int8(tmp_path):
    x = X[:, :60]
    want, got, made = _both(_proto(_node("MatMul", "x w"), x=x, w=_w(60, 96)), tmp_path, "int4", x)
    assert 0 < relative(want, got) < 0.01
    assert next(iter(open_source(made).graph.initializers.values())).dtype == ir.DataType.INT8
    assert fused(made, tmp_path) == {"MatMulNBits": 1}


@pytest.mark.parametrize("dtype, kind", [(np.float16, TensorProto.FLOAT16), (ml_dtypes.bfloat16, TensorProto.BFLOAT16)])
@pytest.mark.parametrize("scheme", ["int4", "int8-weight"])
def test_narrow_graphs_have_scales_of_their_own_type(scheme, dtype, kind, tmp_path):
    weight = _w(64, 96).astype(dtype)
    made = quantised(model_of(_proto(_node("MatMul", "x w"), kind=kind, w=weight), tmp_path / "float"), scheme, tmp_path / "out")
    values = open_source(made).graph.initializers
    codes, scale = values[f"w_{scheme[:4]}"], values[f"w_{scheme[:4]}_scale"]
    assert scale.dtype == ir.DataType(kind)
    form = WeightFormat("int4", 32) if scheme == "int4" else WeightFormat("int8")
    want = round_to_nearest(weight, form, 1, 0, dtype=dtype)
    np.testing.assert_array_equal(codes.const_value.numpy().astype(np.int8), want.codes.astype(np.int8))
    np.testing.assert_array_equal(scale.const_value.numpy(), want.scale)


def test_a_weight_of_zeros_gives_zeros(tmp_path):
    for scheme in ("int4", "int8-weight", "fp8-weight"):
        _, got, _ = _both(_proto(_node("MatMul", "x w"), w=np.zeros((64, 96), np.float32)), tmp_path / scheme, scheme)
        np.testing.assert_array_equal(got, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_refused_by_name(bad, tmp_path):
    weight = _w(64, 96)
    weight[3, 5] = bad
    with pytest.raises(InputError, match=r"`w` of layer `node_y`.*NaN or infinite"):
        quantised(model_of(_proto(_node("MatMul", "x w"), w=weight), tmp_path / "float"), "int4", tmp_path / "out")


@pytest.mark.parametrize("beside", [True, False])
def test_layers_that_share_a_weight_share_bytes(beside, tmp_path, monkeypatch):
    """Each has initializers of its own, because ONNX Runtime fuses no shared ones; a data file holds them once."""
    monkeypatch.setattr(write, "EMBED_BYTES", 0 if beside else 1 << 20)
    proto = _proto(_node("MatMul", "x w", "h"), _node("MatMul", "h w"), w=_w(64, 64))
    want, got, made = _both(proto, tmp_path, "int4")
    assert 0 < relative(want, got) < 0.3
    held = open_source(made).graph.initializers
    assert sorted(held) == ["w_int4", "w_int4_2", "w_int4_2_scale", "w_int4_scale"]
    assert fused(made, tmp_path) == {"MatMulNBits": 2}
    if beside:
        assert held["w_int4"].const_value.offset == held["w_int4_2"].const_value.offset


def test_a_weight_that_is_needed_as_it_is_stays(tmp_path):
    proto = _proto(_node("MatMul", "x w", "h"), _node("Mul", "w two", "z"), _node("Add", "h z"), outputs=("w",), w=_w(64, 64), two=_w(64))
    model = model_of(proto, tmp_path / "float")
    made = quantised(model, "int4", tmp_path / "out")
    for each in (model, made):
        np.testing.assert_array_equal(session(each).run(["w"], {"x": X})[0], _w(64, 64))


@pytest.mark.parametrize("place, beside", [("outside", False), ("inside", False), ("inside", True)])
def test_layers_in_branches(place, beside, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "EMBED_BYTES", 0 if beside else 1 << 20)
    weight = ir.serde.serialize_tensor(ir.tensor(_w(64, 64), name="w"))
    end = [helper.make_tensor_value_info("inner_y", TensorProto.FLOAT, None)]
    then = helper.make_graph([_node("MatMul", "x w", "inner_y")], "then", [], end, [weight] if place == "inside" else [])
    otherwise = helper.make_graph(
        [_node("Neg", "x", "other_y")], "otherwise", [], [helper.make_tensor_value_info("other_y", TensorProto.FLOAT, None)]
    )
    nodes = [
        _node("MatMul", "x w", "h") if place == "outside" else _node("Identity", "x", "h"),
        _node("ReduceSum", "h", "sum", keepdims=0),
        _node("Less", "sum zero", "flag"),
        helper.make_node("If", ["flag"], ["y"], then_branch=then, else_branch=otherwise),
    ]
    arrays = {"zero": np.float32(1e9).reshape(()), **({"w": _w(64, 64)} if place == "outside" else {})}
    want, got, made = _both(_proto(*nodes, **arrays), tmp_path, "int4")
    assert 0 < relative(want, got) < 0.2
    graph = ir.load(made.main_file()).graph
    (inner,) = [names for part in graph.subgraphs() if (names := sorted(part.initializers))]
    number = "_2" if place == "outside" else ""
    assert inner == [f"w_int4{number}", f"w_int4{number}_scale"] and "w" not in graph.initializers
    np.testing.assert_allclose(session(made).run(None, {"x": X})[0], got, atol=0.1)


def test_a_tied_embedding_is_kept_in_half_its_bytes(tmp_path):
    """The table as float16 for the lookup, and as codes for the head."""
    table = _w(8192, 64).astype(ml_dtypes.bfloat16).astype(np.float32)
    nodes = [
        _node("Cast", "x", "ids", to=TensorProto.INT64),
        _node("Gather", "w ids", "h"),
        _node("ReduceMax", "h", "m", axes=[1], keepdims=0),
    ]
    proto = _proto(*nodes, _node("Gemm", "m w", transB=1), outputs=("h",), w=table)
    x = np.abs(X)
    model = model_of(proto, tmp_path / "float")
    made = quantised(model, "int4", tmp_path / "out")
    values = open_source(made).graph.initializers
    assert {name: value.dtype.name for name, value in values.items()} == {"w_fp16": "FLOAT16", "w_int4": "INT4", "w_int4_scale": "FLOAT"}
    assert list(values["w_int4"].shape) == [64, 8192]
    want, got = (session(each).run(None, {"x": x}) for each in (model, made))
    np.testing.assert_array_equal(want[1], got[1])
    assert 0 < relative(want[0], got[0]) < 0.2
    assert made.main_file().stat().st_size < table.nbytes * 0.7


@pytest.mark.parametrize("why", ["beyond float16", "small", "added to", "an output", "columns"])
def test_tables_that_stay(why, tmp_path):
    table = _w(8192 if why != "small" else 100, 64) * (1e7 if why == "beyond float16" else 1)
    nodes = [_node("Cast", "x", "ids", to=TensorProto.INT64), _node("Gather", "w ids", "h", axis=1 if why == "columns" else 0)]
    nodes += [_node("ReduceSum", "w", "z")] if why == "added to" else []
    proto = _proto(*nodes, outputs=("w",) if why == "an output" else ("h",), w=table)
    graph = open_source(model_of(proto, tmp_path / "float"))
    assert tables.narrow_tables(graph) == {}
    assert list(graph.graph.initializers) == ["w"]


def test_weights_beside_the_graph(tmp_path, monkeypatch):
    """Larger models: weights in one aligned file, what shapes depend on inside the graph, sizes and digests in the papers."""
    nodes = [_node("MatMul", "x w1", "h"), _node("MatMul", "h w2", "i"), _node("Add", "i b")]
    proto = _proto(*nodes, w1=_w(64, 512), w2=_w(512, 100), b=_w(100))
    inside = quantised(model_of(proto, tmp_path / "float"), "int4", tmp_path / "inside")
    monkeypatch.setattr(write, "EMBED_BYTES", 0)
    (tmp_path / "beside").mkdir()
    onnx.save(proto, tmp_path / "beside" / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    made = quantised(Model.open(tmp_path / "beside" / "model.onnx"), "int4", tmp_path / "out")
    for name, entry in made.manifest["files"].items():
        content = (made.folder / name).read_bytes()
        assert entry == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert set(made.manifest["files"]) == {"model.onnx", "model.onnx.data"} and set(inside.manifest["files"]) == {"model.onnx"}
    held = {name: value.const_value for name, value in open_source(made).graph.initializers.items()}
    outside = {name for name, tensor in held.items() if isinstance(tensor, ir.ExternalTensor)}
    assert outside == {"w1_int4", "w1_int4_scale", "w2_int4", "w2_int4_scale"}
    assert all(held[name].offset % write.ALIGNMENT_BYTES == 0 for name in outside)
    for name, value in open_source(inside).graph.initializers.items():
        np.testing.assert_array_equal(held[name].numpy(), value.const_value.numpy(), err_msg=name)
    np.testing.assert_array_equal(*(session(each).run(None, {"x": X})[0] for each in (made, inside)))


def test_each_pair_is_made_once_and_progress_adds_up(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "EMBED_BYTES", 0)
    proto = _proto(_node("MatMul", "x w1", "h"), _node("MatMul", "h w2"), w1=_w(64, 256), w2=_w(256, 192))
    graph, form, calls, told, advanced = open_source(model_of(proto, tmp_path / "float")), WeightFormat("int4", 32), [], [], []
    for layer in layers.find(graph, find("int4")):
        edit.quantize_weight(layer, form, lambda layer=layer: calls.append(layer.name) or edit.rounded(layer, form))
    (tmp_path / "out").mkdir()
    write.save(graph, tmp_path / "out", advance=advanced.append, made=lambda name, codes: told.append((name, codes.nbytes)))
    assert calls == ["node_h", "node_y"]
    assert told == [("node_h", 64 * 256 * 5 // 8), ("node_y", 256 * 192 * 5 // 8)]  # 4 bits, and a float32 for every 32
    assert sum(advanced) == sum(size for _, size in told)


def test_whoever_reads_before_writing_gets_the_same(tmp_path):
    graph = open_source(model_of(_proto(_node("MatMul", "x w"), w=_w(64, 96)), tmp_path / "float"))
    (layer,) = layers.find(graph, find("int4"))
    edit.quantize_weight(layer, WeightFormat("int4", 32), lambda: edit.rounded(layer, WeightFormat("int4", 32)))
    value = graph.graph.initializers["w_int4"]
    assert pending.of(value) is not None and pending.of(graph.graph.inputs[0]) is None
    want = edit.rounded(layer, WeightFormat("int4", 32))
    np.testing.assert_array_equal(value.const_value.numpy().astype(np.int8), want.codes.astype(np.int8))
    np.testing.assert_array_equal(graph.graph.initializers["w_int4_scale"].const_value.numpy(), want.scale)


def test_codes_of_odd_counts_are_packed(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "EMBED_BYTES", 0)
    monkeypatch.setattr(write, "INSIDE_BYTES", 0)
    monkeypatch.setattr(write, "_PACKED_CODES", 64)
    made = quantised(model_of(_proto(_node("MatMul", "x w"), w=_w(64, 97)), tmp_path / "float"), "int4", tmp_path / "out")
    want = round_to_nearest(_w(64, 97), WeightFormat("int4", 32), 1, 0)
    got = open_source(made).graph.initializers["w_int4"].const_value
    np.testing.assert_array_equal(got.numpy().astype(np.int8), want.codes.astype(np.int8))


def test_names_are_free_names():
    graph = ir.Graph([ir.Value(name="a")], [], nodes=[], name="g", opset_imports={"": 21})
    assert [fresh(graph, name) for name in ("a", "a", "b", "b")] == ["a_2", "a_3", "b", "b_2"]
