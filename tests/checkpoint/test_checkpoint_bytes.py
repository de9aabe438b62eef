"""The parts that move bytes: transposing, testing for NaN, hashing while writing, shards. Each against a plain way to do it."""

from __future__ import annotations

import hashlib
import itertools
import os

import ml_dtypes
import numpy as np
import pytest

from ernie_cli.checkpoint.finite import all_finite
from ernie_cli.checkpoint.stream import HashedFile
from ernie_cli.checkpoint.turn import Turner
from ernie_cli.checkpoint.writer import Spec, write_checkpoint

SIZES = [1, 7, 255, 256, 513, 600]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_turn_is_transposition(dtype):
    turner, rng = Turner(), np.random.default_rng(0)
    for rows, columns in itertools.product(SIZES, SIZES):
        whole = rng.integers(0, 256, (rows, columns + 3)).astype(dtype)
        out = np.zeros((columns + 2, rows), dtype)
        turner.turn(whole[:, 1 : columns + 1], out[:columns])
        assert (out[:columns] == whole[:, 1 : columns + 1].T).all() and not out[columns:].astype(bool).any()


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float32, np.float64])
def test_finite_agrees_with_numpy_on_every_bit_pattern(dtype):
    if np.dtype(dtype).itemsize == 2:
        values = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    else:
        patterns = np.random.default_rng(0).integers(0, 256, (1 << 12, np.dtype(dtype).itemsize), dtype=np.uint8)
        special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, np.finfo(dtype).max, np.finfo(dtype).min], dtype)
        values = np.concatenate([patterns.view(dtype).reshape(-1), special])
    with np.errstate(all="ignore"):
        expected = np.isfinite(values)
    assert [all_finite(values[i : i + 1]) for i in range(len(values))] == expected.tolist()
    assert all_finite(values[expected]) and not all_finite(values) and all_finite(values[:0])


def test_finite_of_integers():
    assert all_finite(np.array([255], np.uint8))


def test_hashed_file(tmp_path):
    rng = np.random.default_rng(0)
    with HashedFile(tmp_path / "x") as file:
        file.write(b"head")
        expected = b"head"
        for n in (0, 1, 1000, 1 << 20, 3, 1 << 16, 5, 6, 7, 8, 9, 10):
            buffer = file.buffer(n)
            buffer[...] = rng.integers(0, 256, n, dtype=np.uint8)
            expected += buffer.tobytes()
            file.write(buffer)
    assert (tmp_path / "x").read_bytes() == expected
    assert file.facts == {"size": len(expected), "sha256": hashlib.sha256(expected).hexdigest()}


def test_hashed_file_leaves_no_thread_after_an_error(tmp_path):
    import threading

    before = threading.active_count()
    with pytest.raises(RuntimeError), HashedFile(tmp_path / "x") as file:
        file.write(b"1")
        raise RuntimeError
    assert threading.active_count() == before and file.facts == {}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_a_full_disk_is_an_os_error(tmp_path):
    (tmp_path / "x").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space"), HashedFile(tmp_path / "x") as file:
        file.write(bytes(1 << 20))


ARRAYS = {
    "b.bf16": np.arange(300).astype(ml_dtypes.bfloat16).reshape(3, 100),
    "a.fp32": np.arange(10, dtype=np.float32),
    "a.fp16": np.arange(50, dtype=np.float16),
    "名.bf16": np.arange(40).astype(ml_dtypes.bfloat16),
}
NAMES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


def written(folder, limit):
    specs = [Spec(name, NAMES[array.dtype.name], array.shape) for name, array in ARRAYS.items()]

    def fill(name, file):
        file.write(ARRAYS[name].reshape(-1).view(np.uint8))

    return write_checkpoint(folder, specs, fill, kind="pt", max_shard_bytes=limit)


def test_the_library_reads_and_would_have_written_the_same_file(tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    facts = written(tmp_path, None)
    content = (tmp_path / "model.safetensors").read_bytes()
    assert facts == {"model.safetensors": {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}}
    theirs = load_file(tmp_path / "model.safetensors")
    for name, array in ARRAYS.items():
        assert theirs[name].view(torch.uint8).numpy().tobytes() == array.tobytes()
    save_file(theirs, tmp_path / "theirs", metadata={"format": "pt"})
    assert (tmp_path / "theirs").read_bytes() == content


@pytest.mark.parametrize("limit, files", [(10_000, 1), (700, 2), (1, 4)])
def test_shards(limit, files, tmp_path):
    import json

    from safetensors import safe_open

    facts = written(tmp_path, limit)
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) == files and facts.keys() == {path.name for path in tmp_path.iterdir()}
    held = {}
    for path in shards:
        with safe_open(path, "pt") as file:
            held |= dict.fromkeys(file.keys(), path.name)
    assert held.keys() == ARRAYS.keys()
    if files > 1:
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        assert index == {"metadata": {"total_size": sum(array.nbytes for array in ARRAYS.values())}, "weight_map": held}
        assert [path.name for path in shards] == [f"model-{n + 1:05d}-of-{files:05d}.safetensors" for n in range(files)]
