"""What stands beside the weights: carried over byte for byte, configs spelled for their readers, weights and secrets left out."""

from __future__ import annotations

import os

import pytest
from raw_files import TINY

from ernie_cli.checkpoint.carry import carry
from ernie_cli.checkpoint.config import parse_config
from ernie_cli.checkpoint.spelling import config_json, tokenizer_config_json

CARRIED = [
    "tokenizer.model",
    "tokenizer.json",
    "chat_template.jinja",
    "LICENSE",
    "README.md",
    "templates/tool.jinja",
    "generation_config.json",
]
LEFT = [
    "model.safetensors",
    "model-00001-of-00002.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "model_state.pdparams",
]
LEFT += ["ernie.json", "config.json", ".gitattributes", ".cache/x", "__pycache__/y.pyc"]


def test_carry(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    for name in CARRIED + LEFT:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(name.encode())
    out.mkdir()
    copied, left = carry(source, out, rewritten=("config.json",))
    assert sorted(copied) == sorted(CARRIED) and left == []
    assert all((out / name).read_bytes() == name.encode() and copied[name]["size"] == len(name) for name in CARRIED)
    assert sum(path.is_file() for path in out.rglob("*")) == len(CARRIED)


def test_a_single_file_takes_along_only_what_belongs_to_it(tmp_path):
    source, out = tmp_path / "downloads", tmp_path / "out"
    (source / "holiday").mkdir(parents=True)
    out.mkdir()
    for name in ("model.safetensors", "tokenizer.json", "config.json", "taxes.pdf", "holiday/photo.jpg"):
        (source / name).write_text(name)
    copied, left = carry(source / "model.safetensors", out, rewritten=("config.json",))
    assert sorted(copied) == ["tokenizer.json"] == sorted(path.name for path in out.iterdir())
    assert left == []


def test_carry_names_what_it_cannot_take(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "broken link").symlink_to(tmp_path / "absent")
    with (source / "huge.dat").open("wb") as file:
        file.truncate(300 << 20)
    undecodable = os.fsdecode(b"\xff.txt")
    (source / undecodable).write_text("x")
    assert carry(source, tmp_path, rewritten=()) == ({}, sorted(["broken link", "huge.dat", undecodable]))


PADDLE = {
    **TINY,
    "architectures": ["Ernie4_5_ForCausalLM"],
    "compression_ratio": 1.0,
    "dtype": "bfloat16",
    "fuse_rope": True,
    "use_rmsnorm": True,
}
HF_OLD = {**TINY, "auto_map": {"AutoConfig": "x.Y"}, "transformers_version": "4.54.0", "rope_scaling": None, "house_style": 7}


@pytest.mark.parametrize("raw", [PADDLE, HF_OLD])
def test_config_for_transformers(raw):
    made = config_json(parse_config(raw), "bfloat16", "hf")
    assert (made["model_type"], made["architectures"], made["dtype"]) == ("ernie4_5", ["Ernie4_5ForCausalLM"], "bfloat16")
    assert made["rope_parameters"] == {"rope_type": "default", "rope_theta": 500000.0}
    assert not made.keys() & {"auto_map", "rope_theta", "torch_dtype", "compression_ratio", "fuse_rope", "use_rmsnorm", "rope_scaling"}
    assert made.get("house_style") == raw.get("house_style")


@pytest.mark.parametrize("raw", [PADDLE, HF_OLD])
def test_config_for_paddle(raw):
    made = config_json(parse_config(raw), "bfloat16", "paddle")
    assert (made["rope_theta"], made["compression_ratio"], made["dtype"]) == (500000.0, 1.0, "bfloat16")
    assert not made.keys() & {"auto_map", "rope_parameters", "torch_dtype", "transformers_version", "rope_scaling"}


@pytest.mark.parametrize("changes", [{}, {"compression_ratio": 4.0}, {"rope_theta": 10000.0}, {"head_dim": None}, {"use_bias": True}])
def test_the_model_stays_the_same_through_both_spellings(changes):
    config = parse_config({**TINY, **changes, "bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": 0})
    again = config
    for target in ("paddle", "hf", "paddle", "hf"):
        again = parse_config(config_json(again, "bfloat16", target))
        assert again == config


def test_tokenizer_class():
    raw = {"tokenizer_class": "Ernie4_5_Tokenizer", "auto_map": {"AutoTokenizer": ["x.Y", None]}, "bos_token": "<s>"}
    assert tokenizer_config_json(raw, "hf") == {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>"}
    assert tokenizer_config_json(raw, "paddle") == raw
    assert tokenizer_config_json({"tokenizer_class": "LlamaTokenizer"}, "hf") == {"tokenizer_class": "LlamaTokenizer"}
