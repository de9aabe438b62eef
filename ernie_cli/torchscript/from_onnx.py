"""ONNX → TorchScript as a whole: load, infer, write, compile, save. Each step has its own file; parity is checked by the route."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import console
from ..coverage import OpUse, refuse
from ..digest import facts_of
from ..errors import InputError, UnsupportedError
from ..model import Model, write_manifest
from ..need import need
from ..onnxgraph.inference import infer
from ..onnxgraph.load import load
from ..route import Options
from ..runtime.graphs import TensorSpec
from . import module
from .coverage import uses
from .emit import Written
from .expand import expand
from .load import said
from .types import HELD

FILE = "model.pt"
_PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64"}


def convert(model: Model, out: Path, options: Options) -> Model:
    """Write `out`/model.pt. Raises UnsupportedError naming every operator without a rule, and what `load` raises."""
    graph, written, expanded = _written(model)
    refuse(uses(written, expanded), "onnx_to_torchscript")
    inputs, outputs = (
        [spec.as_dict() for spec in specs] for specs in (_specs(graph.graph.inputs, graph), _specs(graph.graph.outputs, graph))
    )
    if expanded:
        console.detail(f"expanded into simpler operators: {', '.join(sorted(expanded))}")
    file = out / FILE
    module.save(_compiled(written, model), written, file)
    files = {FILE: facts_of(file)}
    return write_manifest(out, format="torchscript", precision=_precision(written), files=files, main=FILE, inputs=inputs, outputs=outputs)


def coverage(model: Model, options: Options) -> list[OpUse]:
    """How each operator of the graph is mapped, every one without a mapping included."""
    _, written, expanded = _written(model)
    return uses(written, expanded)


def _written(model: Model) -> tuple[Any, Written, set[str]]:
    graph = load(model, known_operators=False)
    _infer(graph)
    try:
        expanded = expand(graph)
    except Exception as err:  # onnx and onnx-ir raise whatever fits
        raise InputError(f"{model.path}: its functions cannot be written out: {said(err)}", "is the file whole?") from err
    if expanded:
        _infer(graph)
    return graph, module.write(graph), expanded


def _infer(graph: Any) -> None:
    """Types and shapes. Not where operators of other domains are left: onnx crashes on damaged ones, and they are refused anyway."""
    own = {"", "ai.onnx", *(function.domain for function in graph.functions.values())}
    if all(node.domain in own for node in graph.graph.all_nodes()):
        infer(graph)


def _compiled(written: Written, model: Model) -> Any:
    """Raises UnsupportedError where TorchScript does not take what was written: types that ONNX's inference could not tell, mostly."""
    try:
        return module.compile_written(written)
    except (RuntimeError, KeyError, TypeError, ValueError, NotImplementedError) as err:
        raise UnsupportedError(
            f"{model.path}: TorchScript does not take the graph: {said(err)}", "`ernie convert … --check` lists how operators are mapped"
        ) from err


def _specs(values: Any, model: Any) -> list[TensorSpec]:
    """Inputs or outputs as manifests have them. Raises UnsupportedError for what is no tensor, or one of strings."""
    ir = need("onnx_ir")
    specs = []
    for value in values:
        if value.name in model.graph.initializers:
            continue  # old files list weights among the inputs
        if value.type is not None and not isinstance(value.type, ir.TensorType):
            raise UnsupportedError(f"`{value.name}` is a {type(value.type).__name__}, no tensor", "graphs take and give tensors here")
        dtype = "" if value.dtype is None or value.dtype.name == "UNDEFINED" else value.dtype.numpy().name
        if dtype and dtype not in HELD:
            raise UnsupportedError(f"`{value.name}` holds {value.dtype.name}: torch has no such tensors", "leave it out of the graph")
        shape = None if value.shape is None else tuple(n if isinstance(n, int) else n.value for n in value.shape)
        specs.append(TensorSpec(value.name, HELD.get(dtype, ""), shape))
    return specs


def _precision(written: Written) -> str:
    """The float type that most weights have."""
    bytes_of: dict[str, int] = {}
    for tensor in written.tensors.values():
        name = tensor.dtype.numpy().name
        if name in _PRECISIONS:
            bytes_of[name] = bytes_of.get(name, 0) + int(tensor.nbytes)
    return _PRECISIONS[max(bytes_of, key=lambda name: bytes_of[name])] if bytes_of else ""
