"""The dense ERNIE 4.5 decoder in Paddle: layers for training and for inference programs. Weights and files are decoder_export.py's.

`Decoder(config)(input_ids, past)` → [logits, present …]: `input_ids` int64 [B, S], `past` key and value [B, g, P, d] of every layer
(P may be 0), `logits` float32 [B, V] after the last token (all_logits: [B, S, V]), `present` as `past`, P + S long.

Arithmetic as in graph/dense.py, with a growing cache, as graph/cache.py's. Plain operators only, so that converters know them.
Parameters are named and shaped as in published -Paddle checkpoints. Shapes in comments: B batch, S new tokens, P past tokens,
T = P + S, H hidden size, n heads, g key/value heads, r = n / g, d head_dim, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..checkpoint.config import Config
from ..need import need

paddle: Any = need("paddle")  # this module is imported only where a decoder is made
if TYPE_CHECKING:

    class Layer:
        """paddle.nn.Layer, which has no types to check."""

        def __call__(self, *inputs: Any) -> Any: ...
        def __getattr__(self, name: str) -> Any: ...

else:
    Layer = paddle.nn.Layer


def _linear(name: str, inputs: int, outputs: int, bias: bool) -> Any:
    """A projection, its weight [in, out]."""
    return paddle.nn.Linear(
        inputs,
        outputs,
        weight_attr=paddle.ParamAttr(name=f"{name}.weight"),
        bias_attr=paddle.ParamAttr(name=f"{name}.bias") if bias else False,
    )


class Norm(Layer):
    """RMSNorm over the last axis, in float32 inside."""

    def __init__(self, name: str, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        attr = paddle.ParamAttr(name=f"{name}.weight", initializer=paddle.nn.initializer.Constant(1.0))
        self.weight = self.create_parameter([size], attr=attr)

    def forward(self, x: Any) -> Any:
        wide = x.astype("float32")
        wide = wide * paddle.rsqrt((wide * wide).mean(-1, keepdim=True) + self.eps)
        return wide.astype(x.dtype) * self.weight


class Attention(Layer):
    """Causal grouped-query attention over past and new tokens."""

    def __init__(self, name: str, config: Config, last_only: bool) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        self.last_only = last_only
        width = (self.heads + 2 * self.kv_heads) * self.head_dim
        self.qkv_proj = _linear(f"{name}.qkv_proj", config.hidden_size, width, config.use_bias)
        self.o_proj = _linear(f"{name}.o_proj", self.heads * self.head_dim, config.hidden_size, config.use_bias)

    def forward(self, x: Any, cos: Any, sin: Any, mask: Any, past_key: Any, past_value: Any) -> tuple[Any, Any, Any]:
        """x [B, S, H], cos and sin [S, 1, d/2, 1], mask float32 [r·S, T] → [B, S, H] (last_only: [B, 1, H]); key, value [B, g, T, d]."""
        mixed = self.qkv_proj(x).reshape([0, 0, self.heads + 2 * self.kv_heads, self.head_dim])
        query, key, value = paddle.split(mixed, [self.heads, self.kv_heads, self.kv_heads], axis=2)
        key = paddle.concat([past_key, self.rotate(key, cos, sin).transpose([0, 2, 1, 3])], axis=2)
        value = paddle.concat([past_value, value.transpose([0, 2, 1, 3])], axis=2)
        if self.last_only:
            query, cos, sin = query[:, -1:], cos[-1:], sin[-1:]
        # Heads that share a key stand in for tokens: [B, g, r·S, d], so that no key is repeated.
        query = self.rotate(query, cos, sin).transpose([0, 2, 1, 3]).reshape([0, self.kv_heads, -1, self.head_dim])
        scores = paddle.matmul(query, key, transpose_y=True).astype("float32") * (self.head_dim**-0.5)
        if not self.last_only:  # the last token sees all there is
            scores = scores + mask
        found = paddle.matmul(paddle.nn.functional.softmax(scores, axis=-1).astype(value.dtype), value)
        found = found.reshape([0, self.heads, -1, self.head_dim]).transpose([0, 2, 1, 3])
        return self.o_proj(found.reshape([0, 0, self.heads * self.head_dim])), key, value

    def rotate(self, x: Any, cos: Any, sin: Any) -> Any:
        """Interleaved RoPE over the whole head_dim of x [B, S, heads, d], in float32, given back in x's type."""
        pairs = x.astype("float32").reshape([0, 0, x.shape[2], self.head_dim // 2, 2])
        even, odd = paddle.split(pairs, 2, axis=-1)
        turned = paddle.concat([even * cos - odd * sin, odd * cos + even * sin], axis=-1)
        return turned.reshape([0, 0, x.shape[2], self.head_dim]).astype(x.dtype)


class Mlp(Layer):
    """SwiGLU: down(silu(gate(x)) · up(x)); gate and up are one matrix, gate first."""

    def __init__(self, name: str, config: Config) -> None:
        super().__init__()
        self.up_gate_proj = _linear(f"{name}.up_gate_proj", config.hidden_size, 2 * config.intermediate_size, config.use_bias)
        self.down_proj = _linear(f"{name}.down_proj", config.intermediate_size, config.hidden_size, config.use_bias)

    def forward(self, x: Any) -> Any:
        gate, up = paddle.split(self.up_gate_proj(x), 2, axis=-1)
        return self.down_proj(paddle.nn.functional.silu(gate) * up)


class Block(Layer):
    """One decoder block. `last_only`: keys and values for all tokens, everything else for the last one."""

    def __init__(self, name: str, config: Config, last_only: bool) -> None:
        super().__init__()
        self.last_only = last_only
        self.input_layernorm = Norm(f"{name}.input_layernorm", config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(f"{name}.self_attn", config, last_only)
        self.post_attention_layernorm = Norm(f"{name}.post_attention_layernorm", config.hidden_size, config.rms_norm_eps)
        self.mlp = Mlp(f"{name}.mlp", config)

    def forward(self, x: Any, cos: Any, sin: Any, mask: Any, past_key: Any, past_value: Any) -> tuple[Any, Any, Any]:
        attended, key, value = self.self_attn(self.input_layernorm(x), cos, sin, mask, past_key, past_value)
        x = (x[:, -1:] if self.last_only else x) + attended
        return x + self.mlp(self.post_attention_layernorm(x)), key, value


class Body(Layer):
    """Embedding, blocks and final norm: what published tensors call `ernie.`."""

    def __init__(self, config: Config, last: int) -> None:
        super().__init__()
        self.config = config
        attr = paddle.ParamAttr(name="ernie.embed_tokens.weight")
        self.embed_tokens = paddle.nn.Embedding(config.vocab_size, config.hidden_size, weight_attr=attr)
        blocks = [Block(f"ernie.layers.{layer}", config, layer == last) for layer in range(config.num_layers)]
        self.layers = paddle.nn.LayerList(blocks)
        self.norm = Norm("ernie.norm", config.hidden_size, config.rms_norm_eps)

    def forward(self, input_ids: Any, past: list[Any]) -> tuple[Any, list[Any]]:
        """Hidden states [B, S, H] (or [B, 1, H]), and key and value of every layer."""
        begin, length = paddle.shape(past[0])[2], paddle.shape(input_ids)[1]
        positions = paddle.arange(begin, begin + length, dtype="int64")
        cos, sin = self.rope(positions)
        mask = self.mask(positions, begin + length)
        hidden, present = self.embed_tokens(input_ids), []
        for layer, block in enumerate(self.layers):
            hidden, key, value = block(hidden, cos, sin, mask, past[2 * layer], past[2 * layer + 1])
            present += [key, value]
        return self.norm(hidden), present

    def rope(self, positions: Any) -> tuple[Any, Any]:
        """Cosines and sines float32 [S, 1, d/2, 1] of positions int64 [S]."""
        exponent = np.arange(0, self.config.head_dim, 2, dtype=np.float32) / np.float32(self.config.head_dim)
        inv_freq = np.float32(1.0) / np.power(np.float32(self.config.rope_theta), exponent, dtype=np.float32)
        moved = positions.astype("float32") / self.config.compression_ratio
        angles = moved.reshape([-1, 1, 1, 1]) * paddle.assign(inv_freq.reshape(1, 1, -1, 1))
        return paddle.cos(angles), paddle.sin(angles)

    def mask(self, positions: Any, total: Any) -> Any:
        """What is added to scores, float32 [r·S, T]: 0 for what a token may see, -inf for what comes after it."""
        seen = paddle.arange(0, total, dtype="int64").reshape([1, -1]) <= positions.reshape([-1, 1])
        seen = paddle.tile(seen, [self.config.num_heads // self.config.num_kv_heads, 1])
        return paddle.where(seen, paddle.zeros([1], "float32"), paddle.full([1], float("-inf"), "float32"))


class Decoder(Layer):
    """The whole model; see the top of this file. Its weights' type is Paddle's default type at the time it is made."""

    def __init__(self, config: Config, *, all_logits: bool = False) -> None:
        super().__init__()
        self.tied, self.all_logits = config.tie_word_embeddings, all_logits
        self.ernie = Body(config, -1 if all_logits else config.num_layers - 1)
        if not self.tied:
            self.lm_head = _linear("lm_head", config.hidden_size, config.vocab_size, False)

    def forward(self, input_ids: Any, past: list[Any]) -> list[Any]:
        hidden, present = self.ernie(input_ids, past)
        logits = paddle.matmul(hidden, self.ernie.embed_tokens.weight, transpose_y=True) if self.tied else self.lm_head(hidden)
        logits = logits.astype("float32")
        return [logits if self.all_logits else logits.squeeze(1), *present]
