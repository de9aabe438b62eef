"""Tiny seeded checkpoints as transformers writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SMALL = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 256,
}


def make_checkpoint(folder: Path, *, seed: int = 0, dtype: str = "float32", shard: str = "5GB", **changes: Any) -> Any:
    """Save a seeded `Ernie4_5ForCausalLM` in `folder` and return the transformers model (eval mode)."""
    import torch
    from transformers import Ernie4_5Config, Ernie4_5ForCausalLM

    torch.manual_seed(seed)
    model = Ernie4_5ForCausalLM(Ernie4_5Config(**{**SMALL, **changes})).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # Away from their initial ones and near zeros, so that a forgotten norm, bias or scale shows.
            weight.copy_(1 + 0.2 * torch.randn_like(weight) if "norm" in name else 0.15 * torch.randn_like(weight))
    model = model.to(getattr(torch, dtype))
    model.save_pretrained(folder, max_shard_size=shard)
    return model
