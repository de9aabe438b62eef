"""A tiny seeded ERNIE 4.5 checkpoint written with numpy alone: where nobody compares with transformers, nobody waits for torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

VOCABULARY, HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 320, 64, 96, 2, 4, 2, 32


def write_checkpoint(folder: Path, *, seed: int = 0) -> Path:
    """`folder` with config.json and model.safetensors, float32, tied embeddings."""
    rng = np.random.default_rng(seed)
    wide, narrow = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    shapes = {"self_attn.q_proj": (wide, HIDDEN), "self_attn.k_proj": (narrow, HIDDEN), "self_attn.v_proj": (narrow, HIDDEN)}
    shapes |= {"self_attn.o_proj": (HIDDEN, wide), "mlp.gate_proj": (INNER, HIDDEN), "mlp.up_proj": (INNER, HIDDEN)}
    shapes |= {"mlp.down_proj": (HIDDEN, INNER)}
    named = {f"model.layers.{layer}.{name}.weight": shape for layer in range(LAYERS) for name, shape in shapes.items()}
    tensors = {name: rng.normal(0, 0.2, shape) for name, shape in {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), **named}.items()}
    norms = [f"model.layers.{layer}.{name}" for layer in range(LAYERS) for name in ("input_layernorm", "post_attention_layernorm")]
    tensors |= {f"{name}.weight": rng.normal(1, 0.1, HIDDEN) for name in (*norms, "model.norm")}
    config = {
        "model_type": "ernie4_5", "architectures": ["Ernie4_5ForCausalLM"], "vocab_size": VOCABULARY, "hidden_size": HIDDEN,
        "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM, "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "hidden_act": "silu",
        "tie_word_embeddings": True, "use_bias": False, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "torch_dtype": "float32",
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: value.astype(np.float32) for name, value in tensors.items()}, folder / "model.safetensors")
    return folder
