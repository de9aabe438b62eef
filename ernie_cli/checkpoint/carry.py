"""Carries over what stands beside the weights: tokenizer, chat template, generation config, licence, notes. Never weights."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..digest import facts_of
from ..staging import MANIFEST

#: Weights in any form (of this or another framework) and what belongs to them.
_WEIGHTS = (
    ".safetensors", ".safetensors.index.json", ".pdparams", ".pdparams.index.json", ".pdopt", ".pdiparams", ".pdmodel", ".bin",
    ".bin.index.json", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx", ".onnx.data", ".onnx_data", ".plan", ".engine",
)  # fmt: skip
#: What belongs to a model in every published repository of the family.
_KNOWN = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
#: Manifests, scales, a program's code: generous, and nothing beside weights.
PAPERS_BYTES = 1 << 20
#: The largest tokenizer.json in use is a sixth of it.
_LARGEST_BYTES = 200 << 20


def carry(source: Path, out: Path, *, rewritten: tuple[str, ...]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Copy every small file of `source` that is neither weights, hidden, ours, nor in `rewritten`.

    Where `source` is a file, its folder may hold anything: only the names in _KNOWN that stand beside it are taken.
    Returns (name → {size, sha256} of what was copied, the names of what was left behind).
    """
    copied: dict[str, dict[str, Any]] = {}
    left: list[str] = []
    for relative, path in _beside(source):
        if relative in rewritten:
            continue
        if not _takes(path, relative):
            left.append(relative)
            continue
        (out / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, out / relative)
        copied[relative] = facts_of(out / relative)
    return copied, left


def carried_bytes(source: Path) -> int:
    """Bytes of all that `carry` would copy."""
    return sum(path.stat().st_size for relative, path in _beside(source) if _takes(path, relative))


def _beside(source: Path) -> Iterator[tuple[str, Path]]:
    """(path within the folder, file) of what is neither weights, hidden nor ours."""
    known = _KNOWN if source.is_file() else None
    source = source if known is None else source.parent
    for folder, children, files in os.walk(source):
        if known is not None:
            children.clear()
            files = [name for name in files if name in known]
        children[:] = sorted(name for name in children if not name.startswith((".", "__")))
        for name in sorted(files):
            relative = Path(folder, name).relative_to(source).as_posix()
            if not name.startswith(".") and relative != MANIFEST and not relative.endswith(_WEIGHTS):
                yield relative, Path(folder, name)


def _takes(path: Path, name: str) -> bool:
    """Whether it is a file (links followed) of moderate size, under a name that every system and JSON can hold."""
    return os.fsencode(name) == name.encode(errors="replace") and path.is_file() and path.stat().st_size <= _LARGEST_BYTES
