"""Streams a quantised graph to disk: each weight is read, quantised, written and forgotten. Peak memory is a few tensors.

Where a weight is computed is not known here; see pending.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from ..checkpoint.stream import HashedFile
from ..onnxgraph import write as plain
from ..onnxgraph.write import EMBED_BYTES
from .codes import Codes
from .pending import of

ALIGNMENT_BYTES = 4096
#: Smaller tensors stay inside the graph file: shapes, axes and scales must be seen without the data file.
INSIDE_BYTES = 1024
_PIECE_BYTES = 8 << 20


def save(
    model: ir.Model, folder: Path, *, name: str = "model.onnx", advance: Callable[[float], None], made: Callable[[str, Codes], None]
) -> dict[str, dict[str, Any]]:
    """Write `model` into `folder`, weights into `name`.data where they weigh more than 64 MB in all.

    advance(bytes) is called as weights are written, made(layer, codes) for each quantised one while its codes are at hand.
    Returns the manifest's entries. Memory: one weight with its codes; everything, where the model is small.
    """
    data = folder / f"{name}.data"
    position = 0
    with HashedFile(data) as file:
        for value, tensor in _tensors(model.graph, made):
            if tensor.nbytes < INSIDE_BYTES:
                value.const_value = (
                    ir.tensor(tensor.numpy(), dtype=tensor.dtype, name=value.name) if tensor is not value.const_value else tensor
                )
                continue
            padding = -position % ALIGNMENT_BYTES
            file.write(bytes(padding))
            start = position = position + padding
            for piece in _pieces(tensor):
                file.write(piece)
                position += len(piece)
                advance(len(piece))
            assert value.dtype is not None and value.shape is not None
            value.const_value = ir.ExternalTensor(
                data.name, start, position - start, value.dtype, shape=value.shape, name=str(value.name), base_dir=folder
            )
    files = {data.name: dict(file.facts)}
    if position < EMBED_BYTES:
        ir.external_data.load_to_model(model)
        data.unlink()
        files = {}
    ir.save(model, folder / name)
    return {**files, name: plain.entry(folder / name)}


def _tensors(graph: ir.Graph, made: Callable[[str, Codes], None]) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    """Every initializer with its tensor; codes and scale of a weight directly after one another."""
    done: set[ir.Value] = set()
    for value in list(graph.initializers.values()):
        pending = of(value)
        if value in done:
            continue
        if pending is None:
            assert value.const_value is not None
            yield value, value.const_value
            continue
        codes = pending.make()
        made(pending.layer, codes)
        pair = (pending.codes, pending.scale)
        done.update(pair)
        yield from zip(pair, pending.tensors(codes), strict=True)


def _pieces(tensor: ir.TensorProtocol) -> Iterator[np.ndarray]:
    """A tensor's bytes as a file holds them (int4: two to a byte)."""
    data = np.frombuffer(tensor.tobytes(), np.uint8)
    for start in range(0, len(data), _PIECE_BYTES):
        yield data[start : start + _PIECE_BYTES]
