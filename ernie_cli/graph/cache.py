"""Two ways to keep the keys and values of earlier tokens in a graph. What uses them lives in dense.py.

`static`: a cache of fixed length per layer, input and output at the same address, written with TensorScatter; rows of a
batch may stand at different positions. It is what TensorRT takes (an Attention with one output) and what CUDA graphs need.
`growing`: past and present through Attention itself; every row has the same length.

Shapes: B batch, S new tokens, P past tokens, T cache slots, n heads, g key/value heads, d head_dim.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import onnx_ir as ir

from ..checkpoint.config import Config
from .builder import Builder


class Cache(Protocol):
    """What a decoder asks of its cache, in this order: begin once, attend per layer, end once."""

    opset: int

    def begin(self, b: Builder, ids: ir.Value) -> ir.Value:
        """Declare inputs; return the positions int64 [B, S] of the new tokens."""
        ...

    def attend(self, b: Builder, layer: int, query: ir.Value, key: ir.Value, value: ir.Value, *, last_only: bool) -> ir.Value:
        """query [B, S, n·d], key and value [B, S, g·d], rotated → mixed values [B, S, n·d].

        last_only: the query, and so the result, is the last token's alone, [B, 1, n·d].
        """
        ...

    def end(self, b: Builder) -> None:
        """Declare outputs."""
        ...


def _heads_first(b: Builder, name: str, x: ir.Value, heads: int, head_dim: int) -> ir.Value:
    """[B, S, heads·d] → [B, heads, S, d]."""
    split = b.op("Reshape", x, b.ints(0, 0, heads, head_dim), name=f"{name}.split")
    return b.op("Transpose", split, name=f"{name}.heads_first", perm=[0, 2, 1, 3])


def _offsets(b: Builder, like: ir.Value, axis: int, name: str) -> ir.Value:
    """0, 1, … up to the length of one axis of `like`, int64."""
    length = b.op("Shape", like, name=f"{name}.length", start=axis, end=axis + 1)
    length = b.op("Squeeze", length, b.ints(0), name=f"{name}.scalar")
    zero, one = b.constant("zero", np.array(0, np.int64)), b.constant("one", np.array(1, np.int64))
    return b.op("Range", zero, length, one, name=f"{name}.range")


class GrowingCache:
    """`past.<i>.key|value` [B, g, P, d] → `present.<i>.key|value` [B, g, P+S, d]."""

    opset = 23  # Attention, RotaryEmbedding, RMSNormalization

    def __init__(self, config: Config) -> None:
        self.config = config
        self.past: list[tuple[ir.Value, ir.Value]] = []
        self.present: list[tuple[ir.Value, ir.Value]] = []

    def begin(self, b: Builder, ids: ir.Value) -> ir.Value:
        shape: list[int | str] = ["batch", self.config.num_kv_heads, "past", self.config.head_dim]
        for layer in range(self.config.num_layers):
            self.past.append((b.input(f"past.{layer}.key", b.dtype, shape), b.input(f"past.{layer}.value", b.dtype, shape)))
        past_length = b.op("Shape", self.past[0][0], name="positions.past_length", start=2, end=3)
        positions = b.op("Add", _offsets(b, ids, 1, "positions.new"), past_length, name="positions.sum")
        # RotaryEmbedding wants positions for each row, though all rows' are the same.
        return b.op("Expand", positions, b.op("Shape", ids, name="positions.shape"), name="positions")

    def attend(self, b: Builder, layer: int, query: ir.Value, key: ir.Value, value: ir.Value, *, last_only: bool) -> ir.Value:
        heads = {"q_num_heads": self.config.num_heads, "kv_num_heads": self.config.num_kv_heads}
        past_key, past_value = self.past[layer]
        name = f"model.layers.{layer}.self_attn.attention"
        # The last token sees all there is. (is_causal would take a lone query for the first new token.)
        causal = 0 if last_only else 1
        mixed, present_key, present_value = b.ops(
            "Attention", query, key, value, None, past_key, past_value, name=name, outputs=3, is_causal=causal, **heads
        )
        self.present.append((present_key, present_value))
        return mixed

    def end(self, b: Builder) -> None:
        shape: list[int | str] = ["batch", self.config.num_kv_heads, "total", self.config.head_dim]
        for layer, (key, value) in enumerate(self.present):
            b.output(key, f"present.{layer}.key", b.dtype, shape)
            b.output(value, f"present.{layer}.value", b.dtype, shape)


class StaticCache:
    """`positions` int64 [B] (where each row's new tokens go) and `cache.<i>.key|value` [B, g, T, d] → `cache_out.<i>.…`."""

    opset = 24  # TensorScatter
    onnxruntime = (1, 25)  # the first release with its kernels

    def __init__(self, config: Config) -> None:
        self.config = config
        self.caches: list[tuple[ir.Value, ir.Value]] = []
        self.written: list[tuple[ir.Value, ir.Value]] = []

    def begin(self, b: Builder, ids: ir.Value) -> ir.Value:
        self.starts = b.input("positions", ir.DataType.INT64, ["batch"])
        shape: list[int | str] = ["batch", self.config.num_kv_heads, "slots", self.config.head_dim]
        for layer in range(self.config.num_layers):
            self.caches.append((b.input(f"cache.{layer}.key", b.dtype, shape), b.input(f"cache.{layer}.value", b.dtype, shape)))
        column = b.op("Unsqueeze", self.starts, b.ints(1), name="positions.column")
        positions = b.op("Add", column, _offsets(b, ids, 1, "positions.new"), name="positions.all")
        # A new token sees every slot up to its own: said as a mask, because how is_causal aligns with an external cache
        # was left open by opset 24 and settled only later.
        rows = b.op("Unsqueeze", positions, b.ints(1, 3), name="mask.rows")
        slots = _offsets(b, self.caches[0][0], 2, "mask.slots")
        self.mask = b.op("LessOrEqual", slots, rows, name="mask")  # [B, 1, S, T]
        return positions

    def attend(self, b: Builder, layer: int, query: ir.Value, key: ir.Value, value: ir.Value, *, last_only: bool) -> ir.Value:
        config, name = self.config, f"model.layers.{layer}.self_attn"
        query = _heads_first(b, f"{name}.query", query, config.num_heads, config.head_dim)
        written = []
        for kind, update, cache in zip(("key", "value"), (key, value), self.caches[layer], strict=True):
            update = _heads_first(b, f"{name}.{kind}", update, config.num_kv_heads, config.head_dim)
            written.append(b.op("TensorScatter", cache, update, self.starts, name=f"{name}.{kind}_cache", axis=2))
        self.written.append((written[0], written[1]))
        mask = b.op("Gather", self.mask, b.ints(-1), name=f"{name}.mask", axis=2) if last_only else self.mask
        mixed = b.op("Attention", query, *written, mask, name=f"{name}.attention")
        back = b.op("Transpose", mixed, name=f"{name}.tokens_first", perm=[0, 2, 1, 3])
        return b.op("Reshape", back, b.ints(0, 0, config.num_heads * config.head_dim), name=f"{name}.merged")

    def end(self, b: Builder) -> None:
        shape: list[int | str] = ["batch", self.config.num_kv_heads, "slots", self.config.head_dim]
        for layer, (key, value) in enumerate(self.written):
            b.output(key, f"cache_out.{layer}.key", b.dtype, shape)
            b.output(value, f"cache_out.{layer}.value", b.dtype, shape)


def choose(wanted: str) -> tuple[str, str]:
    """(kind of cache, why) for "auto", "static" or "growing"."""
    if wanted != "auto":
        return wanted, "--kv-cache"
    try:
        version = importlib.metadata.version("onnxruntime")
    except importlib.metadata.PackageNotFoundError:
        return "static", "what TensorRT and batches need"
    if tuple(map(int, version.split(".")[:2])) < StaticCache.onnxruntime:
        return "growing", f"onnxruntime {version} stops at opset 23, a static cache needs 24"
    return "static", "what TensorRT and batches need"


CACHES: Mapping[str, Callable[[Config], Cache]] = {"static": StaticCache, "growing": GrowingCache}
