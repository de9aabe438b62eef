"""Files that are not what their names say, and programs' odd surroundings: one line, its exit code, no hang, nothing left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from text_models import write_model

from ernie_cli.app import main
from ernie_cli.model import fingerprint, is_up_to_date

FIFO, ZERO, LOOP = os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to(path.name)


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> int:
    capsys.readouterr()
    code = main([str(word) for word in words])
    lines = capsys.readouterr().err.strip().splitlines()
    assert [line.split(":")[0] for line in lines] == ["error", "hint"], lines
    return code


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "chat")


@pytest.mark.parametrize("put", [FIFO, ZERO, LOOP], ids=["fifo", "device", "loop"])
@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json", "model.onnx"])
def test_what_is_no_file_is_never_read(put: Callable[[Path], None], name: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "m").mkdir()
    put(tmp_path / "m" / name)
    for words in (["inspect", "m"], ["run", "m", "hi"], ["inspect", f"m/{name}"]):
        assert refused(capsys, words[0], tmp_path / words[1], *words[2:]) == 3


@pytest.mark.parametrize(
    ("manifest", "code"),
    [
        ('{"format": ["onnx"]}', 3),
        ('{"format": "onnx", "main": "nothing.onnx"}', 3),
        ('{"format": "onnx", "main": "../../x"}', 3),
        ('{"format": "nonsense"}', 4),
        ("[]", 3),
        ("[" * 100_000, 3),
    ],
)
def test_a_manifest_that_lies(manifest: str, code: int, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "ernie.json").write_text(manifest)
    assert refused(capsys, "run", tmp_path, "hi") == code
    assert refused(capsys, "convert", tmp_path, "--to", "hf", "-o", tmp_path.parent / "out") in (3, 4)


@pytest.mark.parametrize("files", [[1], {"model.onnx": 3}, {"a\0b": {"size": 1}}])
def test_nonsense_is_not_up_to_date(files: Any, tmp_path: Path) -> None:
    (tmp_path / "ernie.json").write_text(json.dumps({"key": "k", "files": files}))
    assert not is_up_to_date(tmp_path, "k")


def test_provenance_that_never_ends(checkpoint: Any, tmp_path: Path, capsys: Any) -> None:
    folder, _ = checkpoint()
    for place in ("/dev/zero", "/"):
        (folder / "ernie.json").write_text(json.dumps({"format": "hf", "made_from": {"path": place, "fingerprint": "x"}}))
        assert main(["inspect", str(folder), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["made_from"][0]["now"] != "same"


def test_numbers_that_json_does_not_have_come_out_as_null(checkpoint: Any, capsys: Any) -> None:
    folder, _ = checkpoint()
    (folder / "ernie.json").write_text('{"format": "hf", "checks": [{"name": "x", "passed": true, "loss": NaN, "more": [1e999]}]}')
    assert main(["inspect", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["checks"][0] == {"name": "x", "passed": True, "loss": None, "more": [None]}


def test_the_config_beside_a_single_file_counts(checkpoint: Any) -> None:
    folder, _ = checkpoint()
    before = fingerprint(folder / "model.safetensors")
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert fingerprint(folder / "model.safetensors") != before


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "more than 5 s"),
        ("{% set n = namespace(x='12345678') %}{% for i in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}", "MemoryError"),
        ("{{ 9**(9**9) }}", "too many digits"),
    ],
)
def test_a_template_without_bounds(template: str, said: str, chat: Path, tmp_path: Path, capsys: Any) -> None:
    from ernie_cli.errors import InputError
    from ernie_cli.generation.chat import ChatTemplate
    from ernie_cli.generation.tokenizer import Tokenizer

    tokenizer = Tokenizer.open(chat)
    assert tokenizer is not None
    with pytest.raises(InputError, match=said):
        ChatTemplate(template, tokenizer, {}, "here").render([])


@pytest.mark.parametrize("normalizer", ["AAAA", "////////"])
def test_a_tokenizer_that_makes_its_library_panic(normalizer: str, tmp_path: Path, capsys: Any) -> None:
    write_model(tmp_path / "m")
    tree = json.loads((tmp_path / "m" / "tokenizer.json").read_text())
    tree["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": normalizer}
    (tmp_path / "m" / "tokenizer.json").write_text(json.dumps(tree))
    assert refused(capsys, "run", tmp_path / "m", "hi", "--backend", "fake") == 3


@pytest.mark.parametrize("words", [["--prompt-ids", "/dev/zero"], ["--batch", "/dev/zero"]])
def test_prompts_without_end(words: list[str], chat: Path, capsys: Any) -> None:
    assert refused(capsys, "run", chat, *words, "--backend", "fake") == 3


def test_what_can_never_fit_is_not_encoded(chat: Path, capsys: Any) -> None:
    assert refused(capsys, "run", chat, "x" * 2_000_000, "--backend", "fake") == 2


@pytest.mark.parametrize("out", ["/dev/null", "{prompts}"])
def test_replies_replace_neither_devices_nor_prompts(out: str, chat: Path, tmp_path: Path, capsys: Any) -> None:
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"prompt": "hello"}')
    assert refused(capsys, "run", chat, "--batch", prompts, "-o", out.format(prompts=prompts), "--backend", "fake") == 2
    assert Path("/dev/null").is_char_device() and prompts.read_text() == '{"prompt": "hello"}'


@pytest.mark.parametrize("value", ["nan", "inf", "0", "-1"])
def test_shards_of_no_size(value: str, checkpoint: Any, capsys: Any) -> None:
    folder, _ = checkpoint()
    assert refused(capsys, "convert", folder, "--to", "paddle", "--max-shard-gb", value) == 2


def _graph(file: Path, *, cache: list[Any], width: int | str = 512, extra: bool = False, floats: int = TensorProto.FLOAT) -> None:
    def info(name: str, kind: int, shape: list[Any]) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    inputs = [info("input_ids", TensorProto.INT64, ["b", "s"]), info("past.0.key", floats, cache)]
    inputs += [info("attention_mask", TensorProto.INT64, ["b", "s"])] if extra else []
    outputs = [info("logits", TensorProto.FLOAT, ["b", width]), info("present.0.key", floats, cache)]
    nodes = [helper.make_node("Cast", ["input_ids"], ["logits"], to=1), helper.make_node("Identity", ["past.0.key"], ["present.0.key"])]
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs), opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, file)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"cache": ["b", 2]}, 4),
        ({"cache": ["b", "g", "p", 4]}, 4),
        ({"cache": ["b", 1 << 40, "p", 1 << 20]}, 4),
        ({"cache": ["b", 2, "p", 4], "width": "v"}, 4),
        ({"cache": ["b", 2, "p", 4], "extra": True}, 4),
        ({"cache": ["b", 2, "p", 4], "floats": TensorProto.INT64}, 4),
        ({"cache": ["b", 2, "p", 4]}, 3),  # the right names, but what it computes has another shape than it says
    ],
)
def test_other_peoples_decoders(changes: dict[str, Any], code: int, tmp_path: Path, capsys: Any) -> None:
    _graph(tmp_path / "model.onnx", **changes)
    (tmp_path / "ids.json").write_text("[1, 2, 3]")
    assert refused(capsys, "run", tmp_path, "--prompt-ids", tmp_path / "ids.json") == code


@pytest.mark.parametrize("value", ["abc", -5, [4], 1e999])
def test_a_graph_whose_config_is_nonsense(value: Any, tmp_path: Path, capsys: Any) -> None:
    _graph(tmp_path / "model.onnx", cache=["b", 2, "p", 4])
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": value}))
    assert refused(capsys, "run", tmp_path, "hi") == 3


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams(closed: str, checkpoint: Any, tmp_path: Path) -> None:
    folder, _ = checkpoint()
    script = f'"$0" -m ernie_cli convert "$1" --to paddle -o "$2" {closed}'
    done = subprocess.run(["sh", "-c", script, sys.executable, folder, tmp_path / "o"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ("passed" in done.stdout) == (closed == "2>&-")


def test_a_limit_on_file_sizes_is_a_full_disk(checkpoint: Any, tmp_path: Path) -> None:
    folder, _ = checkpoint()
    script = 'ulimit -f 64; "$0" -m ernie_cli convert "$1" --to onnx --no-verify -o "$2"'
    done = subprocess.run(["sh", "-c", script, sys.executable, folder, tmp_path / "o"], capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    assert sorted(os.listdir(tmp_path)) == ["hf"]


def test_no_library_reports_home(checkpoint: Any, tmp_path: Path) -> None:
    """onnxruntime leaves a device id in the user's cache where its telemetry is on."""
    folder, _ = checkpoint()
    words = [sys.executable, "-m", "ernie_cli", "convert", str(folder), "--to", "onnx", "-o", str(tmp_path / "o"), "-q"]
    (tmp_path / "home").mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")}
    subprocess.run(words, check=True, capture_output=True, env={**environment, "HOME": str(tmp_path / "home")})
    assert not list((tmp_path / "home").rglob("*"))
