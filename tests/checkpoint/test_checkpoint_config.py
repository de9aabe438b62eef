"""config.json: old and new spellings mean the same model; every impossible value is named; other architectures are refused."""

from __future__ import annotations

import json

import pytest
from raw_files import TINY

from ernie_cli.checkpoint.config import parse_config, read_config
from ernie_cli.errors import InputError, UnsupportedError


def without(*names, **changes):
    return {**{name: value for name, value in TINY.items() if name not in names}, **changes}


SAME = {
    "as published": without(),
    "architectures of 2025": without(
        architectures=["Ernie4_5_ForCausalLM"], auto_map={"AutoConfig": "configuration_ernie4_5.Ernie4_5_Config"}
    ),
    "rope_parameters": without("rope_theta", rope_parameters={"rope_type": "default", "rope_theta": 500000.0}),
    "rope_scaling is null": without(rope_scaling=None),
    "rope_theta whole": without(rope_theta=500000),
    "dtype": without("torch_dtype", dtype="bfloat16"),
    "torch.bfloat16": without(torch_dtype="torch.bfloat16"),
    "swiglu": without(hidden_act="swiglu"),
    "compression_ratio 1": without(compression_ratio=1.0),
    "defaults left out": without("rms_norm_eps", "rope_theta", "tie_word_embeddings", "use_bias"),
    "model_type of old Paddle configs": without(model_type="ernie", architectures=["Ernie4_5_ForCausalLM"]),
    "no model_type": without("model_type"),
}


@pytest.mark.parametrize("name", SAME)
def test_spellings_of_one_model(name):
    assert parse_config(SAME[name]) == parse_config(TINY)


VALUES = [
    (without(), "head_dim", 8),
    (without("head_dim"), "head_dim", 4),
    (without(head_dim=None), "head_dim", 4),
    (without("num_key_value_heads"), "num_kv_heads", 4),
    (without(compression_ratio=2.0), "compression_ratio", 2.0),
    (without(rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}), "compression_ratio", 4.0),
    (without(rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}), "rope_theta", 10000.0),
    (without(rope_scaling={"type": "linear", "factor": 2}), "compression_ratio", 2.0),
    (without(rope_scaling={"type": "linear", "factor": 2}), "rope_theta", 500000.0),
    (without(eos_token_id=2), "eos_ids", (2,)),
    (without(eos_token_id=[2, 7]), "eos_ids", (2, 7)),
    (without(eos_token_id=None), "eos_ids", ()),
    (without(pad_token_id=-1), "pad_id", None),
    (without(bos_token_id=0), "bos_id", 0),
    (without("torch_dtype"), "dtype", ""),
]


@pytest.mark.parametrize("raw, field, value", VALUES)
def test_values(raw, field, value):
    assert getattr(parse_config(raw), field) == value


WRONG = [
    ({"hidden_size": -16}, "hidden_size"),
    ({"hidden_size": 0}, "hidden_size"),
    ({"hidden_size": 16.0}, "hidden_size"),
    ({"hidden_size": True}, "hidden_size"),
    ({"hidden_size": "16"}, "hidden_size"),
    ({"hidden_size": 10**400}, "hidden_size"),
    ({"hidden_size": [16]}, "hidden_size"),
    ({"vocab_size": None}, "vocab_size"),
    ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
    ({"num_key_value_heads": 3}, "no multiple"),
    ({"head_dim": 7}, "odd"),
    ({"rms_norm_eps": 0}, "rms_norm_eps"),
    ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
    ({"rope_theta": float("inf")}, "rope_theta"),
    ({"rope_theta": 10**400}, "rope_theta"),
    ({"rope_parameters": [1]}, "rope_parameters"),
    ({"rope_parameters": {"rope_theta": "x"}}, "rope_theta"),
    ({"compression_ratio": -1}, "compression_ratio"),
    ({"tie_word_embeddings": 1}, "tie_word_embeddings"),
    ({"use_bias": "no"}, "use_bias"),
    ({"torch_dtype": 16}, "torch_dtype"),
    ({"eos_token_id": "2"}, "eos_token_id"),
    ({"eos_token_id": [2, None]}, "eos_token_id"),
    ({"eos_token_id": 48}, "outside the vocabulary"),
    ({"hidden_act": 5}, "hidden_act"),
]


@pytest.mark.parametrize("change, said", WRONG)
def test_impossible_values(change, said):
    with pytest.raises(InputError, match=said) as caught:
        parse_config({**TINY, **change})
    assert caught.value.hint and len(caught.value.message) < 500


def test_every_problem_is_named():
    with pytest.raises(InputError, match=r"hidden_size.*rope_theta.*head_dim"):
        parse_config({**TINY, "hidden_size": -1, "head_dim": 3, "rope_theta": 0})


OTHERS = [
    ({"model_type": "ernie4_5_moe"}, "dense only"),
    ({"model_type": "ernie4_5_vl_moe"}, "dense only"),
    ({"model_type": "ernie4_5_moe_vl"}, "dense only"),
    ({"architectures": ["Ernie4_5_MoeForCausalLM"]}, "dense only"),
    ({"moe_num_experts": 64}, "dense only"),
    ({"model_type": "llama"}, "llama"),
    ({"model_type": "ernie", "architectures": ["ErnieForMaskedLM"]}, "unknown model_type"),
    ({"model_type": None, "architectures": None}, "no model_type"),
    ({"model_type": ["ernie4_5"]}, "unknown model_type"),
    ({"model_type": "x" * 10**6}, "unknown model_type"),
    ({"hidden_act": "gelu"}, "gelu"),
    ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
    ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
    ({"quantization_config": {"bits": 4}}, "quantised"),
    ({"use_rmsnorm": False}, "RMSNorm"),
]


@pytest.mark.parametrize("change, said", OTHERS)
def test_other_architectures(change, said):
    with pytest.raises(UnsupportedError, match=said) as caught:
        parse_config({**TINY, **change})
    assert caught.value.hint and len(caught.value.message) < 500


FILES = {"absent": None, "empty": b"", "no JSON": b"{", "a list": b"[]", "deep": b"[" * 100_000, "not text": b"\xff\xfe\x00"}


@pytest.mark.parametrize("name", FILES)
def test_broken_file(name, tmp_path):
    if FILES[name] is not None:
        (tmp_path / "config.json").write_bytes(FILES[name])
    with pytest.raises(InputError, match=r"config\.json"):
        read_config(tmp_path)


def test_reads_what_transformers_writes(checkpoint):
    folder, model = checkpoint(rms_norm_eps=1e-6, rope_parameters={"rope_type": "default", "rope_theta": 1234.0})
    config = read_config(folder)
    theirs = json.loads((folder / "config.json").read_text())
    assert (config.rope_theta, config.rms_norm_eps, config.dtype) == (1234.0, 1e-6, "float32")
    assert config.head_dim == model.config.head_dim and config.raw == theirs
