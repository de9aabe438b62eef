"""The exported graph against transformers' Ernie4_5ForCausalLM: logits in prefill and cached decode, and greedy tokens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ernie_cli import route
from ernie_cli.runtime import onnxruntime

torch = pytest.importorskip("torch", reason="the reference implementation needs torch")

CONFIGS = {
    "head_dim is not hidden / heads, tied, 2 kv heads": {},
    "head_dim equal to hidden / heads": {"head_dim": 16},
    "untied head": {"tie_word_embeddings": False},
    "one kv head": {"num_key_value_heads": 1},
    "as many kv heads as heads": {"num_key_value_heads": 4},
    "one layer": {"num_hidden_layers": 1},
    "five layers, odd sizes": {"num_hidden_layers": 5, "vocab_size": 331, "intermediate_size": 77, "hidden_size": 60},
    "biases": {"use_bias": True},
    "another theta and epsilon": {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "rms_norm_eps": 1e-3},
    "linear RoPE scaling": {"rope_parameters": {"rope_type": "linear", "rope_theta": 500000.0, "factor": 4.0}},
}
STEPS = 64


def _old_spelling(folder: Path) -> None:
    """config.json as it was published before transformers took the family in."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config["architectures"] = ["Ernie4_5_ForCausalLM"]
    config["torch_dtype"] = config.pop("dtype", "float32")
    config["auto_map"] = {"AutoConfig": "configuration_ernie4_5.Ernie4_5_Config"}
    file.write_text(json.dumps(config))


