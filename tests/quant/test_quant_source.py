"""The float graph of an ONNX model or of a checkpoint: the same as `ernie convert` writes, its weights read one at a time."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_checkpoint import make_checkpoint
from weights_only import fused, model_of, quantised, relative, session

from ernie_cli import route
from ernie_cli.errors import UnsupportedError
from ernie_cli.model import Model
from ernie_cli.quant import layers
from ernie_cli.quant.scheme import find
from ernie_cli.quant.source import open_source

pytest.importorskip("torch", reason="makes the checkpoints")


def _lines(graph: ir.Graph) -> list[str]:
    return [str(ir.serde.serialize_node(node)) for node in graph]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("kv_cache", ["static", "growing"])
def test_a_checkpoint_is_what_convert_makes_of_it(kv_cache, dtype, checkpoint, tmp_path):
    folder, _ = checkpoint(dtype="bfloat16", use_bias=True)
    options = route.Options(dtype=dtype, kv_cache=kv_cache, verify=False)
    want = open_source(route.convert(folder, to="onnx", out=tmp_path / "onnx", options=options)).graph
    got = open_source(Model.open(folder), dtype=dtype, kv_cache=kv_cache).graph
    assert _lines(got) == _lines(want)
    assert [value.name for value in got.initializers.values()] == [value.name for value in want.initializers.values()]
    for name, value in got.initializers.items():
        np.testing.assert_array_equal(value.const_value.numpy(), want.initializers[name].const_value.numpy(), err_msg=name)
        assert value.const_value.tobytes() == want.initializers[name].const_value.tobytes()


def test_either_layout_gives_the_same_codes(checkpoint, tmp_path):
    folder, _ = checkpoint(dtype="bfloat16")
    paddle = route.convert(folder, to="paddle", out=tmp_path / "paddle", options=route.Options(verify=False))
    files = [
        quantised(model, "int4", tmp_path / name).main_file().read_bytes() for name, model in (("a", Model.open(folder)), ("b", paddle))
    ]
    assert files[0] == files[1]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("scheme", ["int4", "int8-weight"])
def test_every_layer_of_a_decoder_is_fused(scheme, tied, checkpoint, tmp_path):
    """ONNX Runtime's n-bit kernel takes every pair; the head, whose weight a checkpoint stores [out, in], included."""
    folder, _ = checkpoint(tie_word_embeddings=tied)
    model = quantised(Model.open(folder), scheme, tmp_path / "out")
    found = fused(model, tmp_path)
    assert found["MatMulNBits"] == 3 * 7 + 1
    assert not {"DequantizeLinear", "MatMul", "Gemm"} & set(found)


@pytest.mark.parametrize("scheme, least_db", [("int4", 7), ("int8-weight", 26), ("fp8-weight", 15)])
def test_logits_stay_near(scheme, least_db, checkpoint, tmp_path):
    torch = pytest.importorskip("torch", reason="the reference")
    folder, reference = checkpoint()
    opened = session(quantised(Model.open(folder), scheme, tmp_path / "out", all_logits=True))
    tokens = np.random.default_rng(0).integers(3, 300, (1, 12))
    past = {v.name: np.zeros((1, v.shape[1], 0, v.shape[3]), np.float32) for v in opened.get_inputs() if v.name != "input_ids"}
    (got,) = opened.run(["logits"], {"input_ids": tokens, **past})
    with torch.no_grad():
        want = reference(torch.from_numpy(tokens)).logits.numpy()
    assert least_db < 10 * np.log10(np.square(want).sum() / np.square(want - got).sum()) < 60


