"""The weight-only steps of `ernie quantize` by themselves, and what ONNX Runtime makes of the result."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from ernie_cli.model import Model, write_manifest
from ernie_cli.quant import edit, layers, tables, write
from ernie_cli.quant.opset import raise_opset
from ernie_cli.quant.scheme import WeightFormat, find
from ernie_cli.quant.source import open_source


def model_of(proto: onnx.ModelProto | ir.Model, folder: Path) -> Model:
    """A model folder with this graph."""
    folder.mkdir(parents=True)
    if isinstance(proto, ir.Model):
        ir.save(proto, folder / "model.onnx")
    else:
        onnx.save(proto, folder / "model.onnx")
    return write_manifest(folder, format="onnx", main="model.onnx")


def quantised(model: Model, scheme: str, out: Path, *, block: int = 32, all_logits: bool = False, kv_cache: str = "growing") -> Model:
    """`model` with weights rounded to nearest, in the folder `out`."""
    wanted = find(scheme)
    assert wanted.weight is not None
    graph = open_source(model, all_logits=all_logits, kv_cache=kv_cache)
    raise_opset(graph, edit.lowest_opset({wanted.weight.type}))
    for layer in layers.find(graph, wanted):
        form = edit.form_for(layer, WeightFormat(wanted.weight.type, block if wanted.weight.block else 0))
        edit.quantize_weight(layer, form, lambda layer=layer, form=form: edit.rounded(layer, form))
    tables.narrow_tables(graph)
    out.mkdir(parents=True)
    files = write.save(graph, out, advance=lambda _: None, made=lambda *_: None)
    return write_manifest(out, format="onnx", files=files, main="model.onnx")


def session(model: Model, *, optimised: Path | None = None, plain: bool = False):
    """onnxruntime as runtime/ opens it; plain: nothing fused, float32 arithmetic."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    if plain:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "4")
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    return ort.InferenceSession(str(model.main_file()), options, providers=["CPUExecutionProvider"])


def fused(model: Model, scratch: Path) -> Counter[str]:
    """How many nodes of each operator ONNX Runtime computes after its optimisations."""
    session(model, optimised=scratch / "optimised.onnx")
    return Counter(node.op_type for node in onnx.load(scratch / "optimised.onnx", load_external_data=False).graph.node)


def relative(want: np.ndarray, got: np.ndarray) -> float:
    """The largest difference over the largest value."""
    return float(np.abs(want - got).max() / np.abs(want).max())
