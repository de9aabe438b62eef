"""Checkpoint: either layout reads as transformers' tensors; whatever contradicts the config is listed before any work."""

from __future__ import annotations

import gc
import json
import os

import ml_dtypes
import numpy as np
import pytest
from raw_files import TINY, hf_tensors, paddle_tensors, shard, write, write_checkpoint

from ernie_cli.checkpoint import Checkpoint
from ernie_cli.errors import InputError, UnsupportedError

BF16 = ml_dtypes.bfloat16


def same(checkpoint, expected):
    assert sorted(checkpoint.names()) == sorted(expected)
    for name, array in expected.items():
        read = checkpoint.read(name)
        assert checkpoint.info(name) == (array.dtype, array.shape) == (read.dtype, read.shape)
        assert read.flags.c_contiguous and read.tobytes() == array.tobytes(), name


@pytest.mark.parametrize("layout", ["hf", "paddle"])
@pytest.mark.parametrize(
    "changes", [{}, {"use_bias": True}, {"tie_word_embeddings": False}, {"num_key_value_heads": 1, "num_hidden_layers": 3}]
)
def test_both_layouts_read_the_same(layout, changes, tmp_path):
    folder = write_checkpoint(tmp_path / "m", layout, **changes)
    checkpoint = Checkpoint.open(folder)
    assert (checkpoint.layout, checkpoint.skipped) == (layout, ())
    same(checkpoint, hf_tensors({**TINY, **changes}))
    same(Checkpoint.open(shard(folder)), hf_tensors({**TINY, **changes}))


def test_reads_what_transformers_saves(checkpoint):
    folder, model = checkpoint(use_bias=True, tie_word_embeddings=False)
    same(Checkpoint.open(folder), {name: value.numpy() for name, value in model.state_dict().items()})


def test_a_single_file_can_be_named(tmp_path):
    folder = write_checkpoint(tmp_path)
    assert Checkpoint.open(folder / "model.safetensors").names() == Checkpoint.open(folder).names()


def test_unknown_names(tmp_path):
    with pytest.raises(KeyError):
        Checkpoint.open(write_checkpoint(tmp_path)).read("model.layers.9.norm")


def test_paddle_marks_bf16_as_u16(tmp_path):
    tensors = {name: array.view(np.uint16) for name, array in paddle_tensors(hf_tensors(TINY), TINY).items()}
    same(Checkpoint.open(write_checkpoint(tmp_path / "a", tensors=tensors)), hf_tensors(TINY))
    with pytest.raises(UnsupportedError, match="U16"):
        Checkpoint.open(write_checkpoint(tmp_path / "b", tensors=tensors, torch_dtype="float32"))


def test_quantised_weights(tmp_path):
    tensors = hf_tensors(TINY) | {"model.norm.weight": np.zeros(16, np.int8)}
    with pytest.raises(UnsupportedError, match=r"model\.norm\.weight.*I8"):
        Checkpoint.open(write_checkpoint(tmp_path, tensors=tensors))


@pytest.mark.parametrize("layout, key", [("hf", 8), ("paddle", 8)])
def test_head_dim_left_out_is_told_by_the_tensors(layout, key, tmp_path):
    assert Checkpoint.open(write_checkpoint(tmp_path, layout)).config.head_dim == key
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"head_dim": 8, ', ""))
    assert Checkpoint.open(tmp_path).config.head_dim == key


def without_tie(folder):
    raw = json.loads((folder / "config.json").read_text())
    raw.pop("tie_word_embeddings")
    (folder / "config.json").write_text(json.dumps(raw))
    return folder


def test_tie_left_out(tmp_path):
    """transformers ties by default, PaddleFormers does not."""
    assert Checkpoint.open(without_tie(write_checkpoint(tmp_path / "a", "paddle"))).config.tie_word_embeddings
    assert not Checkpoint.open(
        without_tie(write_checkpoint(tmp_path / "b", "paddle", tie_word_embeddings=False))
    ).config.tie_word_embeddings
    assert Checkpoint.open(without_tie(write_checkpoint(tmp_path / "c", "hf"))).config.tie_word_embeddings
    with pytest.raises(InputError, match="tie_word_embeddings"):
        Checkpoint.open(without_tie(write_checkpoint(tmp_path / "d", "hf", tie_word_embeddings=False)))


