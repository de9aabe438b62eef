"""Safetensors headers: what the library writes is read; every kind of damage is one InputError that names the file."""

from __future__ import annotations

import json

import numpy as np
import pytest
from raw_files import blob, entry

from ernie_cli.checkpoint.safetensors_file import DTYPES, read_entries
from ernie_cli.errors import InputError

A = entry("F32", [2, 3], 0, 24)
B = entry("BF16", [4], 24, 32)
DATA = bytes(32)
GOOD = {"a": A, "b": B}

DAMAGE = {
    "empty": (b"", "empty"),
    "seven bytes": (bytes(7), "not a safetensors file"),
    "length only": (blob(b""), "not valid JSON"),
    "header longer than the file": (blob(GOOD, DATA, length=10_000), "header length"),
    "header longer than any": (blob(GOOD, DATA, length=2**63), "header length"),
    "over 100 MB, as it says": (blob(GOOD, DATA, length=100_000_001), "header length"),
    "not a safetensors file": (b"PK\x03\x04" + bytes(200), "header length"),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n", "header length"),
    "not JSON": (blob(b'{"a": ', DATA), "JSON"),
    "not UTF-8": (blob(b'{"\xff": 1}', DATA), "JSON"),
    "a list": (blob(b"[]", DATA), "no JSON object"),
    "too deep": (blob(b"[" * 200_000, DATA), "JSON"),
    "a name twice": (blob(b'{"a":' + json.dumps(A).encode() + b',"a":' + json.dumps(A).encode() + b"}", DATA), "twice"),
    "more values than any model": (blob(b"[" + b"0," * 2_000_001 + b"0]", DATA), "more values"),
    "endless digits": (blob(b'{"a":{"dtype":"F32","shape":[' + b"9" * 100_000 + b'],"data_offsets":[0,4]}}', DATA), "digits"),
    "half a surrogate pair": (blob(b'{"\\ud800":' + json.dumps(A).encode() + b"}", DATA[:24]), "surrogates"),
    "entry is no object": (blob({"a": 5}, DATA), "a"),
    "entry without dtype": (blob({"a": {"shape": [1], "data_offsets": [0, 4]}}, DATA), "dtype"),
    "one offset": (blob({"a": {**A, "data_offsets": [0]}}, DATA), "`a`"),
    "unknown dtype": (blob({"a": {**A, "dtype": "F7"}}, DATA), "unknown dtype"),
    "dtype is a list": (blob({"a": {**A, "dtype": ["F32"]}}, DATA), "unknown dtype"),
    "shape is a number": (blob({"a": {**A, "shape": 6}}, DATA), "`a`"),
    "negative shape": (blob({"a": {**A, "shape": [-2, -3]}}, DATA), "whole numbers"),
    "fractional shape": (blob({"a": {**A, "shape": [2.0, 3]}}, DATA), "whole numbers"),
    "a thousand dimensions": (blob({"a": {**A, "shape": [1] * 1000}}, DATA), "whole numbers"),
    "shape larger than its range": (blob({"a": {**A, "shape": [2, 4]}, "b": B}, DATA), "takes 32 bytes"),
    "range backwards": (blob({"a": entry("F32", [0], 24, 0)}, DATA), "`a`"),
    "range past the end": (blob({"a": A, "b": entry("BF16", [40], 24, 104)}, DATA), "truncated"),
    "negative offset": (blob({"a": entry("F32", [2, 3], -24, 0)}, DATA), "whole numbers"),
    "overlap": (blob({"a": A, "b": entry("BF16", [4], 20, 28)}, DATA[:28]), "overlaps"),
    "the same range twice": (blob({"a": A, "b": A}, DATA[:24]), "overlaps"),
    "hole": (blob({"a": A, "b": entry("BF16", [4], 28, 36)}, bytes(36)), "hole"),
    "bytes after the last": (blob(GOOD, bytes(40)), "no tensor"),
    "truncated": (blob(GOOD, DATA[:30]), "truncated"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage(name, tmp_path):
    content, said = DAMAGE[name]
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        read_entries(file)
    assert str(file) in caught.value.message and caught.value.hint and len(caught.value.message) < 600


def test_reads_what_the_library_writes(tmp_path):
    from safetensors.numpy import save_file

    arrays = {"z": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.zeros((0, 4), np.float16), "scalar": np.array(7, np.int64)}
    save_file(arrays, tmp_path / "x.safetensors", metadata={"format": "np"})
    entries = read_entries(tmp_path / "x.safetensors")
    content = (tmp_path / "x.safetensors").read_bytes()
    assert entries.keys() == arrays.keys()
    for name, array in arrays.items():
        found = entries[name]
        assert (DTYPES[found.dtype], found.shape) == (array.dtype, array.shape)
        assert content[found.start : found.start + found.n_bytes] == array.tobytes()
