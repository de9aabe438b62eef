"""Shapes and variants of the dense decoder that every edge from a checkpoint is tried on, and transformers' word on each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

CONFIGS: dict[str, dict[str, Any]] = {
    "head_dim is not hidden / heads, tied, 2 kv heads": {},
    "head_dim equal to hidden / heads": {"head_dim": 16},
    "untied head": {"tie_word_embeddings": False},
    "one kv head": {"num_key_value_heads": 1},
    "as many kv heads as heads": {"num_key_value_heads": 4},
    "one layer": {"num_hidden_layers": 1},
    "five layers, odd sizes": {"num_hidden_layers": 5, "vocab_size": 331, "intermediate_size": 77, "hidden_size": 60},
    "biases": {"use_bias": True},
    "another theta and epsilon": {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "rms_norm_eps": 1e-3},
    "linear RoPE scaling": {"rope_parameters": {"rope_type": "linear", "rope_theta": 500000.0, "factor": 4.0}},
}
#: No token ends a generation.
ENDLESS: dict[str, Any] = {"eos_token_id": None, "bos_token_id": None, "pad_token_id": None}
STEPS = 64


def relative(want: Any, got: Any) -> float:
    """Largest difference over largest expected value."""
    want, got = np.asarray(want), np.asarray(got)
    return float(np.abs(want - got).max() / np.abs(want).max())


def greedy(step: Callable[[np.ndarray], np.ndarray], prompt: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Logits float32 [STEPS, V] and tokens of STEPS greedy steps after `prompt` int64 [1, S]."""
    got, said = [step(prompt)], []
    for _ in range(STEPS):
        said.append(int(got[-1][0].argmax()))
        got.append(step(np.array([[said[-1]]])))
    return np.concatenate(got[:-1]), said


def reference(model: Any, prompt: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """The same from transformers' own cached generation."""
    import torch

    out = model.generate(
        torch.tensor(prompt), max_new_tokens=STEPS, min_new_tokens=STEPS, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    return torch.cat(out.logits).float().numpy(), out.sequences[0, prompt.shape[1] :].tolist()
