"""hf and paddle → pdmodel through the command line: Paddle's own runtime computes what transformers' Ernie4_5ForCausalLM does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from decoder_configs import CONFIGS, ENDLESS, greedy, reference, relative
from text_models import write_tokenizer

from ernie_cli import route
from ernie_cli.app import main
from ernie_cli.checkpoint import bands
from ernie_cli.errors import UnsupportedError
from ernie_cli.model import Model
from ernie_cli.pdmodel import params, pir
from ernie_cli.runtime import paddle_decoder

torch = pytest.importorskip("torch", reason="the reference implementation needs torch")


def made(source: Path, out: Path, **options: object) -> Model:
    return route.convert(source, to="pdmodel", out=out, options=route.Options(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_and_greedy_tokens(name, checkpoint, tmp_path, record_property):
    """Layouts by turns: which one is read is the checkpoint room's matter, and its tests'."""
    folder, model = checkpoint(**CONFIGS[name], **ENDLESS)
    prompt = np.random.default_rng(1).integers(3, 300, (1, 19))
    want, tokens = reference(model, prompt)
    if list(CONFIGS).index(name) % 2:
        folder = route.convert(folder, to="paddle", out=tmp_path / "paddle").path
    session = paddle_decoder.open_decoder(made(folder, tmp_path / "pd", verify=False), "cpu", context=128)
    got, said = greedy(session.step, prompt)
    session.close()
    record_property("max_rel", relative(want, got))
    assert relative(want, got) <= 1e-4
    assert said == tokens


@pytest.mark.parametrize(("dtype", "most", "stored"), [("fp16", 3e-2, "float16"), ("bf16", 1.5e-1, "bfloat16")])
def test_sixteen_bit_programs_stay_near(dtype, most, stored, checkpoint, tmp_path):
    folder, model = checkpoint(dtype="float32")
    result = made(folder, tmp_path / "pd", dtype=dtype)
    program = pir.read(result.main_file())
    assert {spec.dtype for spec in program.parameters} == {spec.dtype for spec in program.inputs[1:]} == {stored}
    assert program.outputs[0].dtype == "float32"
    tokens = np.random.default_rng(3).integers(3, 300, (1, 31))
    with torch.no_grad():
        want = model(torch.tensor(tokens)).logits[:, -1].numpy()
    session = paddle_decoder.open_decoder(result, "cpu")
    assert 0 < relative(want, session.step(tokens)) <= most
    session.close()


@pytest.mark.parametrize("changes", [{}, {"use_bias": True, "tie_word_embeddings": False}])
def test_the_parameters_are_the_published_ones_in_paddle_s_own_file_format(changes, checkpoint, tmp_path):
    """A process with Paddle and without us finds every tensor of the -Paddle checkpoint in it, bit for bit, and runs the program."""
    from safetensors.numpy import load_file

    folder, model = checkpoint(**changes)
    result = made(folder, tmp_path / "pd")
    route.convert(folder, to="paddle", out=tmp_path / "paddle")
    script = """
import sys, numpy, paddle
layer = paddle.jit.load(sys.argv[1])
numpy.savez(sys.argv[2], **{tensor.name.removesuffix("_0"): tensor.numpy() for tensor in layer.parameters()})
layer.eval()
empty = [paddle.zeros([1, 2, 0, 32]) for _ in range(6)]
first = layer(paddle.to_tensor([[5, 6, 7]]), *empty)
second = layer(paddle.to_tensor([[8]]), *first[1:])
numpy.savez(sys.argv[3], first=first[0].numpy(), second=second[0].numpy())
assert "ernie_cli" not in sys.modules
"""
    files = [str(result.path / "model"), str(tmp_path / "w.npz"), str(tmp_path / "l.npz")]
    subprocess.run([sys.executable, "-I", "-c", script, *files], check=True, capture_output=True)
    want, found = load_file(tmp_path / "paddle" / "model.safetensors"), np.load(tmp_path / "w.npz")
    assert set(found) == set(want)
    assert all(np.array_equal(found[name], want[name]) for name in want)
    logits = np.load(tmp_path / "l.npz")
    with torch.no_grad():
        expected = model(torch.tensor([[5, 6, 7, 8]])).logits[0]
    assert relative(expected[2:], np.concatenate([logits["first"], logits["second"]])) <= 1e-4


def test_the_layers_train(checkpoint, tmp_path):
    """The same code runs eagerly in Paddle with the weights set by name, and every parameter gets a gradient."""
    folder, model = checkpoint()
    route.convert(folder, to="paddle", out=tmp_path / "paddle")
    script = """
