"""`ernie inspect`: the facts are right, damage is told in one line, and nothing large is ever read."""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ernie_cli import app
from ernie_cli.checkpoint.config import parse_config
from ernie_cli.checkpoint.layout import tensors as table_of
from ernie_cli.inspect import look
from ernie_cli.inspect.checkpoint import kv_bytes_per_token
from ernie_cli.inspect.render import render

#: ernie45.md §2 and §1: layers, kv heads, head_dim → bytes per token in bf16
PUBLISHED = [(18, 2, 128, 18_432), (28, 4, 128, 57_344), (54, 8, 128, 221_184)]
SMALL = {
    "model_type": "ernie4_5", "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
    "intermediate_size": 96, "vocab_size": 320, "tie_word_embeddings": True, "max_position_embeddings": 256, "dtype": "bfloat16",
}  # fmt: skip
ERNIE_0_3B = {
    "model_type": "ernie4_5", "hidden_size": 1024, "num_hidden_layers": 18, "num_attention_heads": 16, "num_key_value_heads": 2,
    "head_dim": 128, "intermediate_size": 3072, "vocab_size": 103424, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
}  # fmt: skip


@pytest.fixture(scope="module")
def hf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inspect") / "hf"
    return write_checkpoint(folder, SMALL, seed=0)