def test_a_tied_head_must_be_the_embedding(tmp_path):
    tensors = hf_tensors(TINY)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    checkpoint = Checkpoint.open(write_checkpoint(tmp_path, tensors=tensors))
    assert checkpoint.skipped == ("lm_head.weight",) and "lm_head.weight" not in checkpoint.names()
    tensors["lm_head.weight"] = tensors["lm_head.weight"] + BF16(1)
    with pytest.raises(InputError, match="tie_word_embeddings"):
        Checkpoint.open(write_checkpoint(tmp_path, tensors=tensors))


EXTRA = ["ernie.mtp_block.0.mlp.down_proj.weight", "ernie.mtp_linear_proj.0.weight", "ernie.mtp_hidden_norm.0.weight"]
EXTRA += ["ernie.mtp_emb_norm.0.weight", "ernie.resampler_model.spatial_linear.0.weight", "ernie.layers.0.mlp.gate.weight_1"]


def test_skipped_tensors_are_named(tmp_path):
    tensors = paddle_tensors(hf_tensors(TINY), TINY) | {name: np.zeros((2, 2), BF16) for name in EXTRA}
    checkpoint = Checkpoint.open(write_checkpoint(tmp_path, tensors=tensors))
    assert checkpoint.skipped == tuple(sorted(EXTRA))
    same(checkpoint, hf_tensors(TINY))


def test_everything_wrong_is_listed_at_once(tmp_path):
    tensors = hf_tensors(TINY)
    del tensors["model.norm.weight"]
    tensors["model.layers.0.mlp.up_proj.weight"] = np.zeros((3, 3), BF16)
    tensors["model.layers.7.surprise"] = np.zeros(1, BF16)
    with pytest.raises(InputError) as caught:
        Checkpoint.open(write_checkpoint(tmp_path, tensors=tensors))
    for said in ("`model.norm.weight` is missing", "[3, 3], config.json says [24, 16]", "`model.layers.7.surprise` belongs to no"):
        assert said in caught.value.message


@pytest.mark.parametrize(
    "change", [{"hidden_size": 32}, {"head_dim": 4}, {"num_hidden_layers": 3}, {"num_hidden_layers": 1}, {"vocab_size": 47}]
)
@pytest.mark.parametrize("layout", ["hf", "paddle"])
def test_config_contradicts_the_tensors(layout, change, tmp_path):
    tensors = hf_tensors(TINY) if layout == "hf" else paddle_tensors(hf_tensors(TINY), TINY)
    with pytest.raises(InputError, match="do not belong together") as caught:
        Checkpoint.open(write_checkpoint(tmp_path, tensors=tensors, **change))
    assert len(caught.value.message) < 2000


def test_a_config_that_asks_for_terabytes_costs_nothing(tmp_path):
    with pytest.raises(InputError, match="do not belong together"):
        Checkpoint.open(
            write_checkpoint(tmp_path, tensors=hf_tensors(TINY), vocab_size=1 << 30, hidden_size=1 << 30, num_hidden_layers=4096)
        )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [BF16, np.float16, np.float32])
@pytest.mark.parametrize("layout", ["hf", "paddle"])
def test_nan_and_infinity(layout, dtype, bad, tmp_path):
    tensors = hf_tensors(TINY, dtype=dtype)
    tensors["model.layers.1.mlp.up_proj.weight"][23, 15] = bad
    stored = tensors if layout == "hf" else paddle_tensors(tensors, TINY)
    checkpoint = Checkpoint.open(write_checkpoint(tmp_path, tensors=stored))
    checkpoint.read("model.layers.1.mlp.gate_proj.weight")
    with pytest.raises(InputError, match=r"model\.layers\.1\.mlp\.up_proj\.weight.*NaN"):
        checkpoint.read("model.layers.1.mlp.up_proj.weight")


def test_a_file_cut_after_it_was_opened(tmp_path):
    checkpoint = Checkpoint.open(write_checkpoint(tmp_path))
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="shorter"):
        for name in checkpoint.names():
            checkpoint.read(name)


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="needs Linux's list of maps")
def test_dropped_arrays_give_their_maps_back(tmp_path):
    checkpoint = Checkpoint.open(write_checkpoint(tmp_path))

    def maps():
        gc.collect()
        with open("/proc/self/maps") as file:
            return sum("model.safetensors" in line for line in file)

    held = [checkpoint.read(name) for name in checkpoint.names()[:5]]
    assert maps() >= 1
    del held
    assert maps() == 0


def test_unused_tensor_files_do_not_matter(tmp_path):
    """A folder with one index and one further safetensors file is read through the index."""
    folder = shard(write_checkpoint(tmp_path))
    write(folder / "adapter.safetensors", {"x": np.zeros(1, np.float32)})
    same(Checkpoint.open(folder), hf_tensors(TINY))