import sys, numpy, paddle
from safetensors.numpy import load_file
from ernie_cli.checkpoint.config import read_config
from ernie_cli.pdmodel.decoder import Decoder
layer = Decoder(read_config(sys.argv[1]), all_logits=True)
assert not any(layer.set_state_dict(load_file(sys.argv[1] + "/model.safetensors")))
logits = layer(paddle.to_tensor([[5, 6, 7, 8]]), [paddle.zeros([1, 2, 0, 32]) for _ in range(6)])[0]
paddle.nn.functional.cross_entropy(logits[:, :-1], paddle.to_tensor([[6, 7, 8]])).backward()
assert all(float(weight.grad.abs().sum()) > 0 for weight in layer.parameters())
numpy.save(sys.argv[2], logits.detach().numpy())
"""
    command = [sys.executable, "-c", script, str(tmp_path / "paddle"), str(tmp_path / "l.npy")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    with torch.no_grad():
        assert relative(model(torch.tensor([[5, 6, 7, 8]])).logits, np.load(tmp_path / "l.npy")) <= 1e-4


def test_the_manifest_tells_the_whole_story(checkpoint, tmp_path):
    folder, _ = checkpoint()
    (folder / "tokenizer.json").write_text("{}")
    (folder / "LICENSE").write_text("Apache-2.0")
    manifest = made(folder, tmp_path / "pd").manifest
    assert (manifest["format"], manifest["main"], manifest["precision"], manifest["architecture"]) == (
        "pdmodel", "model.json", "fp32", "ernie4_5",
    )  # fmt: skip
    assert set(manifest["files"]) >= {"model.json", "model.pdiparams", "config.json", "tokenizer.json", "LICENSE"}
    assert [spec["name"] for spec in manifest["inputs"][:3]] == ["input_ids", "past.0.key", "past.0.value"]
    assert [spec["name"] for spec in manifest["outputs"][:3]] == ["logits", "present.0.key", "present.0.value"]
    check = manifest["checks"][0]
    assert check["passed"] is True and check["cached decode"]["max_rel"] <= 1e-4


def test_ernie_run_says_what_onnx_says(checkpoint, tmp_path, capsys):
    folder, _ = checkpoint(vocab_size=600, num_hidden_layers=2, eos_token_id=2)
    write_tokenizer(folder)
    said = {}
    for to in ("onnx", "pdmodel"):
        out = route.convert(folder, to=to, out=tmp_path / to, options=route.Options(verify=False)).path
        assert main(["run", str(out), "hello world", "--max-tokens", "12", "--ignore-eos", "--json"]) == 0
        said[to] = json.loads(capsys.readouterr().out)
    assert said["pdmodel"]["text"] == said["onnx"]["text"]


def test_all_logits_are_those_of_every_position(checkpoint, tmp_path):
    from ernie_cli.runtime.graphs import open_graph

    folder, model = checkpoint()
    session = open_graph(made(folder, tmp_path / "pd", all_logits=True))
    tokens = np.random.default_rng(2).integers(3, 300, (2, 31))
    empty = {spec.name: np.zeros((2, 2, 0, 32), np.float32) for spec in session.inputs[1:]}
    got = session.run({"input_ids": tokens, **empty})
    session.close()
    with torch.no_grad():
        want = model(torch.tensor(tokens)).logits.numpy()
    assert got["logits"].shape == want.shape
    assert got["present.2.value"].shape == (2, 2, 31, 32)
    assert relative(want, got["logits"]) <= 1e-4


def test_a_wrong_program_is_caught_and_nothing_is_left(checkpoint, tmp_path, capsys, monkeypatch):
    """Q and K swapped where their shapes agree: exit 6."""
    right = bands.Bands._sources

    def swapped(self, tensor, part):
        found = right(self, tensor, part)
        return [found[1], found[0], *found[2:]] if "qkv_proj" in tensor.paddle and len(found) > 1 else found

    folder, _ = checkpoint(num_key_value_heads=4)
    monkeypatch.setattr(bands.Bands, "_sources", swapped)
    assert main(["convert", str(folder), "--to", "pdmodel", "-o", str(tmp_path / "pd")]) == 6
    assert "not the same model" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf"]
    assert main(["convert", str(folder), "--to", "pdmodel", "-o", str(tmp_path / "pd"), "--no-verify"]) == 0
    assert json.loads((tmp_path / "pd" / "ernie.json").read_text())["checks"][0]["passed"] is None


def test_broken_weights_are_one_clear_line(checkpoint, tmp_path):
    folder, _ = checkpoint()
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])
    assert main(["convert", str(folder), "--to", "pdmodel", "-o", str(tmp_path / "pd")]) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf"]


def test_parameters_need_little_memory(checkpoint, tmp_path):
    """Weights of 120 MB pass through a fraction of that."""
    import tracemalloc

    from ernie_cli.checkpoint import Checkpoint
    from ernie_cli.pdmodel.decoder_export import write_weights

    folder, _ = checkpoint(vocab_size=200_000, hidden_size=144, dtype="bfloat16")
    opened = Checkpoint.open(folder)
    tracemalloc.start()
    write_weights(opened, tmp_path / "model.pdiparams", "fp32")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    size = (tmp_path / "model.pdiparams").stat().st_size
    assert size > 110_000_000 and peak < size / 4
    assert len(params.read(tmp_path / "model.pdiparams", 100)) == len(opened.table)


def test_foreign_programs_are_refused(tmp_path):
    script = """
import sys, paddle
paddle.jit.save(paddle.nn.Linear(2, 2), sys.argv[1], input_spec=[paddle.static.InputSpec([None, 2])])
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "m")], check=True, capture_output=True)
    with pytest.raises(UnsupportedError, match="not a decoder"):
        paddle_decoder.open_decoder(Model(tmp_path, "pdmodel", {"main": "m.json"}), "cpu")
