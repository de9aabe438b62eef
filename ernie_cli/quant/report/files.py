"""What a model is on disk: which files hold it, how many bytes its weights take, and whether it is a decoder with a cache. Runs nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import host
from ...model import Model
from ...need import need

if TYPE_CHECKING:
    import onnx_ir as ir

#: What the weights of checkpoints lie in.
_CHECKPOINT = (".safetensors", ".pdparams")
#: Memory that an opened model takes, as a multiple of its files: the weights, a copy in the order its kernels like, some activations.
MEMORY_FACTOR = 2.2


def bytes_of(before: Model, after: Model) -> dict[str, Any]:
    """{"files": {"before", "after", "ratio"}, "weights": {…}} in bytes. files: all that the model itself takes, without tokenizer
    and papers; weights: its tensors alone, as they lie on disk (int4: two to a byte)."""
    files = [sum(file.stat().st_size for file in weight_files(model)) for model in (before, after)]
    weights = [weight_bytes(model) for model in (before, after)]
    return {name: {"before": a, "after": b, "ratio": round(b / max(a, 1), 4)} for name, (a, b) in (("files", files), ("weights", weights))}


def weight_files(model: Model) -> list[Path]:
    """The files that hold a model: a graph and its data files, or a checkpoint's shards."""
    if model.format == "onnx":
        file = model.main_file()
        outside = {tensor.path for tensor in _tensors(model) if isinstance(tensor, need("onnx_ir").ExternalTensor)}
        return [file, *sorted(Path(path) for path in outside)]
    if model.path.is_file():
        return [model.path]
    return sorted(file for file in model.folder.iterdir() if file.suffix in _CHECKPOINT)


def weight_bytes(model: Model) -> int:
    """Bytes of an ONNX graph's initializers; of anything else, of its files."""
    if model.format != "onnx":
        return sum(file.stat().st_size for file in weight_files(model))
    return sum(tensor.nbytes for tensor in _tensors(model))


def fit_together(models: Iterable[Model]) -> bool:
    """Whether memory holds all of them, opened."""
    return MEMORY_FACTOR * sum(file.stat().st_size for model in models for file in weight_files(model)) < host.memory().available


def is_decoder(model: Model) -> bool:
    """Whether this is an ONNX model with a decoder's inputs."""
    return model.format == "onnx" and decodes(_graph(model))


def decodes(graph: ir.Graph) -> bool:
    """Whether a graph has the inputs of graph/cache.py."""
    names = {value.name for value in graph.inputs}
    return "input_ids" in names and not names.isdisjoint(("past.0.key", "cache.0.key"))


def _graph(model: Model) -> ir.Graph:
    """Parsed, weights in other files left there."""
    graph: ir.Graph = need("onnx_ir").load(model.main_file()).graph
    return graph


def _tensors(model: Model) -> Iterable[Any]:
    return [value.const_value for value in _graph(model).initializers.values() if value.const_value is not None]
