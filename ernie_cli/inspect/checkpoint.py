"""Describes an hf or paddle checkpoint from its headers and config. ERNIE or not, dense or not: facts first, judgement after."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ..checkpoint import Checkpoint
from ..checkpoint.safetensors_file import DTYPES, Entry
from ..checkpoint.shards import read_folder
from ..errors import UnsupportedError
from ..model import Model, read_json

_TOKENIZERS = ("tokenizer.json", "tokenizer.model")
_TEMPLATES = ("chat_template.jinja", "chat_template.json")
#: safetensors' names of types → this tool's
_PRECISIONS = {"F32": "fp32", "F16": "fp16", "BF16": "bf16", "F8_E4M3": "fp8_e4m3", "F8_E5M2": "fp8_e5m2", "F64": "fp64"}


def describe(model: Model) -> dict[str, Any]:
    """Parameters, bytes by dtype, KV cache, shards, tokenizer; `tensors` lists name, dtype, shape and bytes of each.

    Raises InputError where headers are damaged or contradict config.json.
    """
    try:
        entries = read_folder(model.path)
    except UnsupportedError as err:  # .pdparams: a pickle is never opened
        return {"notes": [err.message], "tensors": [], **_text_files(model)}
    skipped, notes = _judge(model)
    kept = [entry for name, entry in entries.items() if name not in skipped]
    sizes = Counter[str]()
    for entry in entries.values():
        sizes[precision(entry.dtype)] += entry.n_bytes
    largest = max(sizes, key=lambda name: sizes[name], default="")
    return {
        "architecture": str(model.config().get("model_type") or ""),
        "precision": model.precision or largest,
        "parameters": sum(math.prod(entry.shape) for entry in kept),
        "tensor_count": len(entries),
        "skipped": sorted(skipped),
        "shards": len({entry.file for entry in entries.values()}),
        "bytes_by_dtype": dict(sizes),
        "kv_bytes_per_token": kv_bytes_per_token(model.config(), kept),
        "config": _shape(model.config()),
        "notes": notes,
        "tensors": [_tensor(entry) for entry in entries.values()],
        **_text_files(model),
    }


def precision(dtype: str) -> str:
    """BF16 → bf16, I64 → int64."""
    return _PRECISIONS.get(dtype) or dtype.replace("U", "uint").replace("I", "int").lower()


def kv_bytes_per_token(config: Mapping[str, Any], entries: list[Entry]) -> int | None:
    """2 (keys and values) · layers · kv heads · head_dim · bytes, in the type that most weights have; None where config.json
    does not tell. ernie45.md §1 has the published models' figures."""
    shape = _shape(config)
    numbers = [shape.get(name) for name in ("layers", "kv_heads", "head_dim")]
    floats = Counter(entry.dtype for entry in entries if DTYPES[entry.dtype].itemsize >= 2)
    if any(type(number) is not int or number < 1 for number in numbers) or not floats:
        return None
    layers, kv_heads, head_dim = (int(number) for number in numbers if number is not None)
    return 2 * layers * kv_heads * head_dim * DTYPES[floats.most_common(1)[0][0]].itemsize


def _shape(config: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes people ask for, from the config of any transformer (vision-language ones keep them in text_config)."""
    inner = config.get("text_config")
    source: Mapping[str, Any] = inner if isinstance(inner, dict) else config
    heads, hidden = source.get("num_attention_heads"), source.get("hidden_size")
    head_dim = source.get("head_dim")
    if head_dim is None and isinstance(heads, int) and isinstance(hidden, int) and heads > 0:
        head_dim = hidden // heads
    named = {
        "layers": source.get("num_hidden_layers"),
        "hidden": hidden,
        "intermediate": source.get("intermediate_size"),
        "heads": heads,
        "kv_heads": source.get("num_key_value_heads", heads),
        "head_dim": head_dim,
        "vocab": source.get("vocab_size"),
        "context": source.get("max_position_embeddings"),
        "experts": source.get("moe_num_experts"),
        "tied": source.get("tie_word_embeddings"),
    }
    return {name: value for name, value in named.items() if value is not None}


def _judge(model: Model) -> tuple[frozenset[str], list[str]]:
    """(tensors that are not part of the model, remarks) in the eyes of the checkpoint room, which knows dense ERNIE 4.5."""
    if not (model.folder / "config.json").is_file():
        return frozenset(), ["no config.json beside it: nothing to compare the tensors with"]
    if model.path.is_file():
        return frozenset(), []
    try:
        return frozenset(Checkpoint.open(model.path).skipped), []
    except UnsupportedError as err:
        return frozenset(), [err.message]


def _tensor(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "dtype": precision(entry.dtype),
        "shape": list(entry.shape),
        "bytes": entry.n_bytes,
        "file": entry.file.name,
    }


def _text_files(model: Model) -> dict[str, Any]:
    here = {child.name for child in model.folder.iterdir()}
    settings = model.folder / "tokenizer_config.json"
    in_settings = settings.is_file() and bool(read_json(settings).get("chat_template"))
    return {
        "tokenizer": [name for name in _TOKENIZERS if name in here],
        "chat_template": in_settings or any(name in here for name in _TEMPLATES),
    }