def test_memory_is_bounded_by_the_largest_tensor(tmp_path):
    """16 layers of 9 MB each: whoever holds the float model grows by 150 MB."""
    sizes = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 16, "head_dim": 64, "num_attention_heads": 8}
    make_checkpoint(tmp_path / "hf", dtype="bfloat16", **sizes)
    script = """if True:
        import resource, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[3])
        import onnxscript.optimizer, onnx_ir.passes.common
        from weights_only import Model, quantised, write
        write.EMBED_BYTES = 0
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        quantised(Model.open(sys.argv[1]), "int8-weight", Path(sys.argv[2]))
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // (1 << 20 if sys.platform == "darwin" else 1024))
    """
    command = [sys.executable, "-c", script, str(tmp_path / "hf"), str(tmp_path / "out"), str(Path(__file__).parent)]
    grown_mb = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    weights = sum(math.prod(v.shape) for v in open_source(Model.open(tmp_path / "hf")).graph.initializers.values())
    assert 4 * weights > 140e6 and grown_mb < 50


def _exported(how: str) -> onnx.ModelProto:
    """x @ W as exporters write it: x [2, 64], W [64, 96]."""
    weight = np.random.default_rng(0).standard_normal((64, 96)).astype(np.float32)
    kept = weight.T.copy() if how in ("transposed", "transposed twice", "gemm") else weight
    initializers, inputs = [numpy_helper.from_array(kept, "w")], [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 64])]
    product = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    nodes = {
        "initializer": [product],
        "constant": [helper.make_node("Constant", [], ["w"], value=initializers[0]), product],
        "identity": [helper.make_node("Identity", ["w"], ["i"]), helper.make_node("MatMul", ["x", "i"], ["y"], name="product")],
        "transposed": [
            helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
            helper.make_node("MatMul", ["x", "t"], ["y"], name="product"),
        ],
        "transposed twice": [
            helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
            helper.make_node("Transpose", ["w"], ["u"]),
            helper.make_node("MatMul", ["x", "t"], ["z"], name="product"),
            helper.make_node("Add", ["u", "one"], ["v"]),
            helper.make_node("Sub", ["v", "u"], ["ones"]),
            helper.make_node("ReduceMax", ["ones"], ["most"], keepdims=0),
            helper.make_node("Mul", ["z", "most"], ["y"]),
        ],
        "function": [helper.make_node("Linear", ["x", "w"], ["y"], name="call", domain="local")],
        "gemm": [helper.make_node("Gemm", ["x", "w"], ["y"], name="product", transB=1)],
        "old": [product],
    }[how]
    if how == "constant":
        initializers = []
    if how == "transposed twice":
        initializers.append(numpy_helper.from_array(np.ones((), np.float32), "one"))
    if how == "old":  # before version 4, initializers were inputs, too
        inputs.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [64, 96]))
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 96])
    graph = helper.make_graph(nodes, "g", inputs, [out], initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=3 if how == "old" else 8)
    if how == "function":
        product = helper.make_node("MatMul", ["a", "b"], ["c"], name="product")
        made.functions.append(helper.make_function("local", "Linear", ["a", "b"], ["c"], [product], made.opset_import))
        made.opset_import.append(helper.make_opsetid("local", 1))
    return made


@pytest.mark.parametrize("how", ["initializer", "constant", "identity", "transposed", "transposed twice", "function", "gemm", "old"])
def test_weights_are_found_however_they_were_exported(how, tmp_path):
    model = model_of(_exported(how), tmp_path / "float")
    (layer,) = layers.find(open_source(model), find("int4"))
    assert layer.name.endswith("product") and layer.read().shape == (64, 96)
    made = quantised(model, "int4", tmp_path / "out")
    assert fused(made, tmp_path)["MatMulNBits"] == 1
    x = np.random.default_rng(1).standard_normal((2, 64)).astype(np.float32)
    (want,), (got,) = (session(m, plain=True).run(None, {"x": x}) for m in (model, made))
    assert 0 < relative(want, got) < 0.15
    assert [value.name for value in session(made).get_inputs()] == ["x"]


def test_other_formats_are_to_be_converted_first(tmp_path):
    with pytest.raises(UnsupportedError, match="pdmodel") as caught:
        open_source(Model(tmp_path, "pdmodel", {}))
    assert "ernie convert" in caught.value.hint