def _reference(model, prompt: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """transformers' own cached greedy generation: logits float32 [STEPS, V] and the tokens."""
    out = model.generate(
        torch.tensor(prompt), max_new_tokens=STEPS, min_new_tokens=STEPS, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    return torch.cat(out.logits).float().numpy(), out.sequences[0, prompt.shape[1] :].tolist()


def _relative(want: np.ndarray, got: np.ndarray) -> float:
    return float(np.abs(want - got).max() / np.abs(want).max())


@pytest.mark.parametrize("kv_cache", ["static", "growing"])
@pytest.mark.parametrize("spelling", ["new", "old"])
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_and_greedy_tokens(name, spelling, kv_cache, checkpoint, tmp_path, record_property):
    if spelling == "old" and "rope_parameters" in CONFIGS[name] and CONFIGS[name]["rope_parameters"]["rope_type"] != "default":
        return  # the old spelling had no such thing
    folder, model = checkpoint(**CONFIGS[name], eos_token_id=None, bos_token_id=None, pad_token_id=None)
    if spelling == "old":
        _old_spelling(folder)
    prompt = np.random.default_rng(1).integers(3, 300, (1, 19))
    want, tokens = _reference(model, prompt)
    made = route.convert(folder, to="onnx", out=tmp_path / "onnx", options=route.Options(kv_cache=kv_cache))
    session = onnxruntime.open(made, "cpu", context=128)
    got, said = [session.step(prompt)], []
    for _ in range(STEPS):
        said.append(int(got[-1][0].argmax()))
        got.append(session.step(np.array([[said[-1]]])))
    error = _relative(want, np.concatenate(got[:-1]))
    record_property("max_rel", error)
    assert error <= 1e-4
    assert said == tokens


@pytest.mark.parametrize("kv_cache", ["static", "growing"])
def test_all_logits_are_those_of_every_position(kv_cache, checkpoint, tmp_path):
    folder, model = checkpoint()
    tokens = np.random.default_rng(2).integers(3, 300, (1, 31))
    made = route.convert(folder, to="onnx", out=tmp_path / "onnx", options=route.Options(kv_cache=kv_cache, all_logits=True))
    session, _ = onnxruntime.create_session(made.main_file(), "cpu")
    feeds = {"input_ids": tokens, "positions": np.zeros(1, np.int64)}
    for value in session.get_inputs():
        slots = 0 if kv_cache == "growing" else 40
        feeds.setdefault(value.name, np.zeros((1, 2, slots, 32), np.float32))
    got = session.run(["logits"], {value.name: feeds[value.name] for value in session.get_inputs()})[0]
    with torch.no_grad():
        want = model(torch.tensor(tokens)).logits.numpy()
    assert got.shape == want.shape
    assert _relative(want, got) <= 1e-4


@pytest.mark.parametrize(("dtype", "most"), [("fp16", 3e-2), ("bf16", 1.5e-1)])
def test_sixteen_bit_graphs_stay_near(dtype, most, checkpoint, tmp_path):
    folder, model = checkpoint(dtype="bfloat16")
    made = route.convert(folder, to="onnx", out=tmp_path / "onnx", options=route.Options(dtype=dtype))
    tokens = np.random.default_rng(3).integers(3, 300, (1, 31))
    with torch.no_grad():
        want = model.float()(torch.tensor(tokens)).logits[:, -1].numpy()
    got = onnxruntime.open(made, "cpu").step(tokens)
    assert 0 < _relative(want, got) <= most


def test_a_float32_graph_of_bfloat16_weights_is_exact(checkpoint, tmp_path):
    from transformers import Ernie4_5ForCausalLM

    folder, _ = checkpoint(dtype="bfloat16")
    model = Ernie4_5ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    made = route.convert(folder, to="onnx", out=tmp_path / "onnx")
    tokens = np.random.default_rng(4).integers(3, 300, (1, 31))
    with torch.no_grad():
        want = model(torch.tensor(tokens)).logits[:, -1].numpy()
    assert _relative(want, onnxruntime.open(made, "cpu").step(tokens)) <= 1e-4


def test_rows_of_a_growing_batch_go_together(checkpoint, tmp_path):
    """The graph itself takes several rows of one length; our own session feeds it one at a time."""
    folder, model = checkpoint()
    made = route.convert(folder, to="onnx", out=tmp_path / "onnx", options=route.Options(kv_cache="growing"))
    session = onnxruntime.create_session(made.main_file())[0]
    tokens = np.random.default_rng(7).integers(3, 300, (3, 12))
    caches = {value.name: np.zeros((3, value.shape[1], 0, value.shape[3]), np.float32) for value in session.get_inputs()[1:]}
    for begin, stop in ((0, 7), (7, 12)):
        got = session.run(None, {"input_ids": tokens[:, begin:stop], **caches})
        names = [value.name.replace("present.", "past.") for value in session.get_outputs()]
        caches = {name: value for name, value in zip(names, got, strict=True) if name != "logits"}
    with torch.no_grad():
        want = model(torch.tensor(tokens)).logits[:, -1].numpy()
    assert _relative(want, got[0]) <= 1e-4


def test_rows_of_a_static_batch_stand_at_their_own_positions(checkpoint, tmp_path):
    folder, model = checkpoint()
    made = route.convert(folder, to="onnx", out=tmp_path / "onnx")
    rng = np.random.default_rng(5)
    prompts = [rng.integers(3, 300, (1, length)) for length in (5, 17, 11)]
    session = onnxruntime.open(made, "cpu", batch=3, context=64)
    for row, prompt in enumerate(prompts):
        session.step(prompt, rows=[row])
    following = rng.integers(3, 300, (3, 1))
    got = session.step(following)
    for row, prompt in enumerate(prompts):
        whole = np.concatenate([prompt, following[row : row + 1]], axis=1)
        with torch.no_grad():
            want = model(torch.tensor(whole)).logits[0, -1].numpy()
        assert _relative(want, got[row]) <= 1e-4


@pytest.mark.parametrize("kv_cache", ["static", "growing"])
def test_prompts_longer_than_a_chunk_and_caches_that_grow(kv_cache, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(onnxruntime, "PREFILL_CHUNK", 48)
    folder, model = checkpoint(max_position_embeddings=1024)
    made = route.convert(folder, to="onnx", out=tmp_path / "onnx", options=route.Options(kv_cache=kv_cache))
    tokens = np.random.default_rng(6).integers(3, 300, (1, 600))  # over twice the slots a static cache starts with
    with torch.no_grad():
        want = model(torch.tensor(tokens)).logits[:, -1].numpy()
    assert _relative(want, onnxruntime.open(made, "cpu").step(tokens)) <= 1e-4
