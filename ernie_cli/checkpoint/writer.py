"""Writes a checkpoint as safetensors: the header first, then one tensor after another, in one file or in shards.

Knows neither layouts nor where the bytes come from; holds no tensor.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..digest import facts_of
from ..staging import write_file
from .safetensors_file import DTYPES
from .shards import INDEX, SINGLE
from .stream import HashedFile

_WIDTH_ORDER = {name: rank for rank, name in enumerate(DTYPES)}


@dataclass(frozen=True)
class Spec:
    """A tensor to be written: `dtype` is a key of DTYPES."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        """Bytes of data."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


Fill = Callable[[str, HashedFile], None]
"""fill(name, file) writes exactly the bytes of one tensor."""


def write_checkpoint(
    folder: Path, specs: Sequence[Spec], fill: Fill, *, kind: str, max_shard_bytes: int | None
) -> dict[str, dict[str, Any]]:
    """Write every tensor into `folder`, and an index where there are several files. Returns name → {size, sha256}.

    kind: "pt" or "np", what readers expect under `format` in the header. max_shard_bytes: None means one file.
    """
    ordered = sorted(specs, key=lambda spec: (-_WIDTH_ORDER[spec.dtype], spec.name))  # as the safetensors library orders them
    shards = _split(ordered, max_shard_bytes)
    names = [SINGLE] if len(shards) == 1 else [f"model-{n + 1:05d}-of-{len(shards):05d}.safetensors" for n in range(len(shards))]
    facts = {name: _write_shard(folder / name, shard, fill, kind) for name, shard in zip(names, shards, strict=True)}
    if len(shards) > 1:
        facts[INDEX] = _write_index(folder, names, shards)
    return facts


def header(specs: Sequence[Spec], kind: str) -> bytes:
    """The bytes before the data: length, JSON, spaces up to a multiple of 8, exactly as the safetensors library writes them."""
    table: dict[str, Any] = {"__metadata__": {"format": kind}}
    position = 0
    for spec in specs:
        table[spec.name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [position, position + spec.n_bytes]}
        position += spec.n_bytes
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _split(specs: Sequence[Spec], max_bytes: int | None) -> list[list[Spec]]:
    shards: list[list[Spec]] = [[]]
    size = 0
    for spec in specs:
        if max_bytes is not None and shards[-1] and size + spec.n_bytes > max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(spec)
        size += spec.n_bytes
    return shards


def _write_shard(path: Path, specs: Sequence[Spec], fill: Fill, kind: str) -> dict[str, Any]:
    with HashedFile(path) as file:
        file.write(header(specs, kind))
        for spec in specs:
            fill(spec.name, file)
    return file.facts


def _write_index(folder: Path, names: Sequence[str], shards: Sequence[Sequence[Spec]]) -> dict[str, Any]:
    where = {spec.name: name for name, shard in zip(names, shards, strict=True) for spec in shard}
    total = sum(spec.n_bytes for shard in shards for spec in shard)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
    write_file(folder / INDEX, json.dumps(index, indent=2) + "\n")
    return facts_of(folder / INDEX)
