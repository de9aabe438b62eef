"""The neural-network operators against ONNX Runtime, where ONNX's own backend tests (test_backend_nodes) do not look: older opsets,
attributes in combination, sizes that do not divide evenly. Input shapes are symbolic, so that nothing can be frozen."""

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from ernie_cli.torchscript import module
from ernie_cli.torchscript.types import array_of, tensor_of

TYPES = {"float32": TensorProto.FLOAT, "int32": TensorProto.INT32, "int64": TensorProto.INT64, "uint8": TensorProto.UINT8}
TYPES |= {"int8": TensorProto.INT8, "float16": TensorProto.FLOAT16, "bool": TensorProto.BOOL}


def model_of(op: str, inputs: list[Any], opset: int, outputs: list[str], constants: tuple[int, ...], attributes: dict[str, Any]) -> Any:
    """One node; None is an absent input. `constants` are initializers, the rest inputs of known rank and unknown lengths."""
    names = [f"x{i}" if value is not None else "" for i, value in enumerate(inputs)]
    fed = [i for i, value in enumerate(inputs) if value is not None and i not in constants]
    infos = [
        helper.make_tensor_value_info(names[i], TYPES[inputs[i].dtype.name], [f"n{i}_{axis}" for axis in range(inputs[i].ndim)])
        for i in fed
    ]
    weights = [numpy_helper.from_array(inputs[i], names[i]) for i in constants]
    results = [helper.make_empty_tensor_value_info(name) for name in outputs if name]
    node = helper.make_node(op, names, outputs, **attributes)
    graph = helper.make_graph([node], "g", infos, results, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), {names[i]: inputs[i] for i in fed}


def both(
    op: str, inputs: list[Any], opset: int = 22, outputs: tuple[str, ...] = ("y",), constants: tuple[int, ...] = (), **attributes: Any
) -> tuple[list[Any], list[Any]]:
    """(ONNX Runtime's outputs, ours)."""
    proto, feeds = model_of(op, inputs, opset, list(outputs), constants, attributes)
    proto = onnx.shape_inference.infer_shapes(proto)
    expected = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)
    written = module.write(ir.from_proto(proto))
    assert [use[3] for use in written.uses if use[2] is None] == []
    with torch.no_grad():
        made = module.compile_written(written)(*map(tensor_of, feeds.values()))
    return expected, [array_of(value) for value in (made if isinstance(made, tuple) else (made,))]


def check(op: str, inputs: list[Any], rtol: float = 1e-4, atol: float = 2e-6, **more: Any) -> None:
    expected, made = both(op, inputs, **more)
    assert len(expected) == len(made)
    for want, got in zip(expected, made, strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), rtol=rtol, atol=atol)


def r(*shape: int, seed: int = 0, dtype: str = "float32") -> Any:
    """Seeded values: normal floats, or every value of a byte type."""
    random = np.random.default_rng(seed + sum(shape))
    if dtype in ("uint8", "int8"):
        return random.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, shape).astype(dtype)
    return random.standard_normal(shape).astype(dtype)


def f(*values: float) -> Any:
    return np.array(values, np.float32)


def i(*values: int) -> Any:
    return np.array(values, np.int64)


