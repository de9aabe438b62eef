"""The float graph that is quantised: an ONNX model as it lies, or a checkpoint's decoder whose weights are read one at a time.

Nothing is converted on disk: a checkpoint of any size becomes a graph of a few hundred kilobytes, and each weight is cast and
transposed at the moment somebody reads it. What is done with the graph is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from .. import __version__
from ..checkpoint import Checkpoint
from ..errors import UnsupportedError
from ..graph import weights
from ..graph.builder import Builder, WeightSource
from ..graph.cache import CACHES, choose
from ..graph.dense import DenseDecoder
from ..graph.export import DTYPES, IR_VERSION
from ..model import Model
from ..need import need
from ..onnxgraph.load import load
from .layers import floats

#: Constants of fewer elements are no weights.
_LEAST_ELEMENTS = 256


def open_source(model: Model, *, dtype: str = "fp32", kv_cache: str = "auto", all_logits: bool = False) -> ir.Model:
    """The graph of `model`, weights not read yet. Formats: onnx, and ERNIE checkpoints (hf, paddle).

    dtype, kv_cache, all_logits: as `ernie convert` takes them, for checkpoints. Raises what opening an ONNX model or a checkpoint
    raises, UnsupportedError for other formats.
    """
    if model.format == "onnx":
        return _laid_open(load(model))
    if model.format not in ("hf", "paddle"):
        hint = f"ernie convert {model.path} --to onnx, then quantise the result"
        raise UnsupportedError(f"{model.path}: {model.format} models are not quantised directly", hint)
    checkpoint = Checkpoint.open(model.path)
    cache = CACHES[choose(kv_cache)[0]](checkpoint.config)
    builder = Builder(DTYPES[dtype])
    DenseDecoder(checkpoint.config, builder, cache, all_logits=all_logits).emit()
    for value, source in builder.weights.items():
        value.const_value = CheckpointTensor(checkpoint, source, value)
    graph = builder.graph("ernie_4_5_dense", cache.opset)
    return ir.Model(graph, ir_version=IR_VERSION, producer_name="ernie", producer_version=__version__)


class CheckpointTensor(ir.LazyTensor):
    """An initializer that is read from a checkpoint whenever it is asked for its values, and kept by nobody."""

    def __init__(self, checkpoint: Checkpoint, source: WeightSource, value: ir.Value) -> None:
        assert value.dtype is not None and value.shape is not None
        super().__init__(lambda: ir.tensor(self._whole()), value.dtype, value.shape, name=value.name)
        self._checkpoint, self._source = checkpoint, source

    def stored(self) -> np.ndarray:
        """The values as the checkpoint has them: own float type, a transposed view where the graph wants it turned."""
        array = self._checkpoint.read(self._source.tensor)
        return array.T if self._source.transpose else array

    def pieces(self) -> Iterator[np.ndarray]:
        """The values as the graph has them, in file order, a few megabytes at a time."""
        array = self._checkpoint.read(self._source.tensor)
        return weights.blocks(array, self._source.transpose, self.dtype.numpy())

    def _whole(self) -> np.ndarray:
        out = np.empty(tuple(self.shape.numpy()), self.dtype.numpy())
        flat, at = out.reshape(-1), 0
        for piece in self.pieces():
            flat[at : at + piece.size] = piece.reshape(-1)
            at += piece.size
        return out


def _laid_open(model: ir.Model) -> ir.Model:
    """Every weight as an initializer of the main graph that layers use directly, however the exporter wrapped it."""
    common = need("onnx_ir.passes.common")
    if model.functions:
        common.InlinePass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=False, size_limit=_LEAST_ELEMENTS)(model)
    common.LiftSubgraphInitializersToMainGraphPass()(model)
    if model.ir_version < 4:  # before, initializers had to be inputs, too
        common.RemoveInitializersFromInputsPass()(model)
    for node in list(model.graph.all_nodes()):
        if node.op_type in ("Identity", "Transpose") and node.domain in ("", "ai.onnx"):
            _unwrap(model.graph, node)
    return model


def _unwrap(graph: ir.Graph, node: ir.Node) -> None:
    """Replace what Identity or Transpose gives of a weight by that weight, turned when it is read."""
    weight, wrapped = node.inputs[0], node.outputs[0]
    if weight is None or weight.const_value is None or not weight.is_initializer() or weight.is_graph_input() or wrapped.is_graph_output():
        return
    tensor = weight.const_value
    if tensor.size < _LEAST_ELEMENTS:
        return
    if node.op_type == "Transpose":
        if len(tensor.shape) != 2 or tuple(node.attributes.get_ints("perm", (1, 0))) != (1, 0):
            return
        weight_before, weight = weight, _turned(graph, f"{weight.name}.turned", tensor)
    else:
        weight_before = weight
    wrapped.replace_all_uses_with(weight)
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    if not weight_before.uses() and not weight_before.is_graph_output():
        graph.initializers.pop(str(weight_before.name))


def _turned(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """A new initializer: the transposed one."""
    found = graph.initializers.get(name)
    if found is not None:  # two nodes turn the same weight
        return found
    shape = ir.Shape(reversed(tensor.shape.numpy()))
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=TurnedTensor(tensor, shape))
    graph.register_initializer(value)
    return value


class TurnedTensor(ir.LazyTensor):
    """A matrix that is transposed when it is read."""

    def __init__(self, tensor: ir.TensorProtocol, shape: ir.Shape) -> None:
        super().__init__(lambda: ir.tensor(np.ascontiguousarray(tensor.numpy().T), dtype=tensor.dtype), tensor.dtype, shape)
        self._before = tensor

    def stored(self) -> np.ndarray:
        """The values as a transposed view."""
        turned: np.ndarray = floats(self._before).T
        return turned
