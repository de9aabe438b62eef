"""Quantised folders for the tests of reports and budgets: the rooms' own parts put together, weights alone, no measuring."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ernie_cli import nano, route
from ernie_cli.model import Model, write_manifest
from ernie_cli.onnxgraph.load import load
from ernie_cli.quant import edit, layers, write
from ernie_cli.quant.scheme import Scheme, WeightFormat
from ernie_cli.staging import MANIFEST

INT4, INT8 = WeightFormat("int4", 32), WeightFormat("int8")
_ALL = Scheme("by hand", "", INT8, operators=("MatMul", "Gemm", "Conv"))


def float_nano(folder: Path) -> Model:
    """The embedded model as ONNX."""
    return route.convert(nano.path(), to="onnx", out=folder, options=route.Options(verify=False))


def names(model: Model) -> list[str]:
    """Its layers, in the order of computation."""
    return [layer.name for layer in layers.find(load(model), _ALL)]


def quantised(model: Model, form: WeightFormat, out: Path, *, reverted: Iterable[str] = ()) -> Model:
    """`model` with all layers but `reverted` in `form`, in the folder `out`, which may hold an older one."""
    out.mkdir(parents=True, exist_ok=True)
    graph, left = load(model), set(reverted)
    for layer in layers.find(graph, _ALL):
        if layer.name not in left:
            own = edit.form_for(layer, form)
            edit.quantize_weight(layer, own, partial(edit.rounded, layer, own))
    graph.graph.opset_imports[""] = max(graph.graph.opset_imports[""], edit.lowest_opset({form.type, "int8"}))
    write.save(graph, out, advance=lambda _: None, made=lambda *_: None)
    for file in model.folder.iterdir():
        if file.suffix not in (".onnx", ".data") and file.name != MANIFEST:
            shutil.copy2(file, out / file.name)
    return write_manifest(out, format="onnx", main="model.onnx")


def conv_net(folder: Path) -> Model:
    """conv1 → Relu → conv2 → mean → fc on 16×16 pictures: two outputs, `scores` [N, 10] and `features` [N, 16]."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array((rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["pixels", "w1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c2"], ["mean"], "pool"),
        helper.make_node("Flatten", ["mean"], ["features"], "flat"),
        helper.make_node("Gemm", ["features", "w3"], ["scores"], "fc", transB=1),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width]) for name, width in (("scores", 10), ("features", 16))]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 3, 16, 16])
    weights = [weight("w1", 8, 3, 3, 3), weight("w2", 16, 8, 3, 3), weight("w3", 10, 16)]
    model = helper.make_model(
        helper.make_graph(nodes, "net", [pixels], ends, weights), opset_imports=[helper.make_opsetid("", 21)], ir_version=10
    )
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "net.onnx")
    return Model.open(folder)


def pictures(count: int = 4) -> list[dict[str, np.ndarray]]:
    """Feeds for the net."""
    rng = np.random.default_rng(1)
    return [{"pixels": rng.random((2, 3, 16, 16), np.float32)} for _ in range(count)]
