"""config.json and tokenizer_config.json as the readers of each layout expect them. Changes names of things, never the model."""

from __future__ import annotations

from typing import Any

from .config import Config
from .layout import Layout

#: Spellings that only older or other readers know, and the announcement of tensors that are not carried over (mtp_…).
_OLD = (
    "auto_map", "model_name", "n_embd", "paddleformers_version", "paddlenlp_version", "rope_parameters", "rope_scaling", "rope_theta",
    "torch_dtype", "transformers_version", "_attn_implementation", "attn_implementation", "num_nextn_predict_layers",
)  # fmt: skip
#: Switches of Paddle's training kernels that say nothing about the model (from Baidu's own converter, ERNIE tools/paddle2torch).
_PADDLE_ONLY = (
    "add_tail_layers", "compression_ratio", "freq_allocation", "fuse_attention_ffn", "fuse_gate_detach_matmul", "fuse_linear", "fuse_ln",
    "fuse_rms_norm", "fuse_rope", "fuse_softmax_mask", "fuse_swiglu", "global_aux_loss", "max_sequence_length", "moe_aux_loss_lambda",
    "moe_group_orthogonal_loss", "moe_orthogonal_loss_lambda", "moe_z_loss_lambda", "tensor_parallel_output", "use_fast_ln",
    "use_flash_attention", "use_rmsnorm", "weight_share_add_bias",
)  # fmt: skip
#: Tokenizer classes that transformers does not have: "Tokenizer class … does not exist" is users' most repeated error.
_PADDLE_TOKENIZERS = ("Ernie4_5_Tokenizer", "Ernie4_5Tokenizer", "ErnieTokenizer", "ErnieBotTokenizer")


def config_json(config: Config, dtype: str, target: Layout) -> dict[str, Any]:
    """The config of the same model for a reader of `target`, sorted by key. `dtype`: what the weights are (bfloat16 …)."""
    dropped = (*_OLD, *(_PADDLE_ONLY if target == "hf" else ()))
    kept = {name: value for name, value in config.raw.items() if name not in dropped}
    common: dict[str, Any] = {
        "dtype": dtype,  # and not torch_dtype, by which FastDeploy tells the transformers layout
        "head_dim": config.head_dim,
        "hidden_act": config.hidden_act,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_positions,
        "model_type": config.model_type,
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "num_key_value_heads": config.num_kv_heads,
        "rms_norm_eps": config.rms_norm_eps,
        "tie_word_embeddings": config.tie_word_embeddings,
        "use_bias": config.use_bias,
        "vocab_size": config.vocab_size,
    }
    return dict(sorted({**kept, **common, **(_hf(config) if target == "hf" else _paddle(config))}.items()))


def _hf(config: Config) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.compression_ratio != 1:
        rope = {"rope_type": "linear", "factor": config.compression_ratio, "rope_theta": config.rope_theta}
    # transformers 5 is the first that reads rope_parameters.
    return {"architectures": ["Ernie4_5ForCausalLM"], "rope_parameters": rope, "transformers_version": "5.0.0"}


def _paddle(config: Config) -> dict[str, Any]:
    return {
        "architectures": ["Ernie4_5_ForCausalLM"],  # older FastDeploy and ERNIEKit know this spelling only, newer ones both
        "compression_ratio": config.compression_ratio,
        "rope_theta": config.rope_theta,
    }


def tokenizer_config_json(raw: dict[str, Any], target: Layout) -> dict[str, Any]:
    """tokenizer_config.json for a reader of `target`: transformers gets a tokenizer class that it has."""
    if target == "paddle" or raw.get("tokenizer_class") not in _PADDLE_TOKENIZERS:
        return raw
    return {**{name: value for name, value in raw.items() if name != "auto_map"}, "tokenizer_class": "LlamaTokenizer"}
