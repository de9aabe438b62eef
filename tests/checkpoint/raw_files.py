"""Safetensors files and checkpoints written by hand, right or wrong in any way a test wants. Uses nothing of the package."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "uint16": "U16", "int8": "I8"}
TINY = {
    "model_type": "ernie4_5",
    "architectures": ["Ernie4_5ForCausalLM"],
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "use_bias": False,
    "torch_dtype": "bfloat16",
}


def blob(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """The bytes of a file with this header (a dict, or raw bytes) and data; `length` lies about the header's."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def write(path: Path, tensors: dict[str, np.ndarray]) -> None:
    header, position = {}, 0
    for name, array in tensors.items():
        header[name] = entry(NAMES[array.dtype.name], list(array.shape), position, position + array.nbytes)
        position += array.nbytes
    with path.open("wb") as file:
        file.write(blob(header))
        for array in tensors.values():
            file.write(array.tobytes())


def hf_tensors(config: dict[str, Any], seed: int = 0, dtype: Any = ml_dtypes.bfloat16) -> dict[str, np.ndarray]:
    """Random tensors of the transformers layout, as ernie45.md §4 names and shapes them."""
    rng = np.random.default_rng(seed)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    query, key = (config[name] * config["head_dim"] for name in ("num_attention_heads", "num_key_value_heads"))
    linear = {
        "self_attn.q_proj": (query, hidden),
        "self_attn.k_proj": (key, hidden),
        "self_attn.v_proj": (key, hidden),
        "self_attn.o_proj": (hidden, query),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    for n in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{n}.{name}.weight": (hidden,) for name in ("input_layernorm", "post_attention_layernorm")}
        shapes |= {f"model.layers.{n}.{name}.weight": shape for name, shape in linear.items()}
        if config["use_bias"]:
            shapes |= {f"model.layers.{n}.{name}.bias": shape[:1] for name, shape in linear.items()}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    return {name: rng.standard_normal(shape, np.float32).astype(dtype) for name, shape in shapes.items()}


def paddle_tensors(hf: dict[str, np.ndarray], config: dict[str, Any]) -> dict[str, np.ndarray]:
    """The same weights in the PaddlePaddle layout, spelled out from ernie45.md §4 a second time."""
    made = {"ernie.embed_tokens.weight": hf["model.embed_tokens.weight"], "ernie.norm.weight": hf["model.norm.weight"]}
    for n in range(config["num_hidden_layers"]):
        old, new = f"model.layers.{n}.", f"ernie.layers.{n}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            made[f"{new}{name}.weight"] = hf[f"{old}{name}.weight"]
        for kind in ("weight", "bias") if config["use_bias"] else ("weight",):
            q, k, v = (hf[f"{old}self_attn.{x}_proj.{kind}"].T for x in "qkv")
            gate, up = (hf[f"{old}mlp.{x}_proj.{kind}"].T for x in ("gate", "up"))
            made[f"{new}self_attn.qkv_proj.{kind}"] = np.concatenate([q, k, v], axis=-1)
            made[f"{new}mlp.up_gate_proj.{kind}"] = np.concatenate([gate, up], axis=-1)
            made[f"{new}self_attn.o_proj.{kind}"] = np.ascontiguousarray(hf[f"{old}self_attn.o_proj.{kind}"].T)
            made[f"{new}mlp.down_proj.{kind}"] = np.ascontiguousarray(hf[f"{old}mlp.down_proj.{kind}"].T)
    if not config["tie_word_embeddings"]:
        made["lm_head.weight"] = np.ascontiguousarray(hf["lm_head.weight"].T)
    return made


def write_checkpoint(folder: Path, layout: str = "hf", *, tensors: dict[str, np.ndarray] | None = None, **changes: Any) -> Path:
    """A tiny checkpoint in `folder`. `changes` go into config.json and decide the tensors; `tensors` replaces the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**TINY, **changes}
    (folder / "config.json").write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
    if tensors is None:
        tensors = hf_tensors(config)
        tensors = paddle_tensors(tensors, config) if layout == "paddle" else tensors
    write(folder / "model.safetensors", tensors)
    return folder


def shard(folder: Path, parts: int = 3) -> Path:
    """Split `folder`/model.safetensors into shards with an index."""
    content = (folder / "model.safetensors").read_bytes()
    (n_header,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + n_header]), content[8 + n_header :]
    names = sorted(header)
    weight_map = {}
    for number in range(parts):
        file = f"model-{number + 1:05d}-of-{parts:05d}.safetensors"
        table, body = {}, b""
        for name in names[number::parts]:
            begin, end = header[name]["data_offsets"]
            table[name] = entry(header[name]["dtype"], header[name]["shape"], len(body), len(body) + end - begin)
            body += data[begin:end]
            weight_map[name] = file
        (folder / file).write_bytes(blob(table, body))
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder
