"""hf and paddle → torchscript through the command line, against transformers' Ernie4_5ForCausalLM."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from decoder_configs import CONFIGS, ENDLESS, greedy, reference, relative
from text_models import write_tokenizer

from ernie_cli import route
from ernie_cli.app import main
from ernie_cli.model import Model
from ernie_cli.runtime import torchscript_decoder
from ernie_cli.torchscript import decoder_weights

torch = pytest.importorskip("torch", reason="TorchScript needs torch")


def made(source: Path, out: Path, **options: object) -> Model:
    return route.convert(source, to="torchscript", out=out, options=route.Options(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", ["hf", "paddle"])
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_and_greedy_tokens(name, layout, checkpoint, tmp_path, record_property):
    folder, model = checkpoint(**CONFIGS[name], **ENDLESS)
    prompt = np.random.default_rng(1).integers(3, 300, (1, 19))
    want, tokens = reference(model, prompt)
    if layout == "paddle":
        folder = route.convert(folder, to="paddle", out=tmp_path / "paddle").path
    session = torchscript_decoder.open_decoder(made(folder, tmp_path / "ts", verify=False), "cpu", context=128)
    got, said = greedy(session.step, prompt)
    record_property("max_rel", relative(want, got))
    assert relative(want, got) <= 1e-4
    assert said == tokens


@pytest.mark.parametrize(("dtype", "most"), [("fp16", 3e-2), ("bf16", 1.5e-1)])
def test_sixteen_bit_modules_stay_near(dtype, most, checkpoint, tmp_path):
    folder, model = checkpoint(dtype="bfloat16")
    result = made(folder, tmp_path / "ts", dtype=dtype)
    tokens = np.random.default_rng(3).integers(3, 300, (1, 31))
    with torch.no_grad():
        want = model.float()(torch.tensor(tokens)).logits[:, -1].numpy()
    assert 0 < relative(want, torchscript_decoder.open_decoder(result, "cpu").step(tokens)) <= most


def test_the_manifest_tells_the_whole_story(checkpoint, tmp_path):
    folder, _ = checkpoint()
    (folder / "tokenizer.json").write_text("{}")
    (folder / "LICENSE").write_text("Apache-2.0")
    manifest = made(folder, tmp_path / "ts").manifest
    assert (manifest["format"], manifest["main"], manifest["precision"], manifest["architecture"]) == (
        "torchscript", "model.pt", "fp32", "ernie4_5",
    )  # fmt: skip
    assert set(manifest["files"]) >= {"model.pt", "config.json", "tokenizer.json", "LICENSE"}
    assert [spec["name"] for spec in manifest["inputs"][:3]] == ["input_ids", "positions", "cache.0.key"]
    assert len(manifest["inputs"]) == 2 + 2 * 3
    check = manifest["checks"][0]
    assert check["passed"] is True and check["cached decode"]["max_rel"] <= 1e-4
    assert (tmp_path / "ts" / "LICENSE").read_text() == "Apache-2.0"


def test_it_loads_without_us(checkpoint, tmp_path):
    """A process that knows torch and nothing else computes what transformers does: prefill, a ragged batch, decode."""
    folder, model = checkpoint()
    made(folder, tmp_path / "ts")
    script = """
import sys, torch
model, torch_only = torch.jit.load(sys.argv[1]), "ernie_cli" not in sys.modules
cache = model.new_cache(2, 16)
for row, ids in enumerate(([5, 6, 7, 8, 9], [10, 11])):
    model(torch.tensor([ids]), torch.tensor([0]), [tensor[row : row + 1] for tensor in cache])
