"""Makes the checkpoint the benchmarks run on: ERNIE-4.5-0.3B's exact shapes, seeded random weights, bf16.

`python tests/bench/seeded.py OUT` writes 360,748,032 parameters in the transformers layout, without torch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np

CONFIG = {
    "architectures": ["Ernie4_5ForCausalLM"],
    "model_type": "ernie4_5",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 131072,
    "num_attention_heads": 16,
    "num_hidden_layers": 18,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_bias": False,
    "vocab_size": 103424,
}


def shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor, in file order."""
    hidden, inner, head = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["head_dim"]
    query, key = CONFIG["num_attention_heads"] * head, CONFIG["num_key_value_heads"] * head
    yield "model.embed_tokens.weight", (CONFIG["vocab_size"], hidden)
    for layer in range(CONFIG["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", (hidden,)
        yield prefix + "self_attn.q_proj.weight", (query, hidden)
        yield prefix + "self_attn.k_proj.weight", (key, hidden)
        yield prefix + "self_attn.v_proj.weight", (key, hidden)
        yield prefix + "self_attn.o_proj.weight", (hidden, query)
        yield prefix + "post_attention_layernorm.weight", (hidden,)
        yield prefix + "mlp.gate_proj.weight", (inner, hidden)
        yield prefix + "mlp.up_proj.weight", (inner, hidden)
        yield prefix + "mlp.down_proj.weight", (hidden, inner)
    yield "model.norm.weight", (hidden,)


def values(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Norms near 1; the rest normal with a standard deviation of 0.02, the family's initializer_range."""
    random = rng.standard_normal(shape, dtype=np.float32)
    return (1 + 0.1 * random if "norm" in name else 0.02 * random).astype(ml_dtypes.bfloat16)


def make(out: Path, seed: int = 0) -> Path:
    """Write the checkpoint into `out` (kept if it is already there) and return `out`."""
    if (out / "config.json").exists():
        return out
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    header, offset = {}, 0
    for name, shape in shapes():
        end = offset + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    head = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    head += b" " * (-len(head) % 8)
    with (out / "model.safetensors").open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for name, shape in shapes():
            file.write(values(name, shape, rng).tobytes())
    (out / "config.json").write_text(json.dumps(CONFIG, indent=2))
    return out


if __name__ == "__main__":
    total = sum(int(np.prod(shape)) for _, shape in shapes())
    print(f"{make(Path(sys.argv[1]))}: {total:,} parameters")
