"""Holds the tensors found in a checkpoint's files against those its config asks for. Reads headers, hardly any data."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from ..errors import InputError, UnsupportedError
from .config import Config
from .layout import Layout, Shape, tensors
from .quote import short
from .safetensors_file import Entry

#: What weights of a dense checkpoint may be. Anything else is quantised, or no weight.
_FLOATS = ("BF16", "F16", "F32")
#: Tensors that ERNIE 4.5 checkpoints may carry and the decoder does not use (ernie45.md §3).
_UNUSED = re.compile(
    r"(^|\.)(mtp_block|mtp_linear_proj|mtp_hidden_norm|mtp_emb_norm)\.|(^|\.)resampler_model|weight_1$|rotary_emb\.inv_freq$"
)
_LM_HEAD = "lm_head.weight"
_MOST_PROBLEMS = 12
_COMPARE_BYTES = 4 << 20


def match(folder: Path, config: Config, layout: Layout, found: dict[str, Entry]) -> tuple[Config, dict[str, Entry], tuple[str, ...]]:
    """(the config with what it left open filled in, the entries the model uses, the names of those it does not).

    Raises InputError that lists every tensor that is missing, of another shape, or unknown; UnsupportedError for quantised
    weights.
    """
    config = _filled_in(config, layout, found)
    wanted = {name: shape for tensor in tensors(config) for name, shape in tensor.shapes(layout).items()}
    extra = sorted(found.keys() - wanted.keys())
    tied = config.tie_word_embeddings and _LM_HEAD in extra
    skipped = tuple(name for name in extra if _UNUSED.search(name) or (tied and name == _LM_HEAD))
    problems = [_problem(name, shape, found.get(name)) for name, shape in wanted.items()]
    problems += [f"`{short(name)}` belongs to no dense ERNIE 4.5" for name in extra if name not in skipped]
    _raise_all(folder, [problem for problem in problems if problem])
    entries = {name: _as_bf16(folder, found[name], config) for name in wanted}
    if tied:
        _check_tie(folder, next(iter(entries.values())), found[_LM_HEAD])
    return config, entries, skipped


def _filled_in(config: Config, layout: Layout, found: dict[str, Entry]) -> Config:
    """What config.json leaves open and readers default in different ways, decided by the tensors.

    head_dim: transformers takes 128, PaddleFormers hidden / heads. tie_word_embeddings: true and false.
    """
    if config.raw.get("tie_word_embeddings") is None and layout == "paddle":
        config = replace(config, tie_word_embeddings=_LM_HEAD not in found)
    name, axis = ("ernie.layers.0.self_attn.o_proj.weight", 0) if layout == "paddle" else ("model.layers.0.self_attn.o_proj.weight", 1)
    shape: Shape = found[name].shape if name in found else ()
    if config.raw.get("head_dim") is None and len(shape) == 2 and shape[axis] and shape[axis] % config.num_heads == 0:
        config = replace(config, head_dim=shape[axis] // config.num_heads)
    return config


def _problem(name: str, shape: Shape, entry: Entry | None) -> str:
    if entry is None:
        return f"`{name}` is missing"
    return "" if entry.shape == shape else f"`{name}` is {short(list(entry.shape))}, config.json says {list(shape)}"


def _raise_all(folder: Path, problems: list[str]) -> None:
    if problems:
        more = f"; and {len(problems) - _MOST_PROBLEMS} more" if len(problems) > _MOST_PROBLEMS else ""
        said = "; ".join(problems[:_MOST_PROBLEMS]) + more
        raise InputError(f"{folder}: tensors and config.json do not belong together: {said}", "fetch both again: `ernie download --force`")


def _as_bf16(folder: Path, entry: Entry, config: Config) -> Entry:
    """Paddle may mark bf16 as U16 (numpy has no bf16): take it as bf16 where the config says so."""
    if entry.dtype == "U16" and config.dtype == "bfloat16":
        return replace(entry, dtype="BF16")
    if entry.dtype not in _FLOATS:
        what = f"{folder}: tensor `{short(entry.name)}` is {entry.dtype}, not one of {', '.join(_FLOATS)}: quantised?"
        raise UnsupportedError(what, 'U16 is read as bfloat16 where config.json says "dtype": "bfloat16"')
    return entry


def _check_tie(folder: Path, embedding: Entry, head: Entry) -> None:
    """A tied model's own lm_head is a copy of the embedding, or the config is wrong about the tie."""
    if head.shape != embedding.shape or not _same_bytes(embedding, head):
        what = f"{folder}: config.json says tie_word_embeddings, but `{_LM_HEAD}` differs from `{embedding.name}`"
        raise InputError(what, 'if the head is meant, write "tie_word_embeddings": false into config.json')


def _same_bytes(a: Entry, b: Entry) -> bool:
    if a.n_bytes != b.n_bytes:
        return False
    with a.file.open("rb") as left, b.file.open("rb") as right:
        left.seek(a.start)
        right.seek(b.start)
        todo = a.n_bytes
        while todo:
            size = min(todo, _COMPARE_BYTES)
            if left.read(size) != right.read(size):
                return False
            todo -= size
    return True
