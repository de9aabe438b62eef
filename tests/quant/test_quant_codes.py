"""Codes and scales: the nearest ones, whatever the layout, and worth exactly what DequantizeLinear makes of them."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from ernie_cli.quant import rounding
from ernie_cli.quant.codes import NUMPY, Codes, encode, fit, round_to_nearest
from ernie_cli.quant.edit import IR_TYPES
from ernie_cli.quant.scheme import TYPES, WeightFormat

FORMS = [WeightFormat("int8"), WeightFormat("fp8"), WeightFormat("int4", 32), WeightFormat("int4", 128), WeightFormat("int8", 32)]
FLOATS = [np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]


def _weight(shape=(256, 48), dtype=np.float32, seed=0) -> np.ndarray:
    return (0.02 * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def _id(value: object) -> str:
    return f"{value.type}-{value.block}" if isinstance(value, WeightFormat) else str(value)


def _dequantize(codes: Codes) -> onnx.ModelProto:
    """A graph of nothing but DequantizeLinear."""
    held = {"codes": codes.codes, "scale": codes.scale}
    tensors = [ir.tensor(np.ascontiguousarray(array), name=name) for name, array in held.items()]
    values = [ir.Value(name=t.name, type=ir.TensorType(t.dtype), shape=ir.Shape(t.shape.numpy()), const_value=t) for t in tensors]
    attributes = {"axis": codes.axis, **({"block_size": codes.block} if codes.block else {})}
    out = ir.Value(name="y", type=ir.TensorType(tensors[1].dtype), shape=ir.Shape(codes.codes.shape))
    node = ir.node("DequantizeLinear", values, attributes, outputs=[out], name="dequantize")
    graph = ir.Graph([], [out], nodes=[node], initializers=values, opset_imports={"": 21}, name="g")
    return ir.to_proto(ir.Model(graph, ir_version=10))


@pytest.mark.parametrize("axes", [(1, 0), (0, 1)], ids=["in_out", "out_in"])
@pytest.mark.parametrize("dtype", FLOATS[:2], ids=_id)
@pytest.mark.parametrize("form", FORMS, ids=_id)
def test_dequantized_is_what_onnxruntime_computes(form, dtype, axes):
    ort = pytest.importorskip("onnxruntime", reason="the runtime compared with")
    codes = round_to_nearest(_weight((256, 256), dtype), form, *axes, dtype=dtype)
    (got,) = ort.InferenceSession(_dequantize(codes).SerializeToString()).run(None, {})
    assert got.dtype == dtype == codes.scale.dtype
    np.testing.assert_array_equal(got.astype(np.float32), codes.dequantized())


@pytest.mark.parametrize("form", FORMS[:2] + FORMS[-1:], ids=_id)
def test_dequantized_is_what_onnx_says(form):
    codes = round_to_nearest(_weight(), form, 1, 0)
    (got,) = ReferenceEvaluator(_dequantize(codes)).run(None, {})
    np.testing.assert_array_equal(got, codes.dequantized())


@pytest.mark.parametrize("dtype", FLOATS, ids=_id)
@pytest.mark.parametrize("form", FORMS, ids=_id)
def test_no_code_is_nearer(form, dtype):
    weight = _weight(dtype=dtype)
    codes = round_to_nearest(weight, form, 1, 0, dtype=dtype)
    assert (codes.scale > 0).all()
    every = (
        np.arange(256, dtype=np.uint8).view(NUMPY["fp8"]).astype(np.float32) if form.type == "fp8" else np.arange(-8, 8, dtype=np.float32)
    )
    if form.type == "int8":
        every = np.arange(-127, 128, dtype=np.float32)
    every = np.unique(every[np.isfinite(every)])
    scale = np.repeat(codes.scale, form.block, axis=0) if form.block else codes.scale
    wanted, got = weight.astype(np.float32) / scale.astype(np.float32), codes.codes.astype(np.float32)
    nearest = np.abs(every - wanted[..., None]).min(-1)
    assert np.abs(got - wanted) == pytest.approx(nearest, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("form", FORMS, ids=_id)
def test_layout_float_type_and_threads_change_nothing(form, monkeypatch):
    weight = _weight((512, 640), ml_dtypes.bfloat16)  # more than one piece
    want = round_to_nearest(weight.astype(np.float32), form, 1, 0)
    monkeypatch.setattr(rounding.host, "cores", lambda: 4)
    others = {
        "bfloat16": round_to_nearest(weight, form, 1, 0),
        "a transposed view": round_to_nearest(np.ascontiguousarray(weight.T).T, form, 1, 0),
        "stored [out, in]": round_to_nearest(np.ascontiguousarray(weight.T), form, 0, 1).turned,
        "float32 [out, in]": round_to_nearest(np.ascontiguousarray(weight.T.astype(np.float32)), form, 0, 1).turned,
    }
    for name, codes in others.items():
        np.testing.assert_array_equal(codes.codes.astype(np.float32), want.codes.astype(np.float32), err_msg=name)
        np.testing.assert_array_equal(codes.scale, want.scale, err_msg=name)
        assert (codes.axis, codes.block) == (want.axis, want.block)


@pytest.mark.parametrize("shape, axis", [((8, 4, 3, 3), 0), ((4, 8, 3, 3), 1), ((8, 1, 5), 0), ((8, 4, 2, 2, 2), 0)])
@pytest.mark.parametrize("form", FORMS[:2], ids=_id)
def test_convolutions_have_a_scale_per_channel(shape, axis, form):
    weight = _weight(shape)
    codes = round_to_nearest(weight, form, axis, 1 - axis)
    assert codes.codes.shape == shape and codes.scale.shape == (8,) and codes.axis == axis
    peaks = np.abs(weight).max(axis=tuple(at for at in range(len(shape)) if at != axis))
    np.testing.assert_array_equal(codes.scale, peaks / np.float32(TYPES[form.type][0]))
    step = codes.scale.max() * (16 if form.type == "fp8" else 0.5)  # half the distance of the largest codes of E4M3: 32 / 2
    assert np.abs(codes.dequantized() - weight).max() <= step * 1.0001


@pytest.mark.parametrize("axes", [(1, 0), (0, 1)], ids=["in_out", "out_in"])
def test_a_last_block_may_be_shorter(axes):
    weight, form = _weight((1000, 600)), WeightFormat("int4", 64)
    whole = round_to_nearest(np.pad(weight, ((0, 24), (0, 0))), form, 1, 0)
    codes = round_to_nearest(weight if axes[1] == 0 else weight.T, form, *axes)
    codes = codes if axes[1] == 0 else codes.turned
    assert codes.scale.shape == (16, 600)
    np.testing.assert_array_equal(codes.dequantized(), whole.dequantized()[:1000])
    np.testing.assert_array_equal(encode(weight, codes.scale, form, 0).dequantized(), codes.dequantized())


def test_int4_scales_lose_less_than_those_that_cover_the_largest_value():
    weight, form = _weight((1024, 64)), WeightFormat("int4", 32)
    largest = np.abs(weight).reshape(32, 32, 64).max(axis=1)
    plain = encode(weight, largest / np.float32(7), form, 0)
    chosen = round_to_nearest(weight, form, 1, 0)
    lost, before = (np.square(codes.dequantized() - weight).sum() for codes in (chosen, plain))
    assert lost < 0.85 * before  # 0.7 dB
    assert set(np.unique(chosen.codes.astype(np.int8))) == set(range(-8, 8))


@pytest.mark.parametrize("form", FORMS, ids=_id)
@pytest.mark.parametrize("dtype", FLOATS, ids=_id)
def test_zeros_and_values_too_small_for_a_scale(form, dtype):
    weight = np.zeros((256, 4), dtype)
    weight[:, 1] = 1
    weight[:, 2] = np.finfo(dtype).smallest_subnormal if dtype != FLOATS[2] else 1e-40
    codes = round_to_nearest(weight, form, 1, 0, dtype=dtype)
    scale = codes.scale.astype(np.float32).reshape(-1, 4)
    assert (scale > 0).all() and (scale[:, 0] == 1).all()
    np.testing.assert_array_equal(codes.dequantized()[:, 0], 0)
    assert codes.dequantized()[:, 1] == pytest.approx(1, rel=1e-2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", FORMS, ids=_id)
def test_what_is_not_finite_is_refused(form, bad):
    weight = _weight()
    weight[200, 3] = bad
    with pytest.raises(FloatingPointError):
        round_to_nearest(weight, form, 1, 0)


def test_e4m3_rounds_as_ml_dtypes_does():
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    random = np.random.default_rng(0).uniform(-460, 460, 1 << 16).astype(np.float32)
    values = np.concatenate([halves[np.isfinite(halves)], random, random * np.float32(2**-15)]).clip(-448, 448)
    np.testing.assert_array_equal(rounding.e4m3_bits(values), values.astype(NUMPY["fp8"]).view(np.uint8))


def test_int4_codes_are_kept_as_ml_dtypes_keeps_them():
    codes = round_to_nearest(_weight(), WeightFormat("int4", 32), 1, 0).codes
    np.testing.assert_array_equal(codes.view(np.uint8), codes.astype(np.int8).astype(NUMPY["int4"]).view(np.uint8))


@pytest.mark.parametrize("form", FORMS, ids=_id)
def test_bytes_are_those_in_a_file(form):
    codes = round_to_nearest(_weight(), form, 1, 0)
    scales = 256 // form.block * 48 if form.block else 48
    assert codes.nbytes == 256 * 48 // (2 if form.type == "int4" else 1) + 4 * scales
    assert IR_TYPES[form.type].numpy() == codes.codes.dtype


@pytest.mark.parametrize(
    "form, length, matrix, want",
    [
        (WeightFormat("int4", 32), 96, True, WeightFormat("int4", 32)),
        (WeightFormat("int4", 128), 96, True, WeightFormat("int4", 32)),
        (WeightFormat("int4", 128), 192, True, WeightFormat("int4", 64)),
        (WeightFormat("int4", 64), 48, True, WeightFormat("int4", 16)),
        (WeightFormat("int4", 32), 100, True, WeightFormat("int8")),
        (WeightFormat("int4", 32), 96, False, WeightFormat("int8")),
        (WeightFormat("int8"), 7, True, WeightFormat("int8")),
        (WeightFormat("fp8"), 7, False, WeightFormat("fp8")),
    ],
)
def test_blocks_that_do_not_divide_give_way(form, length, matrix, want):
    assert fit(form, length, matrix=matrix) == want