logits = model(torch.tensor([[20], [21]]), torch.tensor([5, 2]), cache)
torch.save((torch_only, logits), sys.argv[2])
"""
    subprocess.run([sys.executable, "-I", "-c", script, str(tmp_path / "ts/model.pt"), str(tmp_path / "logits.pt")], check=True)
    torch_only, got = torch.load(tmp_path / "logits.pt")
    assert torch_only
    for row, ids in enumerate(([5, 6, 7, 8, 9, 20], [10, 11, 21])):
        with torch.no_grad():
            want = model(torch.tensor([ids])).logits[0, -1]
        assert relative(want.numpy(), got[row].numpy()) <= 1e-4


def test_ernie_run_says_what_onnx_says(checkpoint, tmp_path, capsys):
    folder, _ = checkpoint(vocab_size=600, num_hidden_layers=2, eos_token_id=2)
    write_tokenizer(folder)
    said = {}
    for to in ("onnx", "torchscript"):
        out = route.convert(folder, to=to, out=tmp_path / to, options=route.Options(verify=False)).path
        assert main(["run", str(out), "hello world", "--max-tokens", "12", "--ignore-eos", "--json"]) == 0
        said[to] = json.loads(capsys.readouterr().out)
    assert said["torchscript"]["text"] == said["onnx"]["text"]


def test_all_logits_are_those_of_every_position(checkpoint, tmp_path):
    folder, model = checkpoint()
    module = torch.jit.load(made(folder, tmp_path / "ts", all_logits=True).main_file())
    tokens = torch.tensor(np.random.default_rng(2).integers(3, 300, (1, 31)))
    with torch.no_grad():
        want = model(tokens).logits
        got = module(tokens, torch.tensor([0]), module.new_cache(1, 40))
    assert got.shape == want.shape
    assert relative(want.numpy(), got.numpy()) <= 1e-4


def test_tied_weights_are_stored_once(checkpoint, tmp_path):
    sizes = {}
    for tied in (True, False):
        folder, _ = checkpoint(str(tied), tie_word_embeddings=tied, vocab_size=5000)
        sizes[tied] = made(folder, tmp_path / f"ts-{tied}").main_file().stat().st_size
    assert 0.95 < (sizes[False] - sizes[True]) / (5000 * 64 * 4) < 1.05


def test_a_wrong_module_is_caught_and_nothing_is_left(checkpoint, tmp_path, capsys, monkeypatch):
    """Q and K swapped where their shapes agree: exit 6."""
    folder, _ = checkpoint(num_key_value_heads=4)
    names = {"q_proj": "k_proj", "k_proj": "q_proj"}
    right = decoder_weights.source
    monkeypatch.setattr(decoder_weights, "source", lambda name: re.sub(r"[qk]_proj", lambda found: names[found[0]], right(name)))
    assert main(["convert", str(folder), "--to", "torchscript", "-o", str(tmp_path / "ts")]) == 6
    assert "not the same model" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf"]
    assert main(["convert", str(folder), "--to", "torchscript", "-o", str(tmp_path / "ts"), "--no-verify"]) == 0
    assert json.loads((tmp_path / "ts" / "ernie.json").read_text())["checks"][0]["passed"] is None


def test_too_little_memory_is_known_before_work(checkpoint, tmp_path, capsys, monkeypatch):
    from ernie_cli import host

    folder, _ = checkpoint()
    monkeypatch.setattr(host, "memory", lambda: host.Memory(1000, 1000, None))
    assert main(["convert", str(folder), "--to", "torchscript", "-o", str(tmp_path / "ts")]) == 7
    assert "free" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf"]


@pytest.mark.parametrize("damage", ["cut", "pickle", "empty"])
def test_broken_modules_are_one_clear_error(damage, checkpoint, tmp_path):
    from ernie_cli.errors import InputError

    folder, _ = checkpoint()
    result = made(folder, tmp_path / "ts", verify=False)
    file = result.main_file()
    if damage == "cut":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif damage == "pickle":
        torch.save({"a": torch.zeros(1)}, file)
    else:
        file.write_bytes(b"")
    with pytest.raises(InputError, match=r"model\.pt: "):
        torchscript_decoder.open_decoder(result, "cpu")


def test_foreign_modules_are_refused(tmp_path):
    from ernie_cli.errors import UnsupportedError

    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "m.pt")
    with pytest.raises(UnsupportedError, match="not a decoder"):
        torchscript_decoder.open_decoder(Model.open(tmp_path / "m.pt"), "cpu")


def test_half_a_disk_leaves_nothing(checkpoint, tmp_path):
    folder, _ = checkpoint()
    shutil.rmtree(tmp_path / "ts", ignore_errors=True)
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])
    assert main(["convert", str(folder), "--to", "torchscript", "-o", str(tmp_path / "ts")]) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf"]
