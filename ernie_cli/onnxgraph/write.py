"""Writes an onnx_ir.Model into a folder: one file where it is small, weights beside it where it is not. The manifest is the edge's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..digest import flushed_facts_of
from ..errors import InputError, UnsupportedError
from ..need import need
from .proto import AGAIN

if TYPE_CHECKING:
    import onnx_ir as ir

#: Models whose constants weigh less are one file: handier, and memory is no matter.
EMBED_BYTES = 64 << 20
#: Smaller constants stay inside the graph file in any case: shapes and axes must be seen without the data file.
_INSIDE_BYTES = 1024
#: A page, so that runtimes can map weights where they stand.
_ALIGNMENT_BYTES = 4096


def save(model: ir.Model, folder: Path, name: str = "model.onnx") -> dict[str, dict[str, Any]]:
    """Write `model` as `folder`/`name`, its weights into `name`.data where they weigh more than 64 MB; flushed to disk.

    Memory: one tensor at a time where weights go outside. Returns the manifest's entries: {file: {size, sha256}}.
    `model` itself may point to the new files afterwards. Raises InputError for weights that cannot be read, UnsupportedError
    for what does not fit a protobuf.
    """
    onnx_ir = need("onnx_ir")
    outside = constant_bytes(model) > EMBED_BYTES
    try:
        if outside:
            need("onnx_ir.passes.common").LiftConstantsToInitializersPass(size_limit=_INSIDE_BYTES)(model)
            onnx_ir.save(model, folder / name, external_data=f"{name}.data", size_threshold_bytes=_INSIDE_BYTES, **_aligned(onnx_ir.save))
        else:
            onnx_ir.external_data.load_to_model(model)
            onnx_ir.save(model, folder / name)
    except (OSError, MemoryError):
        raise
    except Exception as err:  # onnx-ir wraps what tensors and protobuf raise in errors without a common base
        reason = str(err.__cause__ or err).strip().splitlines()
        kind = UnsupportedError if "2GB" in str(err) or "exceeds maximum protobuf" in str(err) else InputError
        raise kind(f"{folder / name}: cannot be written: {reason[0] if reason else type(err).__name__}", AGAIN) from err
    written = [name, *([f"{name}.data"] if (folder / f"{name}.data").is_file() else [])]
    return {file: flushed_facts_of(folder / file) for file in written}


def constant_bytes(model: ir.Model) -> int:
    """What all constants weigh, those in attributes and functions included."""
    graphs = (model.graph, *(function.graph for function in model.functions.values()))
    return sum(int(tensor.nbytes) for graph in graphs for tensor in _tensors(graph) if tensor.dtype != need("onnx_ir").DataType.STRING)


def _tensors(graph: ir.Graph) -> list[ir.TensorProtocol]:
    ir = need("onnx_ir")
    every = [graph, *graph.subgraphs()]
    found = [value.const_value for inner in every for value in inner.initializers.values() if value.const_value is not None]
    for node in graph.all_nodes():
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                found.append(attribute.as_tensor())
    return found


def _aligned(save: Any) -> dict[str, int]:
    """onnx-ir aligns on request from 1.1 on; before, it always did."""
    import inspect

    return {"alignment": _ALIGNMENT_BYTES} if "alignment" in inspect.signature(save).parameters else {}
