"""Query heads that share keys and values, as rows of fewer heads: the same numbers, from an Attention that reads both less often.

ONNX Runtime on processors (1.25 to 1.31) computes head by head, a head per thread: with 16 query heads over 2 of keys it reads, and
copies, the cache eight times (tests/bench/bench_heads.py). So the graph is rewritten in memory when a session is opened. The file keeps
its heads: TensorRT decodes them with one kernel, and rows with that and two copies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..onnxgraph.names import fresh

#: What changes neither the shape nor the heads of its first input.
_SAME_SHAPE = ("TensorScatter", "ScatterND", "DequantizeLinear", "QuantizeLinear", "Cast")


def join(model: ir.Model, threads: int) -> int:
    """Rewrite every Attention whose query heads outnumber its key heads and the threads, in place. Returns how many there were.

    query [B, n, S, d] becomes [B, h, n/h·S, d] without moving a number, its mask [B, 1, S, T] is repeated n/h times; h are at least as
    many as the threads, which each take a head. Taken are those that graph/cache.py writes for a static cache: the mask says all,
    neither `is_causal` nor past keys count rows.
    """
    graph = model.graph
    repeated: dict[tuple[ir.Value, int], ir.Value] = {}
    found = [(node, heads) for node in graph if (heads := _heads(node)) is not None]
    joined = 0
    for node, heads in found:
        numbers = (many for many in range(heads.keys, heads.queries, heads.keys) if not heads.queries % many and many >= threads)
        fewer = next(numbers, heads.queries)
        share = heads.queries // fewer
        if share == 1:
            continue
        query, mask, readers = node.inputs[0], node.inputs[3], list(node.outputs[0].uses())
        assert query is not None and mask is not None
        if (mask, share) not in repeated:
            tile = _node(graph, "Tile", mask, [1, 1, share, 1])
            graph.insert_before(node, tile)
            repeated[mask, share] = tile.outputs[0]
        rows = _node(graph, "Reshape", query, [0, fewer, -1, heads.width])
        back = _node(graph, "Reshape", node.outputs[0], [0, heads.queries, -1, heads.value_width])
        graph.insert_before(node, rows)
        graph.insert_after(node, back)
        node.replace_input_with(0, rows.outputs[0])
        node.replace_input_with(3, repeated[mask, share])
        node.outputs[0].shape = None
        for reader, at in readers:
            reader.replace_input_with(at, back.outputs[0])
        joined += 1
    return joined


@dataclass(frozen=True)
class _Heads:
    """How many of queries and of keys, and how wide they are."""

    queries: int
    keys: int
    width: int
    value_width: int


def _heads(node: ir.Node) -> _Heads | None:
    """Those of an Attention that can be rewritten; None for every other node."""
    if node.op_type != "Attention" or node.domain not in ("", "ai.onnx") or len(node.outputs) != 1 or len(node.inputs) != 4:
        return None
    if node.outputs[0].is_graph_output():
        return None
    query, keys, values, mask = node.inputs
    if node.attributes or query is None or keys is None or values is None or mask is None or not _for_all_heads(mask):
        return None
    queries, of_keys, of_values = _heads_of_query(query), _lengths(keys), _lengths(values)
    if not queries or of_keys is None or of_values is None or queries <= of_keys[0] or queries % of_keys[0]:
        return None
    return _Heads(queries, of_keys[0], of_keys[1], of_values[1])


def _heads_of_query(query: ir.Value) -> int:
    """n of a query that a Reshape splits and a Transpose turns: [B, S, n·d] → [B, n, S, d]; 0 where it came another way."""
    turn = query.producer()
    if turn is None or turn.op_type != "Transpose" or list(turn.attributes.get_ints("perm", [])) != [0, 2, 1, 3]:
        return 0
    split = turn.inputs[0].producer() if turn.inputs[0] is not None else None
    lengths = _constant(split.inputs[1]) if split is not None and split.op_type == "Reshape" else []
    return max(0, lengths[2]) if len(lengths) == 4 else 0


def _lengths(cache: ir.Value) -> tuple[int, int] | None:
    """(heads, width) of keys or values [B, g, T, d]."""
    while cache.shape is None and (maker := cache.producer()) is not None and maker.op_type in _SAME_SHAPE and maker.inputs[0] is not None:
        cache = maker.inputs[0]
    if cache.shape is None or len(cache.shape) != 4 or not isinstance(cache.shape[1], int) or not isinstance(cache.shape[3], int):
        return None
    return cache.shape[1], cache.shape[3]


def _for_all_heads(mask: ir.Value) -> bool:
    """Whether a mask is `slots [T] <= rows [B, 1, S, 1]`, or the last token's part of it."""
    maker = mask.producer()
    if maker is not None and maker.op_type == "Gather" and maker.attributes.get_int("axis", 0) == 2 and maker.inputs[0] is not None:
        maker = maker.inputs[0].producer() if _constant(maker.inputs[1]) == [-1] else None
    if maker is None or maker.op_type != "LessOrEqual" or maker.inputs[0] is None or maker.inputs[1] is None:
        return False
    slots, rows = (value.producer() for value in maker.inputs if value is not None)
    in_place = rows is not None and rows.op_type == "Unsqueeze" and _constant(rows.inputs[1]) == [1, 3]
    return in_place and slots is not None and slots.op_type == "Range"


def _constant(value: ir.Value | None) -> list[int]:
    """The numbers of a constant vector; none where it is something else."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return [int(number) for number in tensor.numpy()] if tensor is not None and len(tensor.shape) == 1 else []


def _node(graph: ir.Graph, op_type: str, value: ir.Value, numbers: list[int]) -> ir.Node:
    """A node that takes `value` and constant lengths, under names that nothing else has."""
    name = fresh(graph, f"{value.name}.{op_type.lower()}")
    tensor = ir.tensor(np.array(numbers, np.int64), name=fresh(graph, f"{name}.lengths"))
    lengths = ir.Value(name=tensor.name, type=ir.TensorType(tensor.dtype), shape=ir.Shape([len(numbers)]), const_value=tensor)
    graph.register_initializer(lengths)
    node = ir.node(op_type, [value, lengths], name=name)
    node.outputs[0].name = name
    return node
