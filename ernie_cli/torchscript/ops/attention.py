"""Attention (opset 23 and later) and RotaryEmbedding."""

import math

import torch
from torch import Tensor

from ..node import Node, Unmapped
from ..types import dtype_text
from . import Rule

#: What qk_matmul_output_mode gives: the scaled products, with the cap, with the masks, or the probabilities.
RAW, CAPPED, MASKED, PROBABILITIES = range(4)


def heads(x: Tensor, number: int) -> Tensor:
    """[B, S, heads * size] → [B, heads, S, size]; four axes stay as they are."""
    return x if x.dim() == 4 else x.view(x.size(0), x.size(1), number, -1).transpose(1, 2)


def repeated(x: Tensor, number: int) -> Tensor:
    """Each head of keys or values as often as queries share it."""
    return x if x.size(1) == number else x.repeat_interleave(number // x.size(1), 1)


def hidden_bias(shown: Tensor, like: Tensor) -> Tensor:
    """Where True: 0, elsewhere -inf, to be added to the scores."""
    return torch.zeros_like(shown, dtype=like.dtype).masked_fill(shown.logical_not(), -math.inf)


def attention_bias(
    q: Tensor, k: Tensor, mask: Tensor | None, past: int, lens: Tensor | None, causal: bool, left: int, right: int
) -> Tensor | None:
    """What is added to the scores [B, H, S, T]: the mask (shorter ones hide the keys beyond), the frontier of the causal mask and
    the window (each query's own position is `past` further on, or its distance from the end of the valid keys), the padding."""
    s, t = q.size(2), k.size(2)
    bias: Tensor | None = None
    if mask is not None:
        bias = hidden_bias(mask, q) if mask.dtype == torch.bool else mask.to(q.dtype)
        if t > mask.size(-1):
            bias = torch.constant_pad_nd(bias, [0, t - mask.size(-1)], -math.inf)
    keys = torch.arange(t, device=q.device)
    if causal or left >= 0 or right >= 0:
        rows = torch.arange(s, device=q.device).unsqueeze(1) + past
        if lens is not None:
            rows = rows + (lens.view(-1, 1, 1, 1) - s)
        shown = keys <= rows if causal else keys >= 0
        if left >= 0:
            shown = shown & (rows - keys <= left)
        if right >= 0:
            shown = shown & (keys - rows <= right)
        more = hidden_bias(shown, q)
        bias = more if bias is None else bias + more
    if lens is not None:
        more = hidden_bias(keys < lens.view(-1, 1, 1, 1), q)
        bias = more if bias is None else bias + more
    return bias


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    past_key: Tensor | None,
    past_value: Tensor | None,
    lens: Tensor | None,
    q_heads: int,
    kv_heads: int,
    scale: float | None,
    causal: bool,
    cap: float,
    softmax_type: int | None,
    left: int,
    right: int,
    output_mode: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(Y, present key, present value, what output_mode asks for). A query that may see no key gives zeros."""
    flat = q.dim() == 3
    q, k, v = heads(q, q_heads), heads(k, kv_heads), heads(v, kv_heads)
    past = 0
    if past_key is not None and past_value is not None:
        past = past_key.size(2)
        k, v = torch.cat([past_key, k], 2), torch.cat([past_value, v], 2)
    # Half on each side, so that float16 does not overflow, and rounded to the inputs' type as in ONNX's definition.
    root = torch.tensor(math.sqrt(scale if scale is not None else 1.0 / math.sqrt(q.size(3))), dtype=q.dtype)
    scores = torch.matmul(q * root, repeated(k, q.size(1)).transpose(2, 3) * root)
    shown = scores
    if cap > 0:
        scores = torch.tanh(scores / cap) * cap
    if output_mode == 1:
        shown = scores
    bias = attention_bias(q, k, mask, past, lens, causal, left, right)
    if bias is not None:
        scores = scores + bias
    if output_mode == 2:
        shown = scores
    if softmax_type is not None:
        scores = scores.to(softmax_type)
    probabilities = torch.softmax(scores, -1)
    if bias is not None:
        probabilities = probabilities.masked_fill(bias.amax(-1, keepdim=True) == -math.inf, 0.0)
    if output_mode == 3:
        shown = probabilities.to(q.dtype)
    y = torch.matmul(probabilities.to(q.dtype), repeated(v, q.size(1)))
    if flat:
        y = y.transpose(1, 2).flatten(2)
    return y, k, v, shown


def fused_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    past_key: Tensor | None,
    past_value: Tensor | None,
    q_heads: int,
    kv_heads: int,
    scale: float | None,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The common case by torch's own kernel: (Y, present key, present value)."""
    flat = q.dim() == 3
    q, k, v = heads(q, q_heads), heads(k, kv_heads), heads(v, kv_heads)
    past = 0
    if past_key is not None and past_value is not None:
        past = past_key.size(2)
        k, v = torch.cat([past_key, k], 2), torch.cat([past_value, v], 2)
    own = causal and mask is None and past == 0  # torch's own causal mask begins at the first key
    bias: Tensor | None = None
    if not own:
        bias = attention_bias(q, k, mask, past, None, causal, -1, -1)
    if bias is not None and bias.dim() == 3:
        bias = bias.unsqueeze(0)
    y = torch.ops.aten.scaled_dot_product_attention(q, repeated(k, q.size(1)), repeated(v, q.size(1)), bias, 0.0, own, scale=scale)
    if bias is not None:  # torch before 2.5 has NaN there
        y = y.masked_fill(bias.amax(-1, keepdim=True) == -math.inf, 0.0)
    return y.transpose(1, 2).flatten(2) if flat else y, k, v


def rotary(x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None, number: int, size: int, interleaved: bool) -> Tensor:
    """x [B, heads, S, head size] or [B, S, hidden]; the first `size` elements of each head (0: all) are turned."""
    turned = x.transpose(1, 2) if x.dim() == 4 else x.view(x.size(0), x.size(1), number, -1)
    rest = turned[..., size:] if size > 0 else turned[..., :0]
    turned = turned[..., :size] if size > 0 else turned
    if positions is not None:
        cos, sin = cos[positions], sin[positions]
    cos, sin = cos.unsqueeze(2), sin.unsqueeze(2)
    if interleaved:
        a, b = turned[..., 0::2], turned[..., 1::2]
        turned = torch.stack([cos * a - sin * b, sin * a + cos * b], -1).flatten(3)
    else:
        a, b = turned.chunk(2, -1)
        turned = torch.cat([cos * a - sin * b, sin * a + cos * b], -1)
    turned = torch.cat([turned, rest], -1)
    return turned.transpose(1, 2) if x.dim() == 4 else turned.flatten(2)


def _attention(node: Node) -> str:
    import onnx_ir as ir

    scale, q_heads = node.attr("scale"), node.attr("q_num_heads", 0)
    if node.rank(0) == 3 and not q_heads:
        raise Unmapped("three axes without q_num_heads")
    precision = node.attr("softmax_precision", 0)
    softmax_type = dtype_text(ir.DataType(precision).numpy().name) if precision else "None"
    mode = node.attr("qk_matmul_output_mode", RAW)
    left, right = node.attr("left_window_size", -1), node.attr("right_window_size", -1)
    causal, cap = bool(node.attr("is_causal", 0)), float(node.attr("softcap", 0.0))
    number = (q_heads, node.attr("kv_num_heads", 0), None if scale is None else float(scale))
    inputs = [node.x(i) for i in range(7)]
    # Half types round at each step of ONNX's definition, which the kernel does not.
    plain = node.dtype(0) == "float32" and precision in (0, 1) and not cap and not node.has(6) and max(left, right) < 0
    if plain and node.n_outputs < 4:
        text, made = node.call(fused_attention, *inputs[:6], *number, causal), 3
    else:
        text, made = node.call(attention, *inputs, *number, causal, cap, softmax_type, left, right, mode), 4
    if node.n_outputs == 1:
        return f"{text}[0]"
    return text if node.n_outputs == made else f"{text}[:{node.n_outputs}]"


def _rotary(node: Node) -> str:
    settings = (node.attr("num_heads", 0), node.attr("rotary_embedding_dim", 0), bool(node.attr("interleaved", 0)))
    return node.call(rotary, *(node.x(i) for i in range(4)), *settings)


RULES: dict[str, Rule] = {"Attention": _attention, "RotaryEmbedding": _rotary}