CASES: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "softmax 11": ("Softmax", [r(2, 3, 4)], {"opset": 11, "axis": 1}),
    "softmax 7": ("Softmax", [r(2, 3, 4)], {"opset": 7}),
    "log softmax 11": ("LogSoftmax", [r(2, 3, 4)], {"opset": 11, "axis": 2}),
    "hardmax 11": ("Hardmax", [r(2, 3, 4)], {"opset": 11, "axis": 1}),
    "prelu": ("PRelu", [r(2, 3, 4, 5), r(3, 1, 1)], {"opset": 16}),
    "softplus": ("Softplus", [f(-100, -1, 0, 1, 19, 21, 100)], {}),
    "selu": ("Selu", [r(5)], {"alpha": 2.0, "gamma": 3.0}),
    "conv, unequal pads": ("Conv", [r(1, 4, 9, 8), r(6, 2, 3, 2), r(6)], {"pads": [1, 0, 2, 1], "strides": [2, 1], "group": 2}),
    "conv, same lower": ("Conv", [r(1, 4, 9, 8), r(6, 4, 3, 2)], {"auto_pad": "SAME_LOWER", "strides": [2, 3]}),
    "conv, 1 axis": ("Conv", [r(2, 3, 9), r(5, 3, 3), r(5)], {"dilations": [2]}),
    "conv, 3 axes": ("Conv", [r(1, 2, 5, 6, 7), r(3, 2, 2, 3, 2)], {"auto_pad": "SAME_UPPER", "strides": [2, 2, 2]}),
    "conv transpose, same": ("ConvTranspose", [r(1, 2, 5, 4), r(2, 3, 3, 3), r(3)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "conv transpose, shape": ("ConvTranspose", [r(1, 2, 5, 4), r(2, 3, 3, 3)], {"output_shape": [10, 9], "strides": [2, 2]}),
    "conv transpose, pads": (
        "ConvTranspose", [r(1, 4, 5, 4), r(4, 3, 3, 2), r(6)],
        {"pads": [1, 0, 0, 1], "strides": [2, 3], "group": 2, "output_padding": [1, 2]},
    ),
    "conv integer": (
        "ConvInteger", [r(1, 3, 6, 5, dtype="uint8"), r(4, 3, 3, 2, dtype="int8"), np.uint8(7), np.int8(-3)],
        {"pads": [1, 0, 1, 1], "opset": 10},
    ),
    "average, ceil": ("AveragePool", [r(1, 2, 8, 9)], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "pads": [1, 1, 1, 1]}),
    "average, ceil, counted": (
        "AveragePool", [r(1, 2, 8, 9)],
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "pads": [1, 0, 0, 1], "count_include_pad": 1},
    ),
    "average, dilated": ("AveragePool", [r(1, 2, 8, 9)], {"kernel_shape": [3, 2], "dilations": [2, 3], "pads": [1, 0, 2, 1]}),
    "max, unequal pads": ("MaxPool", [r(1, 2, 8, 9)], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "pads": [0, 1, 2, 1]}),
    "max, bytes": ("MaxPool", [r(1, 2, 8, 9, dtype="int8")], {"kernel_shape": [3, 2], "opset": 12}),
    "max, indices": (
        "MaxPool", [r(2, 3, 8, 9)],
        {"kernel_shape": [3, 3], "strides": [2, 3], "pads": [1, 0, 1, 2], "outputs": ("y", "i")},
    ),
    "max, indices by column": ("MaxPool", [r(2, 3, 8, 9)], {"kernel_shape": [2, 3], "storage_order": 1, "outputs": ("y", "i")}),
    "max, indices of 3 axes": ("MaxPool", [r(2, 2, 4, 5, 6)], {"kernel_shape": [2, 2, 2], "outputs": ("y", "i")}),
    "lp pool": ("LpPool", [r(1, 2, 8, 9)], {"kernel_shape": [3, 3], "strides": [2, 2], "p": 3, "pads": [1, 1, 0, 0]}),
    "global lp": ("GlobalLpPool", [r(2, 3, 4, 5)], {"p": 1, "opset": 12}),
    "max unpool": ("MaxUnpool", [r(1, 1, 2, 2), i(0, 3, 9, 15).reshape(1, 1, 2, 2)], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "roi align, as many points as fit": (
        "RoiAlign", [r(2, 3, 12, 10), f(0, 0, 9, 8, 2, 1, 6, 11, -2, 3, 4, 14).reshape(3, 4), i(0, 1, 1)],
        {"output_height": 3, "output_width": 2, "spatial_scale": 0.9, "opset": 16},
    ),
    "roi align 10": (
        "RoiAlign", [r(2, 3, 12, 10), f(0, 0, 9, 8, 2, 1, 2.5, 1.2).reshape(2, 4), i(0, 1)],
        {"output_height": 3, "output_width": 2, "sampling_ratio": 2, "opset": 10},
    ),
    "max roi pool": (
        "MaxRoiPool", [r(2, 3, 12, 10), f(0, 0, 0, 9, 8, 1, 2, 1, 6, 11, 1, 5, 5, 5, 5).reshape(3, 5)],
        {"pooled_shape": [3, 2], "spatial_scale": 0.8, "opset": 12},
    ),
    "batch norm 7": ("BatchNormalization", [r(2, 3, 4), r(3), r(3, seed=1), r(3, seed=2), abs(r(3))], {"opset": 7, "epsilon": 0.01}),
    "instance norm": ("InstanceNormalization", [r(2, 3, 4, 5), r(3), r(3, seed=1)], {}),
    "layer norm, statistics": ("LayerNormalization", [r(2, 3, 4), r(4), r(4, seed=1)], {"outputs": ("y", "m", "s"), "opset": 17}),
    "layer norm, weights": ("LayerNormalization", [r(2, 3, 4), r(4), r(4, seed=1)], {"constants": (1, 2), "opset": 17}),
    "lp norm": ("LpNormalization", [r(2, 3, 4)], {"axis": 1, "p": 1}),
    "lrn": ("LRN", [r(2, 7, 4, 5)], {"size": 3, "alpha": 0.3, "beta": 0.6, "bias": 2.0, "opset": 13}),
    "lstm": ("LSTM", [r(5, 2, 3), r(1, 16, 3), r(1, 16, 4), r(1, 32)], {"hidden_size": 4, "outputs": ("y", "h", "c")}),
    "lstm, both ways, lengths, states, peepholes": (
        "LSTM",
        [r(5, 2, 3), r(2, 16, 3), r(2, 16, 4), r(2, 32), np.array([5, 3], np.int32), r(2, 2, 4), r(2, 2, 4, seed=1), r(2, 12)],
        {"hidden_size": 4, "direction": "bidirectional", "outputs": ("y", "h", "c")},
    ),
    "lstm, backwards, lengths all full": (
        "LSTM", [r(5, 2, 3), r(1, 16, 3), r(1, 16, 4), None, np.array([5, 5], np.int32)],
        {"hidden_size": 4, "direction": "reverse", "outputs": ("y", "h")},
    ),
    "lstm, clip": (
        "LSTM", [r(5, 2, 3), r(1, 16, 3), r(1, 16, 4)],
        {"hidden_size": 4, "clip": 0.4, "outputs": ("", "h")},
    ),
    "lstm, other activations": (
        "LSTM", [r(5, 2, 3), r(1, 16, 3), r(1, 16, 4)],
        {"hidden_size": 4, "activations": ["HardSigmoid", "Softsign", "Relu"], "activation_alpha": [0.3], "activation_beta": [0.4]},
    ),
    "gru": ("GRU", [r(5, 2, 3), r(1, 12, 3), r(1, 12, 4), r(1, 24), None, r(1, 2, 4)], {"hidden_size": 4, "outputs": ("y", "h")}),
    "gru, reset after, both ways, lengths": (
        "GRU", [r(5, 2, 3), r(2, 12, 3), r(2, 12, 4), r(2, 24), np.array([2, 4], np.int32)],
        {"hidden_size": 4, "direction": "bidirectional", "linear_before_reset": 1, "outputs": ("y", "h")},
    ),
    "gru, reset after": (
        "GRU", [r(5, 2, 3), r(2, 12, 3), r(2, 12, 4), r(2, 24)],
        {"hidden_size": 4, "direction": "bidirectional", "linear_before_reset": 1, "outputs": ("y", "h")},
    ),
    "rnn, relu": (
        "RNN", [r(5, 2, 3), r(1, 4, 3), r(1, 4, 4), r(1, 8)],
        {"hidden_size": 4, "activations": ["Relu"], "direction": "reverse"},
    ),
    "rnn": ("RNN", [r(5, 2, 3), r(1, 4, 3), r(1, 4, 4), r(1, 8)], {"hidden_size": 4, "outputs": ("y", "h")}),
    "upsample 7": ("Upsample", [r(1, 2, 3, 4)], {"opset": 7, "mode": "nearest", "scales": [1.0, 1.0, 2.0, 3.0]}),
    "upsample 9, linear": ("Upsample", [r(1, 2, 3, 4), f(1, 1, 2, 3)], {"opset": 9, "mode": "linear", "constants": (1,)}),
    "resize 10, growing": ("Resize", [r(1, 2, 3, 4), f(1, 1, 2.5, 3)], {"opset": 10, "mode": "nearest"}),
    "resize 10, shrinking": ("Resize", [r(1, 2, 9, 8), f(1, 1, 0.4, 0.5)], {"opset": 10, "mode": "nearest"}),
    "grid sample": ("GridSample", [r(2, 3, 5, 6), r(2, 4, 3, 2)], {"opset": 16, "mode": "bicubic", "padding_mode": "reflection"}),
    "dynamic quantize": ("DynamicQuantizeLinear", [r(3, 4)], {"opset": 11, "outputs": ("y", "s", "z")}),
    "quantize, per axis": ("QuantizeLinear", [3 * r(2, 3, 4), f(0.1, 0.2, 0.3), np.array([0, 5, -7], np.int8)], {"opset": 13, "axis": 1}),
    "dequantize 10": ("DequantizeLinear", [r(2, 3, dtype="uint8"), np.float32(0.1), np.uint8(9)], {"opset": 10}),
    "qlinear conv, per channel": (
        "QLinearConv",
        [r(1, 3, 6, 5, dtype="uint8"), np.float32(0.05), np.uint8(120), r(4, 3, 3, 3, dtype="int8"), f(0.02, 0.03, 0.04, 0.05),
         np.zeros(4, np.int8), np.float32(0.9), np.uint8(110), np.array([10, -2000, 30, 400], np.int32)],
        {"pads": [1, 1, 1, 1], "opset": 10, "constants": (1, 2, 3, 4, 5, 6, 7, 8)},
    ),
    "matmul integer": ("MatMulInteger", [r(2, 3, 40, dtype="uint8"), r(40, 5, dtype="int8"), np.uint8(3)], {"opset": 10}),
    "nms": (
        "NonMaxSuppression",
        [abs(r(2, 30, 4)) * 4, abs(r(2, 3, 30)), i(6), f(0.3), f(0.5)], {"opset": 11},
    ),
    "nms, centres": (
        "NonMaxSuppression", [abs(r(2, 30, 4)) * 4, abs(r(2, 3, 30)), i(6), f(0.3)], {"opset": 11, "center_point_box": 1},
    ),
    "dropout 7": ("Dropout", [r(3, 4)], {"opset": 7, "ratio": 0.3}),
    "dropout 12": ("Dropout", [r(3, 4), np.float32(0.3), np.bool_(False)], {"opset": 12, "outputs": ("y", "mask")}),
    "stft": ("STFT", [r(2, 30, 1), i(5)[0], r(8)], {"opset": 17}),
    "mvn": ("MeanVarianceNormalization", [r(2, 3, 4, 5)], {"opset": 13, "axes": [0, 2]}),
    "deform conv": (
        "DeformConv", [r(2, 4, 6, 5), r(6, 2, 3, 2), r(2, 24, 5, 6), r(6), abs(r(2, 12, 5, 6))],
        {"pads": [1, 1, 0, 1], "strides": [1, 1], "group": 2, "offset_group": 2, "kernel_shape": [3, 2]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_operator(name: str) -> None:
    op, inputs, more = CASES[name]
    check(op, [value if value is None else np.asarray(value) for value in inputs], **more)


LINEAR = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners", "half_pixel_symmetric")
RESIZES = [
    *((mode, where, "floor") for mode in ("linear", "cubic") for where in LINEAR),
    *(("nearest", where, how) for where in LINEAR for how in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")),
]


@pytest.mark.parametrize("target", [(1, 2, 8, 10), (1, 2, 7, 4), (1, 2, 1, 13)], ids=str)
@pytest.mark.parametrize(("mode", "where", "how"), RESIZES)
def test_resize_to_sizes(mode: str, where: str, how: str, target: tuple[int, ...]) -> None:
    settings = {"mode": mode, "coordinate_transformation_mode": where, "nearest_mode": how}
    check("Resize", [r(1, 2, 4, 5), None, None, i(*target)], opset=19, constants=(3,), rtol=1e-3, atol=1e-5, **settings)


@pytest.mark.parametrize("scale", [(2.0, 3.0), (0.5, 0.6), (1.7, 0.3)], ids=str)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize_by_scales(mode: str, scale: tuple[float, float]) -> None:
    check("Resize", [r(2, 3, 10, 10), None, f(1, 1, *scale)], opset=13, mode=mode, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_resize_antialias(mode: str) -> None:
    settings = {"antialias": 1, "exclude_outside": 1, "constants": (3,), "rtol": 1e-3, "atol": 1e-4}
    check("Resize", [r(1, 2, 20, 15), None, None, i(1, 2, 7, 6)], opset=18, mode=mode, **settings)


def test_resize_crop() -> None:
    crop, settings = f(0.1, -0.2, 0.8, 0.9), {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize", "axes": [2, 3]}
    check("Resize", [r(1, 2, 6, 7), crop, None, i(5, 4)], opset=18, constants=(1, 3), extrapolation_value=9.0, **settings)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_grid_sample(mode: str, padding: str, corners: int, axes: int) -> None:
    x, grid = (r(2, 3, 5, 6), r(2, 4, 3, 2)) if axes == 2 else (r(2, 3, 4, 5, 6), r(2, 3, 4, 2, 3))
    check("GridSample", [x, grid], opset=20, atol=1e-5, mode=mode, padding_mode=padding, align_corners=corners)


newest = pytest.mark.skipif(onnx.defs.onnx_opset_version() < 23, reason="this onnx knows no Attention: `make test-newest-onnx` runs these")
MASKS = {
    "none": None,
    "bool": r(2, 1, 5, 7) > -0.5,
    "bool of 2 axes": r(5, 7) > -0.5,
    "float of 3 axes": r(4, 5, 7),
    "hides a whole row": np.where(np.arange(5).reshape(1, 1, 5, 1) == 2, np.float32(-np.inf), r(2, 4, 5, 7)),
}


@newest
@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("mask", MASKS)
def test_attention(mask: str, kv_heads: int, causal: int) -> None:
    """With a past of 2 positions, three axes."""
    inputs = [r(2, 5, 32), r(2, 5, kv_heads * 8, seed=1), r(2, 5, kv_heads * 8, seed=2), MASKS[mask]]
    past = [r(2, kv_heads, 2, 8), r(2, kv_heads, 2, 8, seed=3)]
    heads = {"q_num_heads": 4, "kv_num_heads": kv_heads, "is_causal": causal}
    if mask == "hides a whole row":  # ONNX: zeros; ONNX Runtime 1.31 does not say
        made = both("Attention", [*inputs, *past], opset=23, outputs=("y", "k", "v"), **heads)[1][0]
        assert np.isfinite(made).all() and (made[:, 2] == 0).all()
        return
    check("Attention", [*inputs, *past], opset=23, outputs=("y", "k", "v"), **heads)


@newest
@pytest.mark.parametrize("causal", [0, 1])
def test_attention_without_past(causal: int) -> None:
    check("Attention", [r(2, 4, 5, 8), r(2, 2, 5, 8), r(2, 2, 5, 6)], opset=23, is_causal=causal, scale=0.4)


@newest
@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_attention_scores(mode: int) -> None:
    inputs = [r(1, 2, 3, 8), r(1, 2, 5, 8), r(1, 2, 5, 6), r(2, 3, 5)]
    check("Attention", inputs, opset=23, outputs=("y", "", "", "scores"), qk_matmul_output_mode=mode)


@newest
@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotary(interleaved: int) -> None:
    positions = np.array([[3, 1, 0], [2, 2, 4]])
    check("RotaryEmbedding", [r(2, 3, 32), r(6, 4), r(6, 4, seed=1), positions], opset=23, num_heads=4, interleaved=interleaved)
    check("RotaryEmbedding", [r(2, 4, 3, 8), r(2, 3, 2), r(2, 3, 2, seed=1)], opset=23, rotary_embedding_dim=4, interleaved=interleaved)
