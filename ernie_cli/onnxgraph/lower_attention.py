"""Attention, RotaryEmbedding and TensorScatter (opsets 23 to 25) written out in operators of opset 13. One function per operator.

Shapes: B batch, S new tokens, T keys, n query heads, g key/value heads, d head size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from .rewriter import Cannot, Rewriter


def attention(b: Rewriter) -> Sequence[ir.Value | None]:
    """Attention of any version, 3-D or 4-D inputs, grouped queries, all masks. Follows the operator's definition in onnx 1.23.

    A row that may see no key gives zeros, as defined there, and no NaN on the way.
    """
    if (b.attr("qk_matmul_output_mode", 0) not in (0, 1, 2, 3)) or b.rank(b.need(0)) not in (3, 4):
        raise Cannot("of an unknown form")
    flat = b.rank(b.need(0)) == 3
    query, key, value = (_heads(b, b.need(index), b.attr(name) if flat else None) for index, name in enumerate(_HEADS))
    asking, keeping = _count(b, query, "q_num_heads"), _count(b, key, "kv_num_heads")
    if (past := b.input(4)) is not None and (past_value := b.input(5)) is not None:
        key = b.op("Concat", past, key, axis=2, rank=4)
        value = b.op("Concat", past_value, value, axis=2, rank=4)
    scores = b.op("MatMul", _grouped(b, _scaled(b, query), asking, keeping), b.op("Transpose", key, perm=[0, 1, 3, 2], rank=4), rank=4)
    raw = scores = _ungrouped(b, scores, asking, keeping)
    cap = b.attr("softcap", 0.0)
    if cap:
        scores = b.op("Mul", b.op("Tanh", b.op("Div", scores, b.like(scores, cap))), b.like(scores, cap), rank=4)
    capped = scores
    allowed, scores = _masked(b, query, key, past, scores)
    biased = scores
    if allowed is not None:
        scores = b.op("Where", allowed, scores, b.like(scores, _lowest(b, scores)), rank=4)
    softmax = _softmax(b, scores, allowed)
    mixed = b.op("MatMul", _grouped(b, softmax, asking, keeping), value, rank=4)
    mixed = _ungrouped(b, mixed, asking, keeping)
    if flat:
        mixed = b.op("Reshape", b.op("Transpose", mixed, perm=[0, 2, 1, 3], rank=4), b.ints(0, 0, -1), rank=3)
    shown: ir.Value | None = None
    if b.wants(3):
        if b.attr("qk_matmul_output_mode", 0) == 2 and allowed is not None:
            biased = b.op("Where", allowed, biased, b.like(biased, -math.inf))
        shown = (raw, capped, biased, softmax)[b.attr("qk_matmul_output_mode", 0)]
    return mixed, key, value, shown


_HEADS = ("q_num_heads", "kv_num_heads", "kv_num_heads")


def _heads(b: Rewriter, x: ir.Value, heads: int | None) -> ir.Value:
    """[B, S, heads·d] → [B, heads, S, d]; as it is where it has four axes."""
    if heads is None:
        return x
    width = b.dim(x, 2)
    split = b.op("Reshape", x, b.ints(0, 0, heads, width // heads if width else -1), rank=4)
    turned = b.op("Transpose", split, perm=[0, 2, 1, 3], rank=4)
    turned.shape = ir.Shape([b.dim(x, 0), heads, b.dim(x, 1), width // heads if width else None])
    return turned


def _count(b: Rewriter, x: ir.Value, attribute: str) -> int:
    count = b.attr(attribute) or b.dim(x, 1)
    if not count:
        raise Cannot("the number of heads is unknown")
    return int(count)


def _scaled(b: Rewriter, query: ir.Value) -> ir.Value:
    scale, size = b.attr("scale"), b.dim(query, 3)
    if scale is None and size:
        scale = 1 / math.sqrt(size)
    if scale is not None:
        return b.op("Mul", query, b.like(query, scale), rank=4)
    root = b.op("Sqrt", b.cast(b.length(query, 3), b.dtype(query)))
    return b.op("Div", query, root, rank=4)


def _grouped(b: Rewriter, x: ir.Value, asking: int, keeping: int) -> ir.Value:
    """[B, n, S, …] → [B, g, n/g·S, …]: the queries that share a key head, one after another, so that no key is copied."""
    return x if asking == keeping else b.op("Reshape", x, b.ints(0, keeping, -1, _last(b, x)), rank=4)


def _ungrouped(b: Rewriter, x: ir.Value, asking: int, keeping: int) -> ir.Value:
    return x if asking == keeping else b.op("Reshape", x, b.ints(0, asking, -1, _last(b, x)), rank=4)


def _last(b: Rewriter, x: ir.Value) -> int:
    return b.dim(x, -1) or 0  # 0: the length that the input has there


def _lowest(b: Rewriter, x: ir.Value) -> float:
    """What stands for "not allowed": finite, so that a row without any key makes no NaN."""
    import ml_dtypes

    limits: Any = ml_dtypes.finfo
    return float(limits(b.dtype(x).numpy()).min)


def _masked(b: Rewriter, query: ir.Value, key: ir.Value, past: ir.Value | None, scores: ir.Value) -> tuple[ir.Value | None, ir.Value]:
    """(which scores count, bool, None for all; scores with an additive mask's values added)."""
    conditions = []
    filled = b.input(6)
    rows = b.op("Unsqueeze", b.counting(b.length(query, 2)), b.ints(1), rank=2)
    slots = b.counting(b.length(key, 2))
    if filled is not None:  # int64 [B] → [B, 1, 1, 1]
        counts = b.op("Reshape", filled, b.ints(-1, 1, 1, 1), rank=4)
        conditions.append(b.op("Less", slots, counts))
    if b.attr("is_causal", 0) or max(b.attr("left_window_size", -1), b.attr("right_window_size", -1)) >= 0:
        if past is not None:
            rows = b.op("Add", rows, b.length(past, 2), rank=2)
        elif filled is not None:
            rows = b.op("Add", rows, b.op("Sub", counts, b.length(query, 2), rank=4), rank=4)
        conditions += _windows(b, rows, slots)
    mask = b.input(3)
    if mask is not None:
        mask = _padded(b, mask, key, filled)
        if b.dtype(mask) == ir.DataType.BOOL:
            conditions.append(mask)
        else:
            conditions.append(b.op("Greater", mask, b.like(mask, -math.inf)))
            scores = b.op("Add", scores, b.op("Max", mask, b.like(mask, _lowest(b, mask))), rank=4)
    allowed: ir.Value | None = None
    for condition in conditions:
        allowed = condition if allowed is None else b.op("And", allowed, condition)
    return allowed, scores


def _windows(b: Rewriter, rows: ir.Value, slots: ir.Value) -> list[ir.Value]:
    """The causal condition and the two of a sliding window, as far as they are asked for."""
    found = [b.op("LessOrEqual", slots, rows)] if b.attr("is_causal", 0) else []
    left, right = b.attr("left_window_size", -1), b.attr("right_window_size", -1)
    if left >= 0:
        found.append(b.op("LessOrEqual", b.op("Sub", rows, b.const(left, np.int64)), slots))
    if right >= 0:
        found.append(b.op("LessOrEqual", slots, b.op("Add", rows, b.const(right, np.int64))))
    return found


def _padded(b: Rewriter, mask: ir.Value, key: ir.Value, filled: ir.Value | None) -> ir.Value:
    """A mask shorter than the keys, with the rest not allowed."""
    have, want = b.dim(mask, -1), b.dim(key, 2)
    if (have is not None and have == want) or (filled is None and None in (have, want)):
        return mask
    rank = b.rank(mask)
    more = b.op("Sub", b.length(key, 2), b.length(mask, -1))
    pads = b.op("Concat", b.ints(*[0] * (2 * rank - 1)), more, axis=0, rank=1)
    boolean = b.dtype(mask) == ir.DataType.BOOL
    if boolean:  # runtimes pad numbers
        padded = b.op("Pad", b.cast(mask, ir.DataType.INT32), pads, b.const(0, np.int32), rank=rank)
        return b.op("Greater", padded, b.const(0, np.int32), rank=rank)
    return b.op("Pad", mask, pads, b.like(mask, -math.inf), rank=rank)


def _softmax(b: Rewriter, scores: ir.Value, allowed: ir.Value | None) -> ir.Value:
    own = b.dtype(scores)
    inside = ir.DataType(b.attr("softmax_precision", int(own)))
    result = b.cast(b.op("Softmax", b.cast(scores, inside), axis=-1, rank=4), own)
    # Where nothing is allowed the softmax of equal numbers is no zero: the mask makes it one. Elsewhere it changes nothing.
    return result if allowed is None else b.op("Mul", result, b.cast(allowed, own), rank=4)


def rotary_embedding(b: Rewriter) -> Sequence[ir.Value]:
    """RotaryEmbedding-23: interleaved or in halves, whole or partial, 3-D (num_heads) or 4-D."""
    x, cos, sin, positions = b.need(0), b.need(1), b.need(2), b.input(3)
    if positions is not None:
        cos, sin = (b.op("Gather", table, positions, axis=0, rank=3) for table in (cos, sin))
    flat, heads = b.rank(x) == 3, b.attr("num_heads", 0)
    if flat and not heads:
        raise Cannot("num_heads is missing")
    head_axis = 2 if flat else 1  # where cos and sin [B, S, d/2] have no axis
    cos, sin = (b.op("Unsqueeze", table, b.ints(head_axis), rank=4) for table in (cos, sin))
    width = b.dim(x, 2)
    split = b.op("Reshape", x, b.ints(0, 0, heads, width // heads if width else -1), rank=4) if flat else x
    part = b.attr("rotary_embedding_dim", 0)
    turning = b.op("Slice", split, b.ints(0), b.ints(part), b.ints(3), rank=4) if part else split
    turned = (_interleaved if b.attr("interleaved", 0) else _halves)(b, turning, cos, sin)
    if part:
        rest = b.op("Slice", split, b.ints(part), b.ints(np.iinfo(np.int32).max), b.ints(3), rank=4)
        turned = b.op("Concat", turned, rest, axis=3, rank=4)
    return [b.op("Reshape", turned, b.ints(0, 0, width or -1), rank=3) if flat else turned]


def _interleaved(b: Rewriter, x: ir.Value, cos: ir.Value, sin: ir.Value) -> ir.Value:
    pairs = b.op("Reshape", x, b.op("Concat", _front(b, x), b.ints(-1, 2), axis=0), rank=5)
    first, second = (b.op("Squeeze", b.op("Slice", pairs, b.ints(i), b.ints(i + 1), b.ints(4)), b.ints(4), rank=4) for i in (0, 1))
    parts = [b.op("Unsqueeze", part, b.ints(4), rank=5) for part in _rotated(b, first, second, cos, sin)]
    return b.op("Reshape", b.op("Concat", *parts, axis=4, rank=5), b.op("Concat", _front(b, x), b.ints(-1), axis=0), rank=4)


def _front(b: Rewriter, x: ir.Value) -> ir.Value:
    """The first three lengths, as Reshape copies them."""
    return b.ints(0, 0, 0)


def _halves(b: Rewriter, x: ir.Value, cos: ir.Value, sin: ir.Value) -> ir.Value:
    more: dict[str, Any] = {"num_outputs": 2} if b.opset >= 18 else {}
    first, second = b.ops("Split", x, outputs=2, axis=3, rank=4, **more)
    return b.op("Concat", *_rotated(b, first, second, cos, sin), axis=3, rank=4)


def _rotated(b: Rewriter, first: ir.Value, second: ir.Value, cos: ir.Value, sin: ir.Value) -> tuple[ir.Value, ir.Value]:
    real = b.op("Sub", b.op("Mul", cos, first), b.op("Mul", sin, second), rank=4)
    return real, b.op("Add", b.op("Mul", sin, first), b.op("Mul", cos, second), rank=4)


def tensor_scatter(b: Rewriter) -> Sequence[ir.Value]:
    """TensorScatter-24: each slot of the cache [B, …, T, …] takes its token of the update [B, …, S, …], or keeps what it has.

    Gathered and selected, not scattered: exact, and every runtime has both.
    """
    cache, update, starts = b.need(0), b.need(1), b.input(2)
    rank = b.rank(cache)
    axis = b.axis(b.attr("axis", -2), cache)
    if axis < 1:
        raise Cannot("it writes along the batch")
    batch, slots, tokens = b.length(cache, 0), b.length(cache, axis), b.length(update, axis)
    column = b.op("Unsqueeze", starts, b.ints(1), rank=2) if starts is not None else b.ints(0)
    which = b.op("Sub", b.counting(slots), column)  # [B, T]: which token belongs here, if it is one
    if b.attr("mode", "linear") == "circular":
        which = b.op("Mod", which, slots)
        taken = b.op("Less", which, tokens)
    else:
        taken = b.op("And", b.op("GreaterOrEqual", which, b.const(0, np.int64)), b.op("Less", which, tokens))
    which = b.op("Where", taken, which, b.const(0, np.int64))
    rows = b.op("Add", b.op("Unsqueeze", b.counting(batch), b.ints(1)), b.op("Mul", which, b.const(0, np.int64)))
    which = b.op("Add", which, b.op("Mul", rows, b.const(0, np.int64)))  # both [B, T]
    places = b.op("Concat", b.op("Unsqueeze", rows, b.ints(2)), b.op("Unsqueeze", which, b.ints(2)), axis=2, rank=3)
    order = [0, axis, *(i for i in range(1, rank) if i != axis)]
    gathered = b.op("GatherND", update if axis == 1 else b.op("Transpose", update, perm=order, rank=rank), places, rank=rank)
    if axis != 1:
        gathered = b.op("Transpose", gathered, perm=[order.index(i) for i in range(rank)], rank=rank)
    others = [i for i in range(1, rank) if i != axis]
    here = b.op("Unsqueeze", taken, b.ints(*others), rank=rank) if starts is not None else b.op("Reshape", taken, _single(b, rank, axis))
    return [b.op("Where", here, gathered, cache, rank=rank)]


def _single(b: Rewriter, rank: int, axis: int) -> ir.Value:
    return b.ints(*(-1 if i == axis else 1 for i in range(rank)))


RULES = {"Attention": attention, "RotaryEmbedding": rotary_embedding, "TensorScatter": tensor_scatter}
