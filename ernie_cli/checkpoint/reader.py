"""A checkpoint in either layout, read as transformers tensors one at a time. Writes nothing, holds nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, UnsupportedError
from .config import Config, read_config
from .finite import all_finite
from .layout import SKIPPED, Layout, Part, Tensor, layout_of_names, tensors
from .safetensors_file import DTYPES, Entry
from .shards import read_folder

#: What weights of a dense checkpoint may be. Anything else is quantised, or no weight.
_FLOATS = ("BF16", "F16", "F32")
_MOST_PROBLEMS = 10


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint: every expected tensor is there, of the right shape, in files whose headers were checked.

    `entries` maps the names of the tensors *as stored* to where they lie, `table` is the model's list of tensors, and
    `skipped` names what the files hold beyond it.
    """

    folder: Path
    config: Config
    layout: Layout
    entries: dict[str, Entry]
    table: tuple[Tensor, ...]
    skipped: tuple[str, ...]

    @classmethod
    def open(cls, folder: str | Path) -> Checkpoint:
        """Read the headers and compare every name and shape with config.json.

        Raises InputError with everything that is wrong, UnsupportedError for other architectures and quantised weights.
        """
        folder = Path(folder)
        config = read_config(folder)
        entries = read_folder(folder)
        layout = layout_of_names(entries, str(folder))
        config = _with_head_dim(config, layout, entries)
        table = tuple(tensors(config))
        entries, skipped = _checked(folder, config, layout, entries, table)
        return cls(folder, config, layout, entries, table, skipped)

    def names(self) -> list[str]:
        """The transformers names of all tensors, in the order in which the model uses them."""
        return [part.name for tensor in self.table for part in tensor.parts]

    def info(self, name: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """(dtype, shape) of a tensor in the transformers layout. Raises KeyError for names not in `names()`."""
        tensor, part = self._find(name)
        stored = self.entries[tensor.paddle if self.layout == "paddle" else name]
        return DTYPES[stored.dtype], part.shape

    def read(self, name: str) -> np.ndarray:
        """A tensor in the transformers layout ([out, in]), of the dtype it is stored in.

        Where layouts agree it is a read-only map of the file, else a copy; either gives its memory back when dropped.
        Raises InputError where it holds NaN or infinite values, KeyError for names not in `names()`.
        """
        tensor, part = self._find(name)
        if self.layout == "hf":
            array = self.map(name)
        else:
            whole = self.map(tensor.paddle)
            rows = (whole.T if tensor.turned else whole)[part.first_row : part.first_row + part.shape[0]]
            array = np.ascontiguousarray(rows)
        if not all_finite(array):
            raise InputError(
                f"{self.folder}: tensor `{name}` holds NaN or infinite weights", "fetch the model again: `ernie download --force`"
            )
        return array

    def map(self, stored_name: str) -> np.ndarray:
        """A stored tensor as a read-only map of its bytes alone, so that dropping the array unmaps them."""
        entry = self.entries[stored_name]
        if entry.n_bytes == 0:
            return np.zeros(entry.shape, DTYPES[entry.dtype])
        raw = np.memmap(entry.file, mode="r", offset=entry.start, shape=(entry.n_bytes,))
        return np.asarray(raw).view(DTYPES[entry.dtype]).reshape(entry.shape)

    def _find(self, name: str) -> tuple[Tensor, Part]:
        for tensor in self.table:
            for part in tensor.parts:
                if part.name == name:
                    return tensor, part
        raise KeyError(name)


def _with_head_dim(config: Config, layout: Layout, entries: dict[str, Entry]) -> Config:
    """Where config.json is silent on head_dim, the tensors know (transformers would take 128, PaddleFormers hidden / heads)."""
    if config.raw.get("head_dim") is not None:
        return config
    side = 0 if layout == "paddle" else 1
    prefix = "ernie" if layout == "paddle" else "model"
    entry = entries.get(f"{prefix}.layers.0.self_attn.o_proj.weight")
    if entry is None or len(entry.shape) != 2 or entry.shape[side] % config.num_heads:
        return config
    return replace(config, head_dim=max(entry.shape[side] // config.num_heads, 1))


def _checked(
    folder: Path, config: Config, layout: Layout, entries: dict[str, Entry], table: tuple[Tensor, ...]
) -> tuple[dict[str, Entry], tuple[str, ...]]:
    """The entries the table asks for, and the names of those it does not. Raises with every problem in one message."""
    wanted = {name: shape for tensor in table for name, shape in tensor.shapes(layout).items()}
    problems = []
    kept = {}
    for name, shape in wanted.items():
        entry = entries.get(name)
        if entry is None:
            problems.append(f"tensor `{name}` is missing")
        elif entry.shape != shape:
            problems.append(f"tensor `{name}` is {list(entry.shape)}, config.json says {list(shape)}")
        else:
            kept[name] = _as_bf16(folder, entry, config)
    extra = sorted(entries.keys() - wanted.keys())
    skipped = tuple(name for name in extra if SKIPPED.search(name) or (name == "lm_head.weight" and config.tie_word_embeddings))
    problems += [f"tensor `{name}` belongs to no dense ERNIE 4.5" for name in extra if name not in skipped]
    if problems:
        more = f"; and {len(problems) - _MOST_PROBLEMS} more" if len(problems) > _MOST_PROBLEMS else ""
        said = "; ".join(problems[:_MOST_PROBLEMS])
        raise InputError(
            f"{folder}: config.json and tensors contradict each other: {said}{more}", "fetch the model again: `ernie download --force`"
        )
    return kept, skipped


def _as_bf16(folder: Path, entry: Entry, config: Config) -> Entry:
    """Paddle may mark bf16 as U16 (numpy has no bf16): take it as bf16 where the config says so."""
    if entry.dtype == "U16" and config.dtype == "bfloat16":
        return replace(entry, dtype="BF16")
    if entry.dtype not in _FLOATS:
        what = f"{folder}: tensor `{entry.name}` is {entry.dtype}; weights must be {', '.join(_FLOATS)}"
        raise UnsupportedError(
            what, 'U16 is taken as bfloat16 where config.json says "dtype": "bfloat16"; quantised models cannot be converted'
        )
    return entry
