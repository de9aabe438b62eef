"""Every scheme's output runs in ONNX Runtime, and TensorRT-RTX builds an engine of it on a machine without a GPU (for 8.9, Ada).

The models: nano as fp16 (for prompts TensorRT-RTX has no attention in fp32, quantised or not), and three small vision models with the
weights they were born with.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from ernie_cli import nano, route
from ernie_cli.errors import UnsupportedError
from ernie_cli.model import Model
from ernie_cli.quant.options import Options
from ernie_cli.quant.quantize import quantize
from ernie_cli.quant.scheme import schemes

pytest.importorskip(
    "tensorrt_rtx_bindings", reason="needs the TensorRT-RTX wheels: pip install 'ernie-cli[rtx]' (Linux and Windows on x86-64)"
)

import tensorrt_build
import vision

VISION = ("resnet", "mobilenet", "vit")
#: Types of codes that must be found in the file, or the scheme did nothing.
CODES = {"int8": {onnx.TensorProto.INT8}, "int4": {onnx.TensorProto.INT4}, "fp8": {onnx.TensorProto.FLOAT8E4M3FN}}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`sources(name)` → an ONNX folder, made once."""
    folder = tmp_path_factory.mktemp("sources")

    def make(name: str) -> Path:
        out = folder / name
        if name == "nano" and not out.exists():
            route.convert(nano.path(), to="onnx", out=out, options=route.Options(dtype="fp16", kv_cache="static", verify=False))
        elif not out.exists():
            import torch

            torch.manual_seed(0)
            out.mkdir()
            net = vision.NETS[name]
            vision._export(net.build().eval(), torch.zeros(2, 3, net.side, net.side), out / "model.onnx", fold=True)
        return out

    return make


def quantized(source: Path, scheme: str, out: Path, block: int = 32) -> Model:
    """Through the door, with as little data as will do: engines do not depend on scales."""
    options = Options(measure=False, samples=2, observer="minmax", smooth="off", block=block)
    if scheme in ("int8", "fp8") and source.name in VISION:
        np.savez(out.parent / "data.npz", **{vision.INPUT: vision.images(2, seed=0)})
        options = Options(measure=False, observer="minmax", smooth="off", data=str(out.parent / "data.npz"))
    return quantize(source, scheme, out, options)


def runs(file: Path) -> None:
    """In a session of a user's own: no option of ours. Outputs are numbers."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    feeds = {}
    for value in session.get_inputs():
        shape = [length if isinstance(length, int) else 1 for length in value.shape]
        if value.type == "tensor(float8e4m3fn)":
            feeds[value.name] = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(np.zeros(shape, np.uint8), onnx.TensorProto.FLOAT8E4M3FN)
        else:
            kind = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int8)": np.int8, "tensor(int64)": np.int64}
            feeds[value.name] = np.zeros(shape, kind[value.type])
    result = session.run(["logits"], feeds)[0]
    assert np.isfinite(result).all()


def holds(file: Path, scheme: str) -> bool:
    """Whether the graph has codes of the scheme's types."""
    graph = onnx.load(file).graph
    types = {tensor.data_type for tensor in graph.initializer} | {value.type.tensor_type.elem_type for value in graph.input}
    found = schemes()[scheme]
    wanted = {found.weight.type if found.weight else "", found.cache} - {""}
    return all(CODES[kind] & types for kind in wanted)


def test_the_table_below_has_every_scheme():
    assert {scheme for scheme, _ in NANO} == set(schemes())
    assert {scheme for scheme, found in schemes().items() if not found.cache} == set(WITHOUT_CACHE)


NANO = [
    *((name, 32) for name in ("int8", "int8-weight", "fp8", "fp8-weight", "int8-kv", "fp8-kv")),
    *(("int4", block) for block in (32, 64, 128)),
]
WITHOUT_CACHE = ("int8", "int8-weight", "fp8", "fp8-weight", "int4")


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "block"), NANO)
def test_nano(scheme, block, sources, tmp_path):
    file = quantized(sources("nano"), scheme, tmp_path / "out", block).main_file()
    assert holds(file, scheme)
    runs(file)
    profiles = (
        tensorrt_build.PREFILL_AND_DECODE if scheme == "int8" else tensorrt_build.PREFILL_AND_DECODE[1:]
    )  # prompts once: it takes long
    engine = tensorrt_build.build(file, tensorrt_build.DECODER, profiles)
    assert len(engine.plan) > 1_000_000 and engine.layers > 500


@pytest.mark.slow
@pytest.mark.parametrize("scheme", WITHOUT_CACHE)
@pytest.mark.parametrize("name", VISION)
def test_vision(name, scheme, sources, tmp_path):
    file = quantized(sources(name), scheme, tmp_path / "out").main_file()
    assert scheme in ("int4", "int8-weight") or holds(file, scheme)  # int4 fits no convolution
    runs(file)
    engine = tensorrt_build.build(file, {"batch": 1})
    assert len(engine.plan) > 100_000


@pytest.mark.parametrize(("capability", "scheme", "said"), [("8.6", "fp8-weight", "fp8_e4m3"), ("7.5", "int4", "int4")])
def test_older_gpus_are_refused_as_targets_py_says(capability, scheme, said, sources, tmp_path):
    file = quantized(sources("resnet"), scheme, tmp_path / "out").main_file()
    with pytest.raises(UnsupportedError, match=f"HW-specific datatypes: {said}"):
        tensorrt_build.build(file, {"batch": 1}, capability=capability)


def test_what_the_parser_refuses_is_said_with_the_node(tmp_path):
    """A growing cache: the known limit, and how such a text looks."""
    made = route.convert(nano.path(), to="onnx", out=tmp_path / "onnx", options=route.Options(kv_cache="growing", verify=False))
    problems = tensorrt_build.parse_problems(made.main_file(), {"batch": 1})
    assert len(problems) == 1
    assert problems[0].startswith("Attention `model.layers.0.self_attn.attention`: ")
    assert "one output" in problems[0]
