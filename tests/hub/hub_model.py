"""A small repository for the test hub to hold, what a finished download of it looks like, and the words that tests share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

Run = Callable[..., tuple[int, str]]
SOURCES = ("hf", "modelscope", "aistudio")
SHARD = "model-00001-of-00002.safetensors"
M = Path("m")
CARD = b"---\nlicense: apache-2.0\n---\n# A model\n"


def model_files(seed: int = 0, shards: int = 2, rows: int = 4096) -> dict[str, bytes]:
    """A repository's files: two shards of about 128 kB each with their index, small files, and one in a folder."""
    rng = np.random.default_rng(seed)
    names = [f"model-{n + 1:05d}-of-{shards:05d}.safetensors" for n in range(shards)]
    tensors = {name: {f"model.layers.{n}.mlp.up_proj.weight": rng.random((rows, 8), np.float32)} for n, name in enumerate(names)}
    index = {"weight_map": {tensor: name for name, content in tensors.items() for tensor in content}}
    return {
        "README.md": CARD,
        "config.json": json.dumps({"model_type": "ernie4_5", "torch_dtype": "bfloat16"}).encode(),
        "empty.txt": b"",
        "model.safetensors.index.json": json.dumps(index).encode(),
        "extra/notes 1+1.txt": b"a name with a space",
        **{name: safetensors.numpy.save(content) for name, content in tensors.items()},
    }


def holds(folder: Path, files: dict[str, bytes]) -> bool:
    """Whether a finished folder holds exactly these files, its manifest, and no leftovers."""
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    manifest = json.loads(found.pop("ernie.json", b'{"files": {}}'))
    return found == files and manifest["files"].keys() == files.keys()


def blob(source: str, path: str = SHARD) -> str:
    """The server's name for the request that brings a file's bytes: Hugging Face keeps large files elsewhere."""
    return f"cdn:{path}" if source == "hf" else path


def manifest(folder: Path = M) -> dict[str, Any]:
    return json.loads((folder / "ernie.json").read_text())
