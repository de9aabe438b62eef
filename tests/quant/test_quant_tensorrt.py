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
from ernie_cli.engine import builder
from ernie_cli.engine.options import Options as EngineOptions
from ernie_cli.engine.request import Request
from ernie_cli.engine.shapes import Shapes, shapes
from ernie_cli.errors import UnsupportedError
from ernie_cli.model import Model
from ernie_cli.quant.options import Options
from ernie_cli.quant.quantize import quantize
from ernie_cli.quant.scheme import schemes

pytest.importorskip(
    "tensorrt_rtx_bindings", reason="needs the TensorRT-RTX wheels: pip install 'ernie-cli[rtx]' (Linux and Windows on x86-64)"
)

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


def engine(made: Model, lengths: Shapes, folder: Path, capability: str = "8.9") -> int:
    """Bytes of the engine that TensorRT-RTX builds, as quickly as it can, for GPUs of one compute capability."""
    wanted = Request(str(made.main_file()), "tensorrt-rtx", (capability,), lengths.fixed, lengths.profiles, effort=0)
    folder.mkdir()
    return builder.build(wanted, folder).plan.stat().st_size


#: Vision models for one picture at a time.
ONE = Shapes({"batch": 1}, ())


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
    made = quantized(sources("nano"), scheme, tmp_path / "out", block)
    assert holds(made.main_file(), scheme)
    runs(made.main_file())
    lengths = shapes(made, EngineOptions(context=128, chunk=64))
    if scheme != "int8":  # prompts once: it takes long
        lengths = Shapes(lengths.fixed, tuple(each for each in lengths.profiles if each.name == "decode"))
    assert engine(made, lengths, tmp_path / "engine") > 1_000_000


@pytest.mark.slow
@pytest.mark.parametrize("scheme", WITHOUT_CACHE)
@pytest.mark.parametrize("name", VISION)
def test_vision(name, scheme, sources, tmp_path):
    made = quantized(sources(name), scheme, tmp_path / "out")
    assert scheme in ("int4", "int8-weight") or holds(made.main_file(), scheme)  # int4 fits no convolution
    runs(made.main_file())
    assert engine(made, ONE, tmp_path / "engine") > 100_000


@pytest.mark.parametrize(("capability", "scheme", "said"), [("8.6", "fp8-weight", "fp8_e4m3"), ("7.5", "int4", "int4")])
def test_older_gpus_are_refused_as_targets_py_says(capability, scheme, said, sources, tmp_path):
    made = quantized(sources("resnet"), scheme, tmp_path / "out")
    with pytest.raises(UnsupportedError, match=f"HW-specific datatypes: {said}"):
        engine(made, ONE, tmp_path / "engine", capability)
