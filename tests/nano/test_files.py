"""The shipped files: what they hold, how large they are, and that they agree with each other and with their seed."""

import json
import struct
import subprocess
import sys

import pytest

from ernie_cli import nano
from ernie_cli.nano import data
from ernie_cli.nano.train import GENERATION, MODEL


def header() -> dict[str, dict]:
    """Name → dtype and shape, from the safetensors header alone."""
    with (nano.path() / "model.safetensors").open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        tensors = json.loads(file.read(length))
    tensors.pop("__metadata__", None)
    return tensors


def parameters() -> int:
    total = 0
    for tensor in header().values():
        size = 1
        for n in tensor["shape"]:
            size *= n
        total += size
    return total


def read(name: str) -> dict:
    return json.loads((nano.path() / name).read_text(encoding="utf-8"))


def test_the_folder_holds_what_the_family_publishes():
    assert {file.name for file in nano.path().iterdir()} == {
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer.model",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
    }


def test_all_files_together_stay_below_4_mb():
    files = [*nano.path().iterdir(), *nano.path().parent.glob("*.json*")]
    assert sum(file.stat().st_size for file in files) <= 4_000_000


def test_every_tensor_is_bfloat16():
    assert {tensor["dtype"] for tensor in header().values()} == {"BF16"}


def test_parameters_are_between_one_and_two_million_and_as_stated():
    assert 1_000_000 <= parameters() <= 2_000_000
    assert parameters() == json.loads((nano.path().parent / "metrics.json").read_text(encoding="utf-8"))["parameters"]


def test_config_is_the_family_made_small():
    config = read("config.json")
    assert config == MODEL
    assert config["head_dim"] != config["hidden_size"] // config["num_attention_heads"]
    assert config["num_key_value_heads"] < config["num_attention_heads"]
    for inputs in config["hidden_size"], config["intermediate_size"], config["num_attention_heads"] * config["head_dim"]:
        assert inputs % 128 == 0, "block-wise INT4 would need padding"


def test_tensors_follow_from_the_config():
    config, tensors = read("config.json"), header()
    hidden, heads = config["hidden_size"], config["head_dim"] * config["num_attention_heads"]
    pairs = config["head_dim"] * config["num_key_value_heads"]
    assert tensors["model.embed_tokens.weight"]["shape"] == [config["vocab_size"], hidden]
    assert tensors["model.layers.0.self_attn.q_proj.weight"]["shape"] == [heads, hidden]
    assert tensors["model.layers.0.self_attn.k_proj.weight"]["shape"] == [pairs, hidden]
    assert len(tensors) == 2 + 9 * config["num_hidden_layers"]
    assert "lm_head.weight" not in tensors, "the embedding is tied"


def test_generation_stops_at_eos_and_at_sep():
    assert read("generation_config.json") == GENERATION
    tokens = read("tokenizer.json")["model"]["vocab"]
    assert GENERATION["eos_token_id"] == [tokens["</s>"], tokens["<|end_of_sentence|>"]]


def test_transformers_reads_the_config_as_written():
    transformers = pytest.importorskip("transformers")
    config = transformers.Ernie4_5Config.from_pretrained(nano.path())
    assert config.rope_parameters["rope_theta"] == 500000.0
    assert (config.head_dim, config.num_key_value_heads, config.tie_word_embeddings) == (64, 2, True)


def test_the_shipped_lines_are_what_the_seed_gives():
    assert nano.heldout() == data.held_out(0)
    assert nano.calibration() == data.calibration(0)


def test_importing_nano_loads_nothing_heavy():
    heavy = "{'torch', 'transformers', 'numpy', 'tokenizers', 'sentencepiece'}"
    code = f"import sys, ernie_cli.nano as n; n.path(), n.heldout(), n.calibration(); assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
