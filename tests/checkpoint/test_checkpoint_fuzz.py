"""Seeded damage to every file of a checkpoint: it is refused with an error of ours, or it reads as something. Nothing else."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from raw_files import shard, write_checkpoint

from ernie_cli.checkpoint import Checkpoint
from ernie_cli.checkpoint.layout import layout_of
from ernie_cli.errors import InputError, UnsupportedError


def truncate(data, rng):
    return data[: rng.integers(0, len(data))]


def flip(data, rng):
    """One to four bytes of the first kilobyte: the header of a safetensors file, most of a JSON file."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        out[rng.integers(0, min(len(data), 1024))] = rng.integers(0, 256)
    return bytes(out)


def flip_digit(data, rng):
    """A digit becomes another: offsets, shapes and sizes that still parse."""
    places = [i for i, byte in enumerate(data[:4096]) if 48 <= byte <= 57]
    out = bytearray(data)
    out[places[rng.integers(0, len(places))]] = rng.integers(48, 58)
    return bytes(out)


def lengthen(data, rng):
    return data + bytes(int(rng.integers(1, 100)))


def cut_out(data, rng):
    start = rng.integers(0, len(data))
    return data[:start] + data[start + rng.integers(1, 64) :]


def repeat(data, rng):
    start, end = sorted(rng.integers(0, len(data), 2))
    return data[:end] + data[start:]


def header_length(data, rng):
    return struct.pack("<Q", int(rng.integers(0, 2**63)) >> int(rng.integers(0, 63))) + data[8:]


MUTATIONS = [truncate, flip, flip_digit, lengthen, cut_out, repeat, header_length]


def read_all(folder):
    """What any command does first with a checkpoint. True if it could be read."""
    try:
        layout_of(folder)
        checkpoint = Checkpoint.open(folder)
        for name in checkpoint.names():
            checkpoint.read(name)
    except (InputError, UnsupportedError) as err:
        assert err.message and len(err.message) < 20_000
        return False
    return True


@pytest.mark.parametrize("victim", ["model.safetensors", "config.json", "model-00002-of-00003.safetensors", "model.safetensors.index.json"])
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_damaged_files(mutation, victim, tmp_path):
    folder = write_checkpoint(tmp_path, "paddle")
    if victim not in ("model.safetensors", "config.json"):
        shard(folder)
    whole = (folder / victim).read_bytes()
    assert read_all(folder)
    refused = 0
    for seed in range(16):
        (folder / victim).write_bytes(mutation(whole, np.random.default_rng(seed)))
        refused += not read_all(folder)
    assert refused > 0 or mutation in (flip, flip_digit) or victim.endswith(".json")


def test_random_json_values_in_a_header(tmp_path):
    """Any JSON value in any place of a header."""
    folder = write_checkpoint(tmp_path)
    file = folder / "model.safetensors"
    content = file.read_bytes()
    (n_header,) = struct.unpack("<Q", content[:8])
    values = [None, True, -1, 0, 1, 2**64, 10**30, 1.5, 1e400, "", "F32", [], [1], [0, 0], [[]], {}, {"dtype": "F32"}, "\ud800"]
    rng = np.random.default_rng(0)
    for _ in range(200):
        header = json.loads(content[8 : 8 + n_header])
        name = list(header)[rng.integers(0, len(header))]
        value = values[rng.integers(0, len(values))]
        place = [None, "dtype", "shape", "data_offsets"][rng.integers(0, 4)]
        if place is None:
            header[name] = value
        elif rng.integers(0, 2) and isinstance(header[name][place], list):
            header[name][place][0] = value
        else:
            header[name][place] = value
        text = json.dumps(header).encode()
        file.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + n_header :])
        read_all(folder)
