"""The dense ERNIE 4.5 decoder as a graph: what the layers compute. Weights are streamed by weights.py, caches live in cache.py.

Per block: RMSNorm → grouped-query attention → add → RMSNorm → SwiGLU → add; then a final RMSNorm and the head. RoPE is
interleaved and computed in float32 whatever the dtype. Arithmetic as in transformers' `modeling_ernie4_5.py`. Where only the
last token's logits are wanted, the last block computes keys and values for all tokens and everything else for the last one.

Shapes in comments: B batch, S new tokens, H hidden size, n heads, g key/value heads, d head_dim, V vocabulary.
Values named `layers.<i>.input` and `layers.<n>.input` (the last block's output) are the seams where a graph can be cut.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..checkpoint.config import Config
from .builder import Builder, WeightSource
from .cache import Cache


class DenseDecoder:
    """Emits one decoder into a Builder. `cache` decides how keys and values of earlier tokens are kept."""

    def __init__(self, config: Config, builder: Builder, cache: Cache, *, all_logits: bool) -> None:
        self.config, self.b, self.cache, self.all_logits = config, builder, cache, all_logits

    def emit(self) -> None:
        """Add inputs, every node and outputs: `input_ids` int64 [B, S] (and the cache's) → `logits` float32 [B, V] or [B, S, V]."""
        b, config = self.b, self.config
        ids = b.input("input_ids", ir.DataType.INT64, ["batch", "sequence"])
        positions = self.cache.begin(b, ids)
        embedding = b.weight(
            "model.embed_tokens.weight", (config.vocab_size, config.hidden_size), WeightSource("model.embed_tokens.weight", False)
        )
        hidden = b.op("Gather", embedding, ids, name="model.embed_tokens")
        cos, sin = self.rope_tables(positions)
        for layer in range(config.num_layers):
            last_only = not self.all_logits and layer == config.num_layers - 1
            hidden = self.block(layer, self.seam(layer, hidden), cos, sin, last_only=last_only)
        hidden = self.seam(config.num_layers, hidden, "sequence" if self.all_logits else 1)
        self.head(hidden, embedding)
        self.cache.end(b)

    def seam(self, layer: int, hidden: ir.Value, length: str | int = "sequence") -> ir.Value:
        """Name and type the hidden states [B, length, H] between blocks, so that the graph can be cut there."""
        hidden.name, hidden.type = f"layers.{layer}.input", ir.TensorType(self.b.dtype)
        hidden.shape = ir.Shape(["batch", length, self.config.hidden_size])
        return hidden

    def last(self, name: str, x: ir.Value) -> ir.Value:
        """The last token of x: [B, S, …] → [B, 1, …]."""
        return self.b.op("Gather", x, self.b.ints(-1), name=f"{name}.last", axis=1)

    def rope_tables(self, positions: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Cosines and sines float32 [B, S, d/2] of `positions` int64 [B, S]. Computed, not stored: 131,072 rows would weigh 67 MB."""
        b, config = self.b, self.config
        # The same float32 operations in the same order as transformers, so that large positions round alike.
        exponent = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
        inv_freq = np.float32(1.0) / np.power(np.float32(config.rope_theta), exponent, dtype=np.float32)
        moved = b.op("Cast", positions, name="rope.positions", to=ir.DataType.FLOAT)
        if config.compression_ratio != 1.0:
            moved = b.op("Div", moved, b.constant("rope.compression_ratio", np.float32(config.compression_ratio)), name="rope.compressed")
        column = b.op("Unsqueeze", moved, b.ints(-1), name="rope.column")
        angles = b.op("Mul", column, b.constant("rope.inv_freq", inv_freq), name="rope.angles")
        return b.op("Cos", angles, name="rope.cos"), b.op("Sin", angles, name="rope.sin")

    def block(self, layer: int, x: ir.Value, cos: ir.Value, sin: ir.Value, *, last_only: bool = False) -> ir.Value:
        """One decoder block on hidden states [B, S, H] → the same, or [B, 1, H] where only the last token is wanted."""
        name = f"model.layers.{layer}"
        attended = self.attention(layer, self.norm(f"{name}.input_layernorm", x), cos, sin, last_only=last_only)
        if last_only:
            x = self.last(name, x)
        x = self.b.op("Add", x, attended, name=f"{name}.self_attn.residual")
        fed = self.mlp(f"{name}.mlp", self.norm(f"{name}.post_attention_layernorm", x))
        return self.b.op("Add", x, fed, name=f"{name}.mlp.residual")

    def attention(self, layer: int, x: ir.Value, cos: ir.Value, sin: ir.Value, *, last_only: bool = False) -> ir.Value:
        """Causal grouped-query attention over the cache and the new tokens, [B, S, H] → [B, S, H], or [B, 1, H] of the last one."""
        config, name = self.config, f"model.layers.{layer}.self_attn"
        query_width, key_width = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        asking = self.last(name, x) if last_only else x
        query = self.linear(f"{name}.q_proj", asking, config.hidden_size, query_width)
        key = self.linear(f"{name}.k_proj", x, config.hidden_size, key_width)
        value = self.linear(f"{name}.v_proj", x, config.hidden_size, key_width)
        key = self.rotate(f"{name}.k_rope", key, config.num_kv_heads, cos, sin)
        if last_only:
            cos, sin = self.last(f"{name}.cos", cos), self.last(f"{name}.sin", sin)
        query = self.rotate(f"{name}.q_rope", query, config.num_heads, cos, sin)
        mixed = self.cache.attend(self.b, layer, query, key, value, last_only=last_only)
        return self.linear(f"{name}.o_proj", mixed, query_width, config.hidden_size)

    def rotate(self, name: str, x: ir.Value, heads: int, cos: ir.Value, sin: ir.Value) -> ir.Value:
        """Interleaved RoPE over the whole head_dim of x [B, S, heads·d], in float32, given back in x's type."""
        b, narrow = self.b, self.b.dtype != ir.DataType.FLOAT
        if narrow:
            x = b.op("Cast", x, name=f"{name}.widen", to=ir.DataType.FLOAT)
        x = b.op("RotaryEmbedding", x, cos, sin, name=name, interleaved=1, num_heads=heads)
        return b.op("Cast", x, name=f"{name}.narrow", to=b.dtype) if narrow else x

    def mlp(self, name: str, x: ir.Value) -> ir.Value:
        """SwiGLU: down(silu(gate(x)) · up(x)), [B, S, H] → [B, S, H]."""
        b, hidden, inner = self.b, self.config.hidden_size, self.config.intermediate_size
        gate = self.linear(f"{name}.gate_proj", x, hidden, inner)
        up = self.linear(f"{name}.up_proj", x, hidden, inner)
        # silu(x) = x · sigmoid(x), spelled out: Swish is an operator from opset 24 on only, and backends fuse this pair.
        silu = b.op("Mul", gate, b.op("Sigmoid", gate, name=f"{name}.sigmoid"), name=f"{name}.silu")
        return self.linear(f"{name}.down_proj", b.op("Mul", silu, up, name=f"{name}.gated"), inner, hidden)

    def norm(self, name: str, x: ir.Value) -> ir.Value:
        """RMSNorm over the last axis, in float32 inside (stash_type 1)."""
        scale = self.b.weight(f"{name}.weight", (self.config.hidden_size,), WeightSource(f"{name}.weight", False))
        return self.b.op("RMSNormalization", x, scale, name=name, axis=-1, epsilon=self.config.rms_norm_eps, stash_type=1)

    def linear(self, name: str, x: ir.Value, inputs: int, outputs: int) -> ir.Value:
        """x @ W (+ bias), with W stored [in, out]."""
        weight = self.b.weight(f"{name}.weight", (inputs, outputs), WeightSource(f"{name}.weight", True))
        y = self.b.op("MatMul", x, weight, name=name)
        if not self.config.use_bias:
            return y
        bias = self.b.weight(f"{name}.bias", (outputs,), WeightSource(f"{name}.bias", False))
        return self.b.op("Add", y, bias, name=f"{name}.biased")

    def head(self, hidden: ir.Value, embedding: ir.Value) -> None:
        """Final norm and logits, of all tokens that the last block gives. Tied weights are used where they stand ([V, H])."""
        b, config = self.b, self.config
        flat = b.op("Reshape", hidden, b.ints(-1, config.hidden_size), name="head.flat")
        flat = self.norm("model.norm", flat)
        if config.tie_word_embeddings:
            weight = embedding
        else:
            weight = b.weight("lm_head.weight", (config.vocab_size, config.hidden_size), WeightSource("lm_head.weight", False))
        logits = b.op("Gemm", flat, weight, name="lm_head", transB=1)
        if b.dtype != ir.DataType.FLOAT:
            logits = b.op("Cast", logits, name="head.widen", to=ir.DataType.FLOAT)
        if self.all_logits:
            shape = b.op("Shape", hidden, name="head.shape", start=0, end=2)
            shape = b.op("Concat", shape, b.ints(config.vocab_size), name="head.logits_shape", axis=0)
            logits = b.op("Reshape", logits, shape, name="head.logits")
        axes = ["batch", "sequence"] if self.all_logits else ["batch"]
        b.output(logits, "logits", ir.DataType.FLOAT, [*axes, config.vocab_size])