@pytest.fixture(scope="module")
def graph(hf: Path) -> Path:
    out = hf.with_name("onnx")
    assert app.main(["convert", str(hf), "--to", "onnx", "-o", str(out), "-q"]) == 0
    return out


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`run(*args)` → exit code, stdout, stderr of `ernie inspect`."""

    def inspect(*args: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = app.main(["inspect", *map(str, args)])
        return code, *capsys.readouterr()

    return inspect


def write_checkpoint(folder: Path, config: dict[str, Any], seed: int | None = None, **extra: tuple[str, list[int]]) -> Path:
    """A checkpoint with random weights, or (no seed) with holes for weights: any size, no time, no disk."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {part.name: ("BF16", list(part.shape)) for tensor in table_of(parse_config(config)) for part in tensor.parts} if config else {}
    header, end = {}, 0
    for name, (dtype, shape) in {**shapes, **extra}.items():
        start, end = end, end + math.prod(shape) * {"BF16": 2, "F32": 4}[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as handle:
        handle.write(struct.pack("<Q", len(text)) + text)
        if seed is not None:
            weights = np.random.default_rng(seed).normal(0, 0.2, end // 2).astype(ml_dtypes.bfloat16)
            handle.write(weights.tobytes())
        handle.truncate(8 + len(text) + end)
    return folder


# --- checkpoints --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "kv_heads", "head_dim", "expected"), PUBLISHED)
def test_kv_bytes_of_the_published_models(layers: int, kv_heads: int, head_dim: int, expected: int, tmp_path: Path) -> None:
    found = look(write_checkpoint(tmp_path / "m", {**ERNIE_0_3B, "num_hidden_layers": 1, "vocab_size": 8}))
    entries = _entries(tmp_path / "m")
    assert kv_bytes_per_token({"num_hidden_layers": layers, "num_key_value_heads": kv_heads, "head_dim": head_dim}, entries) == expected
    assert found["kv_bytes_per_token"] == 2 * 1 * 2 * 128 * 2


def _entries(folder: Path) -> list[Any]:
    from ernie_cli.checkpoint.shards import read_folder

    return list(read_folder(folder).values())


def test_ernie_0_3b(tmp_path: Path) -> None:
    found = look(write_checkpoint(tmp_path / "m", ERNIE_0_3B))
    assert found["parameters"] == 360_748_032  # as published
    assert found["bytes_by_dtype"] == {"bf16": 721_496_064}
    assert found["kv_bytes_per_token"] == 18_432
    assert (found["format"], found["architecture"], found["precision"]) == ("hf", "ernie4_5", "bf16")


def test_facts_agree_with_transformers(checkpoint: Callable[..., tuple[Path, Any]]) -> None:
    folder, theirs = checkpoint(shard="50KB", tie_word_embeddings=False)
    found = look(folder)
    assert found["parameters"] == theirs.num_parameters()
    shapes = {name: list(value.shape) for name, value in theirs.state_dict().items()}
    assert {tensor["name"]: tensor["shape"] for tensor in found["tensors"]} == shapes
    assert found["shards"] > 1 and found["config"]["layers"] > 0


def test_paddle_is_told_from_its_tensors_and_knows_its_parent(hf: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    assert app.main(["convert", str(hf), "--to", "paddle", "-o", str(tmp_path / "p"), "-q"]) == 0
    found = look(tmp_path / "p")
    assert found["format"] == "paddle" and found["parameters"] == look(hf)["parameters"]
    assert [(link["path"], link["now"]) for link in found["made_from"]] == [(str(hf), "same")]
    code, out, _ = run(tmp_path / "p")
    assert code == 0 and str(hf) in out and "unchanged since" in out


@pytest.mark.parametrize(("name", "dtype", "expected"), [("mtp_block.0.weight", "BF16", 1), ("lm_head.weight", "BF16", 1)])
def test_skipped_tensors_are_named_and_not_counted(name: str, dtype: str, expected: int, tmp_path: Path) -> None:
    small = {**ERNIE_0_3B, "num_hidden_layers": 1, "vocab_size": 8}
    plain, more = look(write_checkpoint(tmp_path / "a", small)), look(write_checkpoint(tmp_path / "b", small, **{name: (dtype, [8, 1024])}))
    assert more["parameters"] == plain["parameters"] and more["skipped"] == [name] and len(more["skipped"]) == expected


def test_other_architectures_are_described_all_the_same(tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    folder = write_checkpoint(tmp_path / "m", {}, **{"model.embed_tokens.weight": ("BF16", [16, 8]), "model.gate.weight": ("F32", [8, 4])})
    config = {"model_type": "ernie4_5_moe", "num_hidden_layers": 28, "num_key_value_heads": 4, "head_dim": 128, "moe_num_experts": 64}
    (folder / "config.json").write_text(json.dumps(config))
    code, out, _ = run(folder)
    assert code == 0 and "ernie4_5_moe" in out and "57,344" in out and "experts 64" in out and "note" in out
    assert look(folder)["bytes_by_dtype"] == {"bf16": 256, "fp32": 128}


def test_a_bare_safetensors_file(hf: Path, tmp_path: Path) -> None:
    shutil.copy(hf / "model.safetensors", tmp_path)
    found = look(tmp_path / "model.safetensors")
    assert found["parameters"] == look(hf)["parameters"] and found["kv_bytes_per_token"] is None and "no config.json" in found["notes"][0]


def test_a_pickle_is_never_opened(tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    (tmp_path / "model_state.pdparams").write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    code, out, _ = run(tmp_path)
    assert code == 0 and "paddle" in out and "pickle" in out and not Path("owned").exists()


def test_tokenizer_and_template(hf: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(hf, tmp_path / "m")
    assert (look(folder)["tokenizer"], look(folder)["chat_template"]) == ([], False)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert (look(folder)["tokenizer"], look(folder)["chat_template"]) == (["tokenizer.json"], True)


def test_tensors_are_listed_when_asked_for(hf: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    assert "model.norm.weight" not in run(hf)[1]
    assert "model.norm.weight" in run(hf, "--tensors")[1]
    assert "tensors" not in json.loads(run(hf, "--json")[1])
    assert len(json.loads(run(hf, "--json", "--tensors")[1])["tensors"]) == 3 * 9 + 2


# --- ONNX ---------------------------------------------------------------------------------------------------------------


def make_onnx(file: Path, *, external: str = "", constants: bool = False) -> onnx.ModelProto:
    """[2, 3] · weight [3, 4], an If around it, a node of another domain."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [3, 4], np.arange(12, dtype=np.float32).tobytes(), raw=True)
    four_bits = helper.make_tensor("q", TensorProto.INT4, [3], [1, 2, 3])
    branch = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "branch", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])]
    )
    nodes = [
        helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
        helper.make_node("Strange", ["y"], ["z"], domain="org.example"),
    ]
    if constants:
        nodes.append(helper.make_node("Constant", [], ["k"], value=helper.make_tensor("k", TensorProto.FLOAT16, [5], [0.0] * 5)))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3]), helper.make_tensor_value_info("c", TensorProto.BOOL, [])]
    outputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, [weight, four_bits]),
        opset_imports=[helper.make_opsetid("", 24), helper.make_opsetid("org.example", 1)],
        ir_version=10,
    )
    helper.set_model_props(model, {"author": "a test"})
    if external:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": external, "offset": "16", "length": "48"}.items():
            tensor.external_data.add(key=key, value=value)
    file.write_bytes(model.SerializeToString())
    return model


def test_our_graph(graph: Path, hf: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    found = look(graph, verify=True)
    assert found["format"] == "onnx" and found["precision"] == "fp32" and found["problems"] == []
    assert found["ops"]["Attention"] == SMALL["num_hidden_layers"] and found["opsets"]["ai.onnx"] >= 23
    assert look(hf)["parameters"] <= found["parameters"] <= look(hf)["parameters"] + SMALL["head_dim"]  # and RoPE's frequencies
    assert found["kv_bytes_per_token"] == 2 * look(hf)["kv_bytes_per_token"]  # fp32 from bf16
    assert [check["passed"] for check in found["checks"]] == [True]
    code, out, _ = run(graph)
    assert code == 0 and ".*.key (3)" in out and "parity" in out and "passed" in out


def test_a_graph_from_elsewhere(tmp_path: Path) -> None:
    make_onnx(tmp_path / "m.onnx", constants=True)
    found = look(tmp_path / "m.onnx")
    assert found["ops"] == {"MatMul": 2, "If": 1, "org.example::Strange": 1, "Constant": 1}
    assert found["bytes_by_dtype"] == {"fp32": 48, "fp16": 10, "int4": 2} and found["parameters"] == 12 + 5 + 3
    assert found["inputs"][0] == {"name": "x", "dtype": "fp32", "shape": ["n", 3]} and found["outputs"][0]["shape"] is None
    assert found["opsets"] == {"ai.onnx": 24, "org.example": 1} and found["metadata"] == {"author": "a test"}


def test_element_types_of_the_future_are_shown_by_number(tmp_path: Path) -> None:
    model = make_onnx(tmp_path / "m.onnx")
    model.graph.initializer[0].data_type = 99
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert "type 99" in look(tmp_path / "m.onnx")["bytes_by_dtype"]


@pytest.mark.parametrize(
    ("n_bytes", "problem"),
    [(64, ""), (63, "truncated: 63 bytes where m.onnx reads up to 64"), (None, "is missing")],
    ids=["whole", "truncated", "missing"],
)
def test_external_data(n_bytes: int | None, problem: str, tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    make_onnx(tmp_path / "m.onnx", external="m.data")
    if n_bytes is not None:
        (tmp_path / "m.data").write_bytes(bytes(n_bytes))
    code, out, err = run(tmp_path)
    assert code == (3 if problem else 0) and problem in err and problem in out
    assert "MatMul 2" in out, "what is known is shown all the same"


@pytest.mark.parametrize("escape", ["../secret", "/etc/passwd", "a/../../b", "a\\b"])
def test_external_data_stays_in_the_folder(escape: str, tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    make_onnx(tmp_path / "m.onnx", external=escape)
    code, _, err = run(tmp_path)
    assert code == 3 and "leave the folder" in err


def test_a_tensor_shorter_than_its_shape(tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    model = make_onnx(tmp_path / "m.onnx")
    model.graph.initializer[0].raw_data = bytes(40)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    code, _, err = run(tmp_path)
    assert code == 3 and "takes 48 bytes and has 40" in err


def test_external_gigabytes_are_not_read(tmp_path: Path) -> None:
    model = make_onnx(tmp_path / "m.onnx", external="m.data")
    tensor = model.graph.initializer[0]
    tensor.dims[:] = [1 << 15, 1 << 15]
    tensor.external_data[2].value = str(4 << 30)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with (tmp_path / "m.data").open("wb") as handle:
        handle.truncate((4 << 30) + 16)  # a hole: no disk is used
    # VmHWM: ru_maxrss would count what the test's own process had when it forked
    code = "import sys; from ernie_cli.app import main; main(sys.argv[1:]); print(open('/proc/self/status').read(), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code, "inspect", str(tmp_path), "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["bytes_by_dtype"]["fp32"] == 4 << 30
    peak_kib = int(done.stderr.partition("VmHWM:")[2].split()[0])
    assert peak_kib < 300 << 10


# --- damage -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.onnx", b""),
        ("m.onnx", b"not a protobuf at all"),
        ("m.onnx", b"\x08\x0a"),  # an IR version and no graph
        ("m.onnx", b"\x3a\xff\xff\xff\xff\x7f"),  # a graph longer than any file
        ("model.safetensors", b""),
        ("model.safetensors", b"\xff" * 64),
        ("notes.txt", b"hello"),
    ],
)
def test_broken_files(name: str, content: bytes, tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    (tmp_path / name).write_bytes(content)
    code, out, err = run(tmp_path)
    assert (code, out) == (3, "") and err.startswith("error: ") and "hint: " in err and "bug" not in err


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["hf", "onnx"])
def test_truncated_models(kind: str, keep: float, hf: Path, graph: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    folder = shutil.copytree(hf if kind == "hf" else graph, tmp_path / "m")
    file = folder / ("model.safetensors" if kind == "hf" else "model.onnx")
    os.truncate(file, int(file.stat().st_size * keep))
    code, _, err = run(folder)
    assert code == 3 and err.startswith("error: ") and "bug" not in err


@pytest.mark.parametrize("seed", range(8))
def test_flipped_bytes_never_crash(seed: int, tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    rng = np.random.default_rng(seed)
    make_onnx(tmp_path / "m.onnx", external="m.data", constants=True)
    whole = bytearray((tmp_path / "m.onnx").read_bytes())
    for _ in range(40):
        broken = bytearray(whole)
        for at in rng.integers(0, len(whole), rng.integers(1, 4)):
            broken[at] = rng.integers(256)
        (tmp_path / "m.onnx").write_bytes(broken)
        code, _, err = run(tmp_path, "--tensors")
        assert code in (0, 3), err


@pytest.mark.parametrize(
    "manifest",
    [
        "[]",
        "{",
        '{"format": "cookies"}',
        '{"format": ["onnx"]}',
        '{"format": "hf", "checks": 7}',
        '{"format": "hf", "checks": [7]}',
        '{"format": "hf", "files": [1]}',
        '{"format": "hf", "made_by": "me"}',
        '{"format": "hf", "files": {"../../etc/passwd": {"size": 1}}}',
    ],
)
def test_broken_manifests(manifest: str, hf: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    folder = shutil.copytree(hf, tmp_path / "m")
    (folder / "ernie.json").write_text(manifest)
    code, _, err = run(folder)
    assert code == 3 and "hint: " in err and "bug" not in err


def test_a_chain_that_bites_its_tail_ends(hf: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(hf, tmp_path / "m")
    from ernie_cli.model import fingerprint

    made_from = {"path": str(folder), "fingerprint": fingerprint(folder)}
    (folder / "ernie.json").write_text(json.dumps({"format": "hf", "made_from": made_from}))
    assert 1 < len(look(folder)["made_from"]) < 100


# --- ernie.json against the files ---------------------------------------------------------------------------------------


def test_files_are_compared_by_size_and_on_request_by_hash(graph: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    folder = shutil.copytree(graph, tmp_path / "m")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace("320", "321"))
    assert run(folder)[0] == 0, "same size: only the hash can tell"
    code, out, err = run(folder, "--verify")
    assert code == 3 and "config.json: its sha256 is not the one" in err and "Problems" in out
    (folder / "config.json").write_text(config + " ")
    assert run(folder)[0] == 3
    (folder / "config.json").unlink()
    assert "config.json is missing" in run(folder)[2]


def test_a_parent_that_changed_or_went_is_told(hf: Path, tmp_path: Path) -> None:
    parent = shutil.copytree(hf, tmp_path / "hf")
    assert app.main(["convert", str(parent), "--to", "paddle", "-o", str(tmp_path / "p"), "-q"]) == 0
    (parent / "config.json").write_text((parent / "config.json").read_text() + " ")
    assert look(tmp_path / "p")["made_from"][0]["now"] == "changed"
    shutil.rmtree(parent)
    assert look(tmp_path / "p")["made_from"][0]["now"] == "gone"


def test_a_failed_check_is_a_problem(graph: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    folder = shutil.copytree(graph, tmp_path / "m")
    manifest = json.loads((folder / "ernie.json").read_text())
    manifest["checks"][0]["passed"] = False
    (folder / "ernie.json").write_text(json.dumps(manifest))
    code, out, err = run(folder)
    assert code == 3 and "failed" in out and "check `parity` failed" in err


# --- the rest -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), [("m.plan", "engine"), ("m.engine", "engine")])
def test_opaque_formats_by_name_and_size(name: str, kind: str, tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    (tmp_path / name).write_bytes(b"\0" * 1234)
    code, out, _ = run(tmp_path / name)
    assert code == 0 and kind in out and "1.2 kB" in out


def test_the_embedded_model_by_name(run: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = run("ernie-4.5-nano")
    assert code == 0 and "ernie4_5" in out and "with a chat template" in out


def test_names_from_files_cannot_drive_the_terminal(tmp_path: Path) -> None:
    make_onnx(tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    model.graph.input[0].name = "\x1b[2J[bold]x[/nope]"
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    from rich.console import Console

    console = Console(force_terminal=True, width=120)
    with console.capture() as shown:
        console.print(render(look(tmp_path / "m.onnx")))
    assert "\\x1b[2J[bold]x[/nope]" in shown.get() and "\x1b[2J" not in shown.get()


def test_missing_path(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, _, err = run(tmp_path / "nothing")
    assert code == 3 and "no such file" in err


def test_2_gb_of_protobuf_is_refused_before_it_is_read(tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    with (tmp_path / "m.onnx").open("wb") as handle:
        handle.truncate(2 << 30)  # one byte more than a protobuf may have
    code, _, err = run(tmp_path)
    assert code == 3 and "no protobuf file is larger" in err
