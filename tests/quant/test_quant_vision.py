"""Three vision models through the whole of `quantize`: what is lost on pictures that nothing was calibrated on, and what runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import vision

from ernie_cli.model import Model
from ernie_cli.quant import activations_unsigned
from ernie_cli.quant.options import Options
from ernie_cli.quant.quantize import quantize

onnx_ir = pytest.importorskip("onnx_ir")
NAMES = ("resnet", "mobilenet", "vit")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Model]:
    pytest.importorskip("torch", reason="the models are made by torch and transformers")
    folder = tmp_path_factory.mktemp("vision")
    np.savez(folder / "calibration.npz", pixel_values=vision.images(48, 11))
    return {name: vision.make(name, folder / name) for name in NAMES}


@pytest.fixture(scope="module")
def quantised(models, tmp_path_factory) -> dict[tuple[str, str], Model]:
    made, folder = {}, tmp_path_factory.mktemp("quantised")
    for name, scheme in [*((name, "int8") for name in NAMES), ("vit", "fp8")]:
        options = Options(data=str(models[name].folder.parent / "calibration.npz"), measure=False)
        made[name, scheme] = quantize(models[name], scheme, folder / f"{name}-{scheme}", options)
    return made


def session(source: str | bytes, optimised: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if optimised:
        options.optimized_model_filepath = str(optimised)
    return onnxruntime.InferenceSession(source, options)


def logits(source: str | bytes, count: int = 96) -> np.ndarray:
    return np.asarray(session(source).run(None, {vision.INPUT: vision.images(count, 12)})[0])


def unsigned(model: Model) -> bytes:
    """As a session of ours runs it on a processor."""
    graph = onnx_ir.load(model.main_file())
    assert activations_unsigned.make_unsigned(graph)
    return bytes(onnx_ir.to_proto(graph).SerializeToString())


def loss(wanted: np.ndarray, got: np.ndarray) -> tuple[float, float]:
    """Signal to noise in dB, share of pictures whose first class stays."""
    noise = 10 * np.log10(np.square(wanted).sum() / np.square(wanted - got).sum())
    return float(noise), float((wanted.argmax(1) == got.argmax(1)).mean())


def test_the_models_tell_pictures_apart(models):
    for model in models.values():
        shown, kinds = vision.pictures(96, 12)
        given = session(str(model.main_file())).run(None, {vision.INPUT: shown})[0]
        assert (given.argmax(1) == kinds).mean() > 0.8


@pytest.mark.parametrize(("name", "least_db"), [("resnet", 20), ("mobilenet", 24), ("vit", 28)])
def test_int8_loses_little_on_plain_onnxruntime_and_less_on_ours(name, least_db, models, quantised):
    wanted = logits(str(models[name].main_file()))
    plain, same = loss(wanted, logits(str(quantised[name, "int8"].main_file())))
    ours, same_here = loss(wanted, logits(unsigned(quantised[name, "int8"])))
    assert plain > least_db and ours > plain - 0.5
    assert min(same, same_here) > 0.95


def test_fp8_loses_little(models, quantised):
    lost, same = loss(logits(str(models["vit"].main_file())), logits(str(quantised["vit", "fp8"].main_file())))
    assert lost > 22 and same > 0.95


@pytest.mark.parametrize("name", ["resnet", "mobilenet"])
def test_convolutional_networks_have_no_float_island(name, quantised, tmp_path):
    session(unsigned(quantised[name, "int8"]), tmp_path / "optimised.onnx")
    operators = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert set(operators) <= {
        "QuantizeLinear", "QLinearConv", "QLinearAdd", "QLinearGlobalAveragePool", "QGemm", "NhwcMaxPool", "MaxPool", "Flatten", "Transpose"
    }  # fmt: skip
    assert operators["QuantizeLinear"] == 1  # of the picture


def test_every_product_of_a_transformer_with_weights_is_one_of_integers(quantised, tmp_path):
    session(unsigned(quantised["vit", "int8"]), tmp_path / "optimised.onnx")
    operators = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert operators["MatMulIntegerToFloat"] == 4 * 6  # query, key, value, output, up, down
