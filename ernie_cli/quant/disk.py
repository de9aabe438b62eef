"""What a quantisation takes on disk at most, the work beside the result included: known before any of it is done. See work.py.

Everything lies in the result's folder while it is made, and goes away with it where something fails.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from ..checkpoint.carry import PAPERS_BYTES, carried_bytes
from ..model import Model
from . import layers, stored
from .layers import Layer
from .options import Options
from .report import files
from .scheme import Scheme, WeightFormat

#: Models that lie there at once at most: the float one, one that was changed, the result. Each has the tokenizer and the like.
FOLDERS = 3


def needed(source: Model, graph: ir.Model, scheme: Scheme, options: Options) -> int:
    """Bytes on disk that quantising `source` takes at most, the result's own among them. graph: as source.py opens it."""
    weights = most(graph, scheme, options, checkpoint=source.format != "onnx")
    return weights + FOLDERS * carried_bytes(source.path) + PAPERS_BYTES


def most(graph: ir.Model, scheme: Scheme, options: Options, *, checkpoint: bool, float_bits: int | None = None) -> int:
    """Bytes of weights that lie on disk at once, those of the result among them.

    checkpoint: whether what runs on data must be converted first. float_bits: of float32 weights made narrower before.
    """
    chosen = layers.find(graph, scheme, options.include, options.exclude)
    floats = stored.weight_bytes(graph, float_bits)
    total = result(graph, chosen, scheme, options, float_bits)
    if checkpoint and _runs(scheme, options):
        total += floats
    if _folds(graph, scheme, options):
        total += floats + stored.shared_bytes(chosen, float_bits)
    if options.method == "gptq":
        total += sum(_waiting_bytes(layer, options) for layer in chosen)
    return total


def result(graph: ir.Model, chosen: list[Layer], scheme: Scheme, options: Options, float_bits: int | None = None) -> int:
    """Bytes of the result's weights at most: --max-drop may put every layer back, a mix have 8 bits for each."""
    floats = stored.weight_bytes(graph, float_bits)
    if scheme.weight is None:
        return floats
    if options.max_drop is not None:  # codes of a weight that others read lie beside it
        return floats + stored.shared_bytes(chosen, float_bits)
    form = WeightFormat("int8") if options.mix != "none" else scheme.weight
    return floats - stored.saved_bytes(chosen, form, float_bits)


def _waiting_bytes(layer: Layer, options: Options) -> int:
    """GPTQ's codes, two to a byte, and float32 scales, in a file until the graph is written."""
    weights = math.prod(layer.shape)
    return weights // 2 + 4 * (weights // min(options.block, layer.shape[layer.sum_axis]) + 1) if layer.matrix else 0


def _runs(scheme: Scheme, options: Options) -> bool:
    """Whether the float model is run, on data or beside the result."""
    return scheme.needs_data or options.measure or options.max_drop is not None or options.method != "rtn"


def _folds(graph: ir.Model, scheme: Scheme, options: Options) -> bool:
    """Whether weights may be changed before codes are made of them, in a copy: by smoothing or AWQ."""
    smoothed = bool(scheme.activation) and options.smoothing(decoder=files.decodes(graph.graph)) != "off"
    return smoothed or options.method == "awq"
