"""Streams a quantised graph to disk: each weight is read, quantised, written and forgotten. Peak memory is a few tensors.

Where a weight is computed is not known here; see pending.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from ..checkpoint.stream import HashedFile
from ..digest import flushed_facts_of
from ..onnxgraph.write import EMBED_BYTES
from .codes import Codes
from .layers import floats
from .pending import of

ALIGNMENT_BYTES = 4096
#: Smaller tensors stay inside the graph file: shapes, axes and scales must be seen without the data file.
INSIDE_BYTES = 1024
_PIECE_BYTES = 1 << 20
#: Four times as quick as pieces that no cache holds.
_PACKED_CODES = 1 << 18
_TWO_TO_A_BYTE = (ir.DataType.INT4, ir.DataType.UINT4)


def save(
    model: ir.Model, folder: Path, *, name: str = "model.onnx", advance: Callable[[float], None], made: Callable[[str, Codes], None]
) -> dict[str, dict[str, Any]]:
    """Write `model` into `folder`, weights into `name`.data where they weigh more than 64 MB in all.

    advance(bytes) is called as weights are written, made(layer, codes) for each quantised one while its codes are at hand.
    Returns the manifest's entries. Memory: one weight with its codes; everything, where the model is small.
    """
    data = folder / f"{name}.data"
    position, places = 0, dict[str, tuple[int, int]]()
    with HashedFile(data) as file:
        for value, tensor in _tensors(model.graph, made):
            if tensor.dtype == ir.DataType.STRING or tensor.nbytes < INSIDE_BYTES:
                value.const_value = tensor if tensor.dtype == ir.DataType.STRING else _inside(tensor, value)
                continue
            key = _digest(value, tensor)
            if key not in places:
                padding = -position % ALIGNMENT_BYTES
                file.write(bytes(padding))
                start = position = position + padding
                for piece in _pieces(tensor):
                    file.write(piece)
                    position += len(piece)
                    advance(len(piece))
                places[key] = start, position - start
            _point(value, data, *places[key])
    files = {data.name: dict(file.facts)}
    if position < EMBED_BYTES:
        ir.external_data.load_to_model(model)
        data.unlink()
        files = {}
    ir.save(model, folder / name)
    return {**files, name: flushed_facts_of(folder / name)}


def _point(value: ir.Value, data: Path, start: int, length: int) -> None:
    assert value.dtype is not None and value.shape is not None
    value.const_value = ir.ExternalTensor(
        data.name, start, length, value.dtype, shape=value.shape, name=str(value.name), base_dir=data.parent
    )


def _digest(value: ir.Value, tensor: ir.TensorProtocol) -> str:
    """What equal content shares, so that it is written once: looked at where several layers have codes of one weight."""
    pending = of(value)
    if pending is None or len(pending.siblings) < 2:
        return str(value.name)
    digest = hashlib.sha256(f"{tensor.dtype} {tensor.shape}".encode())
    for piece in _pieces(tensor):
        digest.update(piece)  # type: ignore[arg-type]
    return digest.hexdigest()


def _inside(tensor: ir.TensorProtocol, value: ir.Value) -> ir.TensorProtocol:
    return ir.tensor(np.array(tensor.numpy()), dtype=tensor.dtype, name=value.name)


def _tensors(graph: ir.Graph, made: Callable[[str, Codes], None]) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    """Every initializer, those of branches and loops included, with its tensor; codes and scale of a weight one after the other."""
    done: set[ir.Value] = set()
    values = [value for part in (graph, *graph.subgraphs()) for value in part.initializers.values()]
    for value in values:
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
    """A tensor's bytes as a file holds them (int4: two to a byte, the earlier one in the lower half)."""
    parts = tensor.pieces() if hasattr(tensor, "pieces") else _slices(tensor)
    for part in parts:
        yield np.ascontiguousarray(part).reshape(-1).view(np.uint8)


def _slices(tensor: ir.TensorProtocol) -> Iterator[np.ndarray]:
    array = floats(tensor)
    packed = tensor.dtype.bitwidth < 8 and tensor.dtype not in _TWO_TO_A_BYTE
    flat = np.frombuffer(tensor.tobytes(), np.uint8) if packed else np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    if tensor.dtype in _TWO_TO_A_BYTE:
        return (_packed(flat[start : start + _PACKED_CODES]) for start in range(0, len(flat), _PACKED_CODES))
    return (flat[start : start + _PIECE_BYTES] for start in range(0, len(flat), _PIECE_BYTES))


def _packed(codes: np.ndarray) -> np.ndarray:
    """4-bit codes, one to a byte, as two to a byte."""
    if len(codes) % 2:
        codes = np.append(codes, np.uint8(0))
    pairs = codes.view("<u2")
    return ((pairs & 15) | ((pairs >> 4) & 0xF0)).astype(np.uint8)
