"""A dense ERNIE 4.5 checkpoint, either layout → a folder with `model.onnx` and its data file. Checking is parity's matter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from .. import __version__, console
from ..checkpoint import Checkpoint
from ..digest import flushed_facts_of
from . import weights
from .builder import Builder
from .cache import CACHES
from .dense import DenseDecoder

GRAPH_FILE, DATA_FILE = "model.onnx", "model.onnx.data"
#: The version of the file format that opset 23 and 24 need at least is 10's successor in the standard's table, but runtimes
#: and onnx 1.17 read 10, and nothing here uses what came after.
IR_VERSION = 10
#: Weights below this are put inside the graph file: one file is handier, and memory is no matter.
EMBED_BYTES = 64 << 20

DTYPES = {"fp32": ir.DataType.FLOAT, "fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}


@dataclass(frozen=True)
class Exported:
    """opset: what the graph needs. files: the manifest's entries. weight_bytes: what the initializers weigh."""

    opset: int
    files: Mapping[str, Mapping[str, Any]]
    weight_bytes: int


def weight_bytes(checkpoint: Checkpoint, dtype: str) -> int:
    """How many bytes the weights will take in `dtype`."""
    return sum(math.prod(checkpoint.info(name)[1]) for name in checkpoint.names()) * int(DTYPES[dtype].itemsize)


def export(checkpoint: Checkpoint, out: Path, *, dtype: str, kv_cache: str, all_logits: bool) -> Exported:
    """Write the graph of `checkpoint` into the folder `out`.

    dtype: fp32, fp16 or bf16. kv_cache: static or growing, see cache.py. Raises InputError for broken tensors.
    """
    cache = CACHES[kv_cache](checkpoint.config)
    builder = Builder(DTYPES[dtype])
    DenseDecoder(checkpoint.config, builder, cache, all_logits=all_logits).emit()
    total = weight_bytes(checkpoint, dtype)
    with console.progress("writing weights", total, unit="bytes") as meter:
        files = weights.write(checkpoint, builder.weights, out / DATA_FILE, meter.advance)
    graph = builder.graph("ernie_4_5_dense", cache.opset)
    model = ir.Model(graph, ir_version=IR_VERSION, producer_name="ernie", producer_version=__version__)
    if total < EMBED_BYTES:
        files = _embed(model, out)
    ir.save(model, out / GRAPH_FILE)
    return Exported(cache.opset, {**files, GRAPH_FILE: flushed_facts_of(out / GRAPH_FILE)}, total)


def _embed(model: ir.Model, out: Path) -> dict[str, Any]:
    ir.external_data.load_to_model(model)
    (out / DATA_FILE).unlink()
    return {}
