"""Embeddings in half the bytes: tables that are only looked up in, kept as float16. Layers are not touched."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from ..onnxgraph.names import fresh
from .layers import floats

#: Smaller tables are not worth a Cast.
_TABLE_BYTES = 1 << 20
_PIECE_ELEMENTS = 1 << 20


def narrow_tables(model: ir.Model) -> dict[str, int]:
    """Keep float32 tables that only Gather reads (embeddings) as float16, widened after the lookup. Returns name → bytes saved.

    A lookup reads a few rows, so this costs no time and halves what is often the largest weight. What a bfloat16 checkpoint holds
    loses nothing above 2⁻¹⁴ and at most 2⁻²⁵ below. Tables beyond float16's range stay. For use after quantize_weight: a head tied
    to the embedding still holds the table until then.
    """
    saved: dict[str, int] = {}
    for value in list(model.graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or value.dtype != ir.DataType.FLOAT or tensor.nbytes < _TABLE_BYTES or value.is_graph_input():
            continue
        users = [use.node for use in value.uses()]
        if value.is_graph_output() or not users or not all(_looks_up(node, value) for node in users) or not _fits_half(tensor):
            continue
        _narrow_table(model.graph, value, users)
        saved[str(value.name)] = int(tensor.nbytes) // 2
    return saved


def _looks_up(node: ir.Node, table: ir.Value) -> bool:
    """Whether a node only picks rows of `table`."""
    plain = node.op_type == "Gather" and node.domain in ("", "ai.onnx") and node.attributes.get_int("axis", 0) == 0
    return plain and node.inputs[0] is table and len(node.inputs) == 2 and node.inputs[1] is not table


def _narrow_table(graph: ir.Graph, value: ir.Value, users: list[ir.Node]) -> None:
    assert value.const_value is not None
    half = ir.Value(name=fresh(graph, f"{value.name}_fp16"), type=ir.TensorType(ir.DataType.FLOAT16), shape=value.shape)
    half.const_value = HalfTensor(value.const_value, half.name)
    graph.register_initializer(half)
    for node in users:
        found, inner = node.outputs[0], node.graph
        assert isinstance(inner, ir.Graph)
        rows = ir.Value(name=fresh(graph, f"{found.name}_fp16"), type=ir.TensorType(ir.DataType.FLOAT16), shape=found.shape)
        pick = ir.node("Gather", [half, node.inputs[1]], {"axis": 0}, outputs=[rows], name=node.name)
        wide = ir.Value(type=ir.TensorType(ir.DataType.FLOAT))
        widen = ir.node("Cast", [rows], {"to": ir.DataType.FLOAT}, outputs=[wide], name=f"{rows.name}_widen")
        ir.convenience.replace_nodes_and_values(inner, node, [node], [pick, widen], [found], [wide])
    graph.initializers.pop(str(value.name))


class HalfTensor(ir.LazyTensor):
    """The float16 of a float tensor, made in pieces when it is written."""

    def __init__(self, tensor: ir.TensorProtocol, name: str | None) -> None:
        whole = lambda: ir.tensor(floats(tensor).astype(np.float16))  # noqa: E731
        super().__init__(whole, ir.DataType.FLOAT16, ir.Shape(tensor.shape.numpy()), name=name)
        self._before = tensor

    def pieces(self) -> Iterator[np.ndarray]:
        """float16 in file order."""
        return (piece.astype(np.float16) for piece in _pieces(self._before))


def _fits_half(tensor: ir.TensorProtocol) -> bool:
    """Whether no value is beyond float16's range, read in pieces."""
    most = float(np.finfo(np.float16).max)
    return all(float(piece.max()) <= most and float(piece.min()) >= -most for piece in _pieces(tensor))


def _pieces(tensor: ir.TensorProtocol) -> Iterator[np.ndarray]:
    """float32 rows of a table, a few megabytes at a time."""
    table = floats(tensor)
    rows = max(1, _PIECE_ELEMENTS // max(1, table[0].size))
    for start in range(0, len(table), rows):
        yield table[start : start + rows].astype(np.float32)
