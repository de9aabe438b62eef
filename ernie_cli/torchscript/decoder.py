"""The dense ERNIE 4.5 decoder in plain torch, written to be scripted: prefill and cached decode in one `forward`.

Weights are put in by decoder_weights.py; what runs the result is runtime/torchscript_decoder.py. The saved module needs neither:

    model = torch.jit.load("model.pt")                       # C++: auto model = torch::jit::load("model.pt");
    cache = model.new_cache(1, 512)                          #      auto cache = model.run_method("new_cache", 1, 512);
    logits = model(input_ids, positions, cache)              #      model.forward({input_ids, positions, cache}).toTensor()

`input_ids` int64 [B, S] are the new tokens, `positions` int64 [B] how many tokens each row holds already (where its new ones go),
`cache` the list of tensors [B, g, T, d], key and value of each layer, which `forward` writes in place. Rows may stand at different
positions; to forget tokens, pass smaller positions; to make room, copy into a larger cache. One call with S > 1 is prefill, calls
with S = 1 decode. `logits` are float32 [B, V] after each row's last token, or [B, S, V] where made with `all_logits`.

C++ programs hold a `c10::InferenceMode` and call `torch::jit::setGraphExecutorOptimize(false)` once: torch's optimiser of scripts
costs the first calls seconds and makes no step faster.

Arithmetic as in graph/dense.py. Shapes in comments: B batch, S new tokens, T cache slots, H hidden size, n heads, g key/value
heads, d head_dim, V vocabulary. Parameters are named and shaped as transformers' tensors, without the `model.` in front.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..checkpoint.config import Config
from ..need import need

if TYPE_CHECKING:
    import torch
else:
    torch = need("torch")  # this module is imported only where a decoder is made


def _linear(inputs: int, outputs: int, bias: bool, dtype: torch.dtype) -> torch.nn.Linear:
    """A projection without values."""
    return torch.nn.Linear(inputs, outputs, bias=bias, dtype=dtype, device="meta").to_empty(device="cpu")


class Norm(torch.nn.Module):
    """RMSNorm over the last axis, in float32 inside."""

    __constants__ = ("eps",)

    def __init__(self, size: int, eps: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.eps = eps
        self.weight = torch.nn.Parameter(torch.empty(size, dtype=dtype), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class Attention(torch.nn.Module):
    """Causal grouped-query attention over the cache and the new tokens."""

    __constants__ = ("groups", "head_dim", "heads", "kv_heads", "last_only")

    def __init__(self, config: Config, dtype: torch.dtype, last_only: bool) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        self.groups, self.last_only = self.heads // self.kv_heads, last_only
        self.q_proj = _linear(config.hidden_size, self.heads * self.head_dim, config.use_bias, dtype)
        self.k_proj = _linear(config.hidden_size, self.kv_heads * self.head_dim, config.use_bias, dtype)
        self.v_proj = _linear(config.hidden_size, self.kv_heads * self.head_dim, config.use_bias, dtype)
        self.o_proj = _linear(self.heads * self.head_dim, config.hidden_size, config.use_bias, dtype)

    def forward(
        self,
        x: torch.Tensor,
        turns: torch.Tensor,
        slots: torch.Tensor,
        start: int,
        mask: torch.Tensor | None,
        key_cache: torch.Tensor,
        value_cache: torch.Tensor,
    ) -> torch.Tensor:
        """x [B, S, H], turns complex64 [B, S, 1, d/2], slots int64 [B, S] → [B, S, H], or [B, 1, H] of the last token.

        start: where all rows' new tokens go, -1 where rows differ. mask bool [B or 1, 1, S, T']: what each token may see, of the
        slots up to the furthest token; None where that is all, or all before it for a prefill into an empty cache.
        """
        batch, length = x.size(0), x.size(1)
        key = self.rotate(self.k_proj(x).view(batch, length, self.kv_heads, self.head_dim), turns).transpose(1, 2)
        value = self.v_proj(x).view(batch, length, self.kv_heads, self.head_dim).transpose(1, 2)
        if self.last_only:
            x, turns = x[:, -1:], turns[:, -1:]
        asking = x.size(1)
        query = self.rotate(self.q_proj(x).view(batch, asking, self.heads, self.head_dim), turns)
        if start >= 0:
            total = start + length
            key_cache.narrow(2, start, length).copy_(key)
            value_cache.narrow(2, start, length).copy_(value)
        else:
            assert mask is not None
            total = mask.size(3)
            places = slots.view(batch, 1, length, 1).expand(batch, self.kv_heads, length, self.head_dim)
            key_cache.scatter_(2, places, key)
            value_cache.scatter_(2, places, value)
        keys, values = key_cache.narrow(2, 0, total), value_cache.narrow(2, 0, total)
        if asking == 1:  # heads that share a key stand in for query tokens: nothing needs repeating
            seen = mask
            if seen is not None:
                seen = seen[:, :, -1:]
            query = query.view(batch, self.kv_heads, self.groups, self.head_dim)
            found = torch.nn.functional.scaled_dot_product_attention(query, keys, values, attn_mask=seen)
        else:
            keys, values = keys.repeat_interleave(self.groups, 1), values.repeat_interleave(self.groups, 1)
            found = torch.nn.functional.scaled_dot_product_attention(
                query.transpose(1, 2), keys, values, attn_mask=mask, is_causal=mask is None
            )
            found = found.transpose(1, 2)
        return self.o_proj(found.reshape(batch, asking, self.heads * self.head_dim))

    def rotate(self, x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
        """Interleaved RoPE over the whole head_dim of x [B, S, heads, d], in float32, given back in x's type.

        Pairs are multiplied as complex numbers: the same four products, several times as fast as on strided halves.
        """
        pairs = torch.view_as_complex(x.float().view(x.size(0), x.size(1), x.size(2), -1, 2))
        return torch.view_as_real(pairs * turns).flatten(-2).to(x.dtype)


class Mlp(torch.nn.Module):
    """SwiGLU: down(silu(gate(x)) · up(x))."""

    def __init__(self, config: Config, dtype: torch.dtype) -> None:
        super().__init__()
        self.gate_proj = _linear(config.hidden_size, config.intermediate_size, config.use_bias, dtype)
        self.up_proj = _linear(config.hidden_size, config.intermediate_size, config.use_bias, dtype)
        self.down_proj = _linear(config.intermediate_size, config.hidden_size, config.use_bias, dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(torch.nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(torch.nn.Module):
    """One decoder block. `last_only`: keys and values for all tokens, everything else for the last one."""

    __constants__ = ("last_only",)

    def __init__(self, config: Config, dtype: torch.dtype, last_only: bool) -> None:
        super().__init__()
        self.last_only = last_only
        self.input_layernorm = Norm(config.hidden_size, config.rms_norm_eps, dtype)
        self.self_attn = Attention(config, dtype, last_only)
        self.post_attention_layernorm = Norm(config.hidden_size, config.rms_norm_eps, dtype)
        self.mlp = Mlp(config, dtype)

    def forward(
        self,
        x: torch.Tensor,
        turns: torch.Tensor,
        slots: torch.Tensor,
        start: int,
        mask: torch.Tensor | None,
        key_cache: torch.Tensor,
        value_cache: torch.Tensor,
    ) -> torch.Tensor:
        attended = self.self_attn(self.input_layernorm(x), turns, slots, start, mask, key_cache, value_cache)
        if self.last_only:
            x = x[:, -1:]
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(torch.nn.Module):
    """The whole model; see the top of this file for how it is called. Parameters hold no values yet."""

    __constants__ = ("all_logits", "compression_ratio", "head_dim", "kv_heads", "num_layers", "rope_theta", "tied")

    def __init__(self, config: Config, dtype: torch.dtype, *, all_logits: bool = False) -> None:
        super().__init__()
        self.head_dim, self.kv_heads, self.num_layers = config.head_dim, config.num_kv_heads, config.num_layers
        self.rope_theta, self.compression_ratio = float(config.rope_theta), float(config.compression_ratio)
        self.tied, self.all_logits = config.tie_word_embeddings, all_logits
        self.embed_tokens = torch.nn.Embedding(config.vocab_size, config.hidden_size, dtype=dtype, device="meta").to_empty(device="cpu")
        last = -1 if all_logits else config.num_layers - 1
        self.layers = torch.nn.ModuleList(Block(config, dtype, layer == last) for layer in range(config.num_layers))
        self.norm = Norm(config.hidden_size, config.rms_norm_eps, dtype)
        if not self.tied:
            self.lm_head = _linear(config.hidden_size, config.vocab_size, False, dtype)
        self.requires_grad_(False)

    def forward(self, input_ids: torch.Tensor, positions: torch.Tensor, cache: list[torch.Tensor]) -> torch.Tensor:
        """Append input_ids int64 [B, S] at positions int64 [B] of the cache → logits float32 [B, V] (all_logits: [B, S, V])."""
        length = input_ids.size(1)
        slots = positions.unsqueeze(1) + torch.arange(length, device=positions.device)
        start, furthest = int(positions.min()), int(positions.max()) + length
        mask: torch.Tensor | None = None
        if start + length != furthest:
            start = -1
        if start < 0 or (start > 0 and length > 1):  # else all is seen, or an empty cache is filled: causal by itself
            seen = torch.arange(furthest, device=positions.device) <= slots.unsqueeze(-1)
            mask = seen.unsqueeze(1)
        turns = self.rope(slots)
        hidden = self.embed_tokens(input_ids)
        for layer, block in enumerate(self.layers):
            hidden = block(hidden, turns, slots, start, mask, cache[2 * layer], cache[2 * layer + 1])
        hidden = self.norm(hidden)
        if self.tied:  # noqa: SIM108 (scripting drops the branch that a constant never takes; of an expression it compiles both)
            logits = torch.nn.functional.linear(hidden, self.embed_tokens.weight)
        else:
            logits = self.lm_head(hidden)
        if not self.all_logits:
            logits = logits[:, -1]
        return logits.float()

    def rope(self, slots: torch.Tensor) -> torch.Tensor:
        """cos + i·sin, complex64 [B, S, 1, d/2], of positions int64 [B, S]. Computed: no `model.half()` can round it."""
        exponent = torch.arange(0, self.head_dim, 2, dtype=torch.float32, device=slots.device) / self.head_dim
        moved = slots.float() / self.compression_ratio
        angles = (moved.unsqueeze(-1) * (1.0 / torch.pow(self.rope_theta, exponent))).unsqueeze(2)
        return torch.complex(angles.cos(), angles.sin())

    @torch.jit.export
    def new_cache(self, batch: int, slots: int) -> list[torch.Tensor]:
        """Zeros: `num_layers` × (key, value), each [batch, g, slots, d] of the model's type, where the model is."""
        cache: list[torch.Tensor] = []
        for _ in range(2 * self.num_layers):
            cache.append(self.norm.weight.new_zeros([batch, self.kv_heads, slots, self.head_dim]))
        return cache
