"""hf ↔ paddle through the command line: bit for bit both ways, readable by transformers, whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import forks
import ml_dtypes
import numpy as np
import pytest
from kills import Kills

from ernie_cli import app
from ernie_cli.checkpoint import Checkpoint

sys.path.insert(0, str(Path(__file__).parents[1] / "checkpoint"))
from raw_files import TINY, hf_tensors, paddle_tensors, shard, write_checkpoint

TEXT = {"tokenizer.model": b"\x0a\x07<unk>", "chat_template.jinja": b"{{ x }}", "LICENSE": b"Apache-2.0", "README.md": b"# m"}


def convert(source: Path, to: str, out: Path, *more: str) -> int:
    return app.main(["convert", str(source), "--to", to, "-o", str(out), "-q", *more])


def stored(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Every tensor as it lies in the files, read by the safetensors library."""
    import torch
    from safetensors import safe_open

    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                tensor = file.get_tensor(name)
                found[name] = (str(tensor.dtype), tuple(tensor.shape), tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return found


CONFIGS = {
    "tied": {},
    "untied": {"tie_word_embeddings": False},
    "biases": {"use_bias": True},
    "one kv head": {"num_key_value_heads": 1},
    "all kv heads": {"num_key_value_heads": 4},
    "head_dim equals hidden / heads": {"head_dim": 16},
    "odd sizes": {"num_hidden_layers": 5, "vocab_size": 331, "intermediate_size": 77, "hidden_size": 60},
}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", CONFIGS)
def test_there_and_back(name, dtype, checkpoint, tmp_path):
    """The transformers file comes back byte for byte, and transformers computes the same logits from it."""
    import torch
    from transformers import AutoModelForCausalLM

    source, _ = checkpoint(dtype=dtype, **CONFIGS[name])
    assert convert(source, "paddle", tmp_path / "paddle") == 0
    assert convert(tmp_path / "paddle", "hf", tmp_path / "back") == 0
    assert (tmp_path / "back/model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    model, again = (AutoModelForCausalLM.from_pretrained(folder, dtype="auto") for folder in (source, tmp_path / "back"))
    tokens = torch.arange(3, 20)[None]
    with torch.no_grad():
        assert torch.equal(model(tokens).logits, again(tokens).logits)
    told = {name: value for name, value in model.config.to_dict().items() if name not in ("_name_or_path", "transformers_version")}
    assert again.config.to_dict().items() >= told.items()


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("changes", [{}, {"use_bias": True, "tie_word_embeddings": False}])
def test_the_paddle_layout_is_the_published_one(changes, sharded, tmp_path):
    config = {**TINY, **changes}
    source = write_checkpoint(tmp_path / "hf", **changes)
    if sharded:
        shard(source)
    assert convert(source, "paddle", tmp_path / "paddle") == 0
    expected = {
        name: ("torch.bfloat16", array.shape, array.tobytes()) for name, array in paddle_tensors(hf_tensors(config), config).items()
    }
    assert stored(tmp_path / "paddle") == expected
    written = json.loads((tmp_path / "paddle/config.json").read_text())
    assert (written["rope_theta"], written["dtype"], written["head_dim"]) == (500000.0, "bfloat16", 8)


@pytest.mark.parametrize("limit_bytes", [None, 2000])
def test_paddle_there_and_back_in_shards(limit_bytes, tmp_path):
    limit = [] if limit_bytes is None else ["--max-shard-gb", str(limit_bytes / 1e9)]
    source = shard(write_checkpoint(tmp_path / "paddle", "paddle", tie_word_embeddings=False))
    assert convert(source, "hf", tmp_path / "hf", *limit) == 0
    assert convert(tmp_path / "hf", "paddle", tmp_path / "back", *limit) == 0
    assert stored(tmp_path / "back") == stored(source)
    for made in (tmp_path / "hf", tmp_path / "back"):
        files = sorted(path.name for path in made.glob("*.safetensors"))
        assert files == ["model.safetensors"] if limit_bytes is None else len(files) > 3
        assert (made / "model.safetensors.index.json").exists() == (limit_bytes is not None)


def test_u16_becomes_bf16(tmp_path):
    tensors = {name: array.view(np.uint16) for name, array in paddle_tensors(hf_tensors(TINY), TINY).items()}
    source = write_checkpoint(tmp_path / "paddle", tensors=tensors)
    assert convert(source, "hf", tmp_path / "hf") == 0
    expected = {name: ("torch.bfloat16", array.shape, array.tobytes()) for name, array in hf_tensors(TINY).items()}
    assert stored(tmp_path / "hf") == expected


def test_everything_beside_the_weights_comes_along(tmp_path):
    source = write_checkpoint(tmp_path / "paddle", "paddle", compression_ratio=1.0)
    for name, content in TEXT.items():
        (source / name).write_bytes(content)
    (source / "tokenizer_config.json").write_text('{"tokenizer_class": "Ernie4_5_Tokenizer", "bos_token": "<s>"}')
    assert convert(source, "hf", tmp_path / "hf") == 0
    assert {name: (tmp_path / "hf" / name).read_bytes() for name in TEXT} == TEXT
    assert json.loads((tmp_path / "hf/tokenizer_config.json").read_text())["tokenizer_class"] == "LlamaTokenizer"


def test_linear_rope_keeps_its_meaning(checkpoint, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    source, model = checkpoint(rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0})
    assert convert(source, "paddle", tmp_path / "paddle") == 0
    written = json.loads((tmp_path / "paddle/config.json").read_text())
    assert (written["compression_ratio"], written["rope_theta"]) == (4.0, 10000.0)
    assert convert(tmp_path / "paddle", "hf", tmp_path / "back") == 0
    tokens = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.equal(model(tokens).logits, AutoModelForCausalLM.from_pretrained(tmp_path / "back")(tokens).logits)


def test_manifest(tmp_path, capsys):
    extra = {"ernie.mtp_block.0.norm.weight": np.zeros(4, ml_dtypes.bfloat16)}
    source = write_checkpoint(tmp_path / "paddle", tensors=paddle_tensors(hf_tensors(TINY), TINY) | extra)
    assert convert(source, "hf", tmp_path / "hf") == 0
    assert "ernie.mtp_block.0.norm.weight" in capsys.readouterr().err
    manifest = json.loads((tmp_path / "hf/ernie.json").read_text())
    facts = ("format", "architecture", "precision", "skipped_tensors")
    assert [manifest[name] for name in facts] == ["hf", "ernie4_5", "bf16", list(extra)]
    assert [check["passed"] for check in manifest["checks"]] == [True]
    on_disk = {path.name: path.read_bytes() for path in (tmp_path / "hf").iterdir() if path.name != "ernie.json"}
    assert manifest["files"] == {name: {"size": len(c), "sha256": hashlib.sha256(c).hexdigest()} for name, c in on_disk.items()}


def test_the_check_sees_a_wrong_table(monkeypatch, tmp_path):
    """Up before gate, the commonest mistake: the samples tell, exit 6, no output."""
    from ernie_cli.checkpoint import bands

    class Swapped(bands.Bands):
        def _sources(self, tensor, part):
            found = super()._sources(tensor, part)
            return found[::-1] if "up_gate" in tensor.paddle else found

    monkeypatch.setattr("ernie_cli.checkpoint.recast.Bands", Swapped)
    source = write_checkpoint(tmp_path / "hf")
    assert convert(source, "paddle", tmp_path / "out") == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf"]
    assert convert(source, "paddle", tmp_path / "out", "--no-verify") == 0
    assert json.loads((tmp_path / "out/ernie.json").read_text())["checks"][0]["passed"] is None


def nan_weights(folder):
    tensors = hf_tensors(TINY)
    tensors["model.layers.1.mlp.down_proj.weight"][3, 3] = np.nan
    write_checkpoint(folder, tensors=tensors)


def mixed_types(folder):
    tensors = hf_tensors(TINY)
    tensors["model.layers.1.self_attn.k_proj.weight"] = tensors["model.layers.1.self_attn.k_proj.weight"].astype(np.float32)
    write_checkpoint(folder, tensors=tensors)


BAD = {
    "truncated": (3, lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-1]), "truncated"),
    "empty": (3, lambda f: (f / "model.safetensors").write_bytes(b""), "empty"),
    "NaN weights": (3, nan_weights, "down_proj"),
    "joined tensors of two types": (3, mixed_types, "k_proj"),
    "missing shard": (3, lambda f: (shard(f) / "model-00003-of-00003.safetensors").unlink(), "model-00003-of-00003"),
    "config of another size": (3, lambda f: write_checkpoint(f, tensors=hf_tensors(TINY), hidden_size=32), "config.json says"),
    "no config": (3, lambda f: (f / "config.json").unlink(), "no config.json"),
    "another architecture": (4, lambda f: write_checkpoint(f, model_type="ernie4_5_moe"), "dense only"),
    "a pickle": (4, lambda f: (f / "model.safetensors").rename(f / "model_state.pdparams"), "pickle"),
    "a manifest that lies": (3, lambda f: (f / "ernie.json").write_text('{"format": "paddle"}'), "already"),
    "an empty folder": (3, lambda f: [path.unlink() for path in f.iterdir()], "empty"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name, tmp_path, capsys):
    code, damage, said = BAD[name]
    source = write_checkpoint(tmp_path / "source")
    damage(source)
    target = "hf" if name in ("a pickle", "a manifest that lies") else "paddle"
    assert convert(source, target, tmp_path / "out") == code
    error, hint, *rest = capsys.readouterr().err.strip().split("\n")
    assert error.startswith("error: ") and said in error and hint.startswith("hint: ") and rest == []
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_the_disk_fills_up_amid_the_work(tmp_path, monkeypatch, capsys):
    """A disk of 20 kB cannot be had without being root: the file itself says what such a disk would."""
    from ernie_cli.checkpoint.stream import HashedFile

    def write(self, chunk, whole=HashedFile.write):
        if self._written > 20_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole(self, chunk)

    monkeypatch.setattr(HashedFile, "write", write)
    assert convert(write_checkpoint(tmp_path / "source", vocab_size=2000), "paddle", tmp_path / "out") == 7
    assert "No space left" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


# --- a checkpoint large enough to be interrupted and weighed: 52 MB ---

LARGE = {**TINY, "vocab_size": 8192, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 5, "head_dim": 128}


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large") / "hf"
    write_checkpoint(folder, **LARGE)
    return folder


def ernie(*argv: str) -> subprocess.Popen[bytes]:
    code = "from ernie_cli.app import entry; entry()"
    return subprocess.Popen([sys.executable, "-c", code, *argv], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def test_kill_at_any_moment(tmp_path):
    """kill -9, 20 times at seeded moments of the work: `out` is absent or whole, and the same command then succeeds."""
    source = write_checkpoint(tmp_path / "hf", **{**LARGE, "num_hidden_layers": 2, "vocab_size": 2048})
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    argv = ["convert", str(source), "--to", "paddle", "-o", str(out)]
    start = time.monotonic()
    assert app.main(argv) == 0
    kills = Kills(time.monotonic() - start)
    whole = {path.name: path.read_bytes() for path in out.glob("*.safetensors")}
    while kills.landed < 20:
        force = ["--force"] if kills.tries % 2 else []  # every second time over a finished result
        if not force:
            shutil.rmtree(out, ignore_errors=True)
        kills.strike(forks.ernie(*argv, *force), begun=partial.exists)
        assert not (partial / "ernie.json").exists() or (partial / "model.safetensors").stat().st_size == len(whole["model.safetensors"])
        if out.exists():
            assert {path.name: path.read_bytes() for path in out.glob("*.safetensors")} == whole
            Checkpoint.open(out)
        assert app.main([*argv, *force]) == 0
        assert {path.name: path.read_bytes() for path in out.glob("*.safetensors")} == whole and not partial.exists()


def test_memory_is_bounded_by_a_tensor_not_by_the_model(large, tmp_path):
    """Each hop in a process of its own: its peak above that of a tiny model's is a fraction of the weights'."""
    tiny = write_checkpoint(tmp_path / "tiny")

    def peak_mb(source: Path, to: str, out: Path) -> float:
        process = ernie("convert", str(source), "--to", to, "-o", str(out))
        _, status, usage = os.wait4(process.pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        return usage.ru_maxrss / 1000

    weights_mb = (large / "model.safetensors").stat().st_size / 1e6
    for to, source, small in (("paddle", large, tiny), ("hf", tmp_path / "large-paddle", tmp_path / "tiny-paddle")):
        base = peak_mb(small, to, tmp_path / f"tiny-{to}")
        assert peak_mb(source, to, tmp_path / f"large-{to}") - base < 0.6 * weights_mb
