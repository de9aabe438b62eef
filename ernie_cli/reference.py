"""The dense decoder in plain numpy, float32: what converted models are compared with. Shares no code with the graph.

One layer's weights are in memory at a time, so a model of any size can be evaluated. It keeps no cache on purpose: every
position is computed from the whole prefix at once, which is what a cached session must agree with.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from .checkpoint.config import Config

#: Rows of the head multiplied at a time: bounds the float32 copy of a 100k-row embedding.
_HEAD_ROWS = 16384


class Weights(Protocol):
    """The part of a checkpoint that this file needs. `read` gives [out, in] under transformers' names."""

    @property
    def config(self) -> Config: ...

    def read(self, name: str) -> np.ndarray: ...


def logits(weights: Weights, tokens: np.ndarray, positions: list[int]) -> np.ndarray:
    """Logits float32 [len(positions), V] after each of the given positions of one sequence `tokens` int64 [S]."""
    hidden = embed(weights, tokens)
    for layer in range(weights.config.num_layers):
        hidden = block(weights, layer, hidden)
    return head(weights, hidden[positions])


def embed(weights: Weights, tokens: np.ndarray) -> np.ndarray:
    """Embeddings float32 [S, H] of tokens int64 [S]."""
    return weights.read("model.embed_tokens.weight")[tokens].astype(np.float32)


def head(weights: Weights, hidden: np.ndarray) -> np.ndarray:
    """Final norm and logits: float32 [n, H] → [n, V]."""
    hidden = _norm(weights, "model.norm", hidden)
    matrix = weights.read("model.embed_tokens.weight" if weights.config.tie_word_embeddings else "lm_head.weight")
    parts = [hidden @ matrix[start : start + _HEAD_ROWS].astype(np.float32).T for start in range(0, len(matrix), _HEAD_ROWS)]
    return np.concatenate(parts, axis=1)


def block(weights: Weights, layer: int, x: np.ndarray) -> np.ndarray:
    """One decoder block on a whole sequence, float32 [S, H] → [S, H]."""
    name = f"model.layers.{layer}"
    x = x + _attention(weights, f"{name}.self_attn", _norm(weights, f"{name}.input_layernorm", x))
    normed = _norm(weights, f"{name}.post_attention_layernorm", x)
    gate = _linear(weights, f"{name}.mlp.gate_proj", normed)
    with np.errstate(over="ignore"):  # exp overflows to inf for gates below -88, and the quotient is the right 0
        gate = gate / (1 + np.exp(-gate))
    return x + _linear(weights, f"{name}.mlp.down_proj", gate * _linear(weights, f"{name}.mlp.up_proj", normed))


def _attention(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    config, length = weights.config, len(x)
    groups = config.num_heads // config.num_kv_heads

    def heads(projection: str, count: int) -> np.ndarray:
        return _linear(weights, f"{name}.{projection}", x).reshape(length, count, config.head_dim).swapaxes(0, 1)

    query = _rotate(heads("q_proj", config.num_heads), config)
    key = np.repeat(_rotate(heads("k_proj", config.num_kv_heads), config), groups, axis=0)
    value = np.repeat(heads("v_proj", config.num_kv_heads), groups, axis=0)
    scores = query @ key.swapaxes(1, 2) / np.sqrt(np.float32(config.head_dim))
    scores[:, np.triu(np.ones((length, length), bool), 1)] = -np.inf
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = scores / scores.sum(axis=-1, keepdims=True) @ value
    return _linear(weights, f"{name}.o_proj", mixed.swapaxes(0, 1).reshape(length, -1))


def _rotate(x: np.ndarray, config: Config) -> np.ndarray:
    """RoPE on pairs (2i, 2i+1) seen as complex numbers, x float32 [heads, S, d]."""
    frequency = 1.0 / config.rope_theta ** (np.arange(0, config.head_dim, 2, dtype=np.float64) / config.head_dim)
    angle = np.arange(x.shape[1])[:, None] / config.compression_ratio * frequency
    turned = x[..., 0::2] + 1j * x[..., 1::2]
    turned = turned * np.exp(1j * angle)
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape).astype(np.float32)


def _norm(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    scale = weights.read(f"{name}.weight").astype(np.float32)
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(weights.config.rms_norm_eps)) * scale


def _linear(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    y = x @ weights.read(f"{name}.weight").astype(np.float32).T
    return y + weights.read(f"{name}.bias").astype(np.float32) if weights.config.use_bias else y
