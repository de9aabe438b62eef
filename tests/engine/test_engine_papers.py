"""What an engine's papers hold, and that `ernie inspect` shows it without TensorRT and without a GPU."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from engine_folders import edit, write_engine, write_graph

from ernie_cli.app import main
from ernie_cli.engine import header
from ernie_cli.engine.admit import admit, this_system
from ernie_cli.engine.build import build
from ernie_cli.engine.options import Options
from ernie_cli.engine.papers import engine_facts
from ernie_cli.engine.precision_map import precision_map
from ernie_cli.errors import InputError
from ernie_cli.model import Model
from ernie_cli.onnxgraph.proto import parse


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return write_engine(tmp_path_factory.mktemp("papers") / "engine", workspace=1_000_000)


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def shown(capsys: Any, *words: str | Path) -> tuple[int, str, str]:
    capsys.readouterr()
    return main(["inspect", *map(str, words)]), *capsys.readouterr()


def test_everything_the_papers_promise(engine: Model) -> None:
    told, source = engine_facts(engine), engine.path.with_name("engine-onnx")
    assert engine.manifest["files"]["model.plan"] == {"size": 100_000, "sha256": sha256(engine.path / "model.plan")}
    assert told["source"]["files"]["model.onnx"]["sha256"] == sha256(source / "model.onnx")
    assert told["graph"]["opsets"] == {"ai.onnx": 21} and told["graph"]["nodes"] == 6
    assert told["precision"]["layers"] == {"fp16": ["first"], "int8 × int8, fp16": ["second"]}
    assert told["quantization"] == {"scheme": "int8"}
    assert (told["library"]["name"], told["library"]["version"], told["library"]["cuda"]) == ("tensorrt-rtx", "1.7.1.116", "12.9")
    assert (told["target"]["device"], told["target"]["capabilities"]) == ("rtx4090", ["8.9"])
    assert told["profiles"] == [{"name": "default", "inputs": {"x": [[1, 16], [4, 16], [8, 16]]}}]
    assert told["options"]["workspace"] == 1_000_000
    assert told["seconds"] == {"parse": 0.01, "build": 1.5}
    assert told["actual"] == {"plan_bytes": 100_000, "weight_bytes": 1200, "activation_bytes": [4096], "host_peak_bytes": 300_000_000}
    assert told["predicted"]["weight_bytes"] > 0 and told["predicted"]["host_peak_bytes"] > 0
    fused = [layer["nodes"] for layer in told["layers"]["profiles"][0]["layers"]]
    assert fused == [["first", "relu"], ["second"]]
    assert told["layers"]["profiles"][0]["removed"] == {"folded into a constant": ["weights"]}
    assert (engine.architecture, engine.precision, engine.format) == ("tiny", "int8", "engine")


def test_tokenizer_and_template_are_carried_with_their_digests_and_nothing_else(engine: Model) -> None:
    names = {"tokenizer.json", "chat_template.jinja", "config.json"}
    assert {file.name for file in engine.path.iterdir()} == {*names, "model.plan", "ernie.json"}
    assert all(engine.manifest["files"][name]["sha256"] == sha256(engine.path / name) for name in names)
    assert engine_facts(engine)["tokenizer"] == {"files": ["tokenizer.json"], "chat_template": "chat_template.jinja"}


def test_a_template_inside_the_tokenizer_s_config_is_found(tmp_path: Path) -> None:
    from ernie_cli.engine.papers import _tokenizer

    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "{{ x }}"}')
    assert _tokenizer(tmp_path, {"tokenizer_config.json": {}, "tokenizer.model": {}}) == {
        "files": ["tokenizer.model"], "chat_template": "tokenizer_config.json",
    }  # fmt: skip


def test_inspect_shows_it(engine: Model, capsys: Any) -> None:
    code, out, _ = shown(capsys, engine.path)
    assert code == 0
    expected = [
        "engine, tiny, int8",
        "NVIDIA GeForce RTX 4090 (rtx4090); compute capability 8.9; linux-x86_64",
        "TensorRT-RTX 1.7.1.116; CUDA 12.9",
        "Check: parity, hf_to_onnx",
        "opset 21",
        "6 nodes in 2 layers",
        *("1x16", "8x16", "predicted", "reported", "off by", "100.0 kB", "int8 × int8, fp16", "workspace 1000000"),
        "tokenizer.json, chat template in chat_template.jinja",
        sha256(engine.path / "model.plan")[:12],
        f"ernie build {engine.path}-onnx --device rtx4090 --workspace 1000000 -o {engine.path} --force",
    ]
    for words in expected:
        assert words in out, words


def test_inspect_json_holds_everything(engine: Model, capsys: Any) -> None:
    code, out, _ = shown(capsys, engine.path, "--json")
    found = json.loads(out)
    assert code == 0 and found["engine"] == engine.manifest["engine"]
    assert [each["name"] for each in found["inputs"]] == ["x"] and found["outputs"][0]["shape"] == ["?", 4]


def test_inspect_layers(engine: Model, capsys: Any) -> None:
    code, out, _ = shown(capsys, engine.path, "--layers")
    assert code == 0
    for words in ("default: 3 of 4 nodes in 2 layers", "first, relu", "int8 → fp16", "folded into a constant"):
        assert words in out, words


def test_layers_of_what_is_no_engine(tmp_path: Path, capsys: Any) -> None:
    code, _, errors = shown(capsys, write_graph(tmp_path / "onnx").path, "--layers")
    assert code == 2 and "no engine with papers" in errors


def test_inspecting_loads_no_tensorrt_and_asks_no_gpu(engine: Model) -> None:
    script = (
        "import sys; before = set(sys.modules)\n"  # cuda-python's wheel has itself loaded when Python starts
        "from ernie_cli.app import main\n"
        "codes = [main(['inspect', sys.argv[1], *more]) for more in ([], ['--layers'], ['--verify'])]\n"
        "print(codes, [name for name in set(sys.modules) - before if name.startswith(('tensorrt', 'cuda', 'pynvml', 'torch'))])"
    )
    done = subprocess.run([sys.executable, "-c", script, str(engine.path)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[0, 0, 0] []", done.stderr


@pytest.mark.parametrize("named", ["the file", "the folder"])
def test_a_plan_without_papers(named: str, tmp_path: Path, capsys: Any) -> None:
    plan = tmp_path / "x.plan"
    plan.write_bytes(start("1.7.1.116", 400) + bytes(360))
    code, out, _ = shown(capsys, plan if named == "the file" else tmp_path, "--json")
    found = json.loads(out)
    assert code == 0 and found["plan"]["sha256"] == sha256(plan) and found["plan"]["bytes"] == 400
    assert found["plan"]["header"] == {
        "library": "tensorrt-rtx", "version": "1.7.1.116", "n_bytes": 400, "capabilities": ["8.6", "8.9"],
    }  # fmt: skip
    assert "no papers" in found["notes"][0]
    assert "TensorRT-RTX 1.7.1.116; for compute capability 8.6, 8.9" in shown(capsys, plan)[1]


def test_a_bare_plan_that_is_too_short(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "x.plan").write_bytes(start("1.7.1.116", 400))
    code, out, errors = shown(capsys, tmp_path / "x.plan")
    assert code == 3 and "truncated" in errors and "40 B" in out


@pytest.mark.parametrize("content", [b"", b"vtrt", b"ptrt" + bytes(40), b"vtrt\1" + bytes(40)])
def test_other_beginnings_say_nothing(content: bytes, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "x.plan").write_bytes(content)
    assert header.read(tmp_path / "x.plan") is None
    assert shown(capsys, tmp_path / "x.plan")[0] == 0


def test_a_plan_in_its_folder_points_to_its_papers(engine: Model, capsys: Any) -> None:
    code, out, _ = shown(capsys, engine.path / "model.plan")
    assert code == 0 and f"ernie inspect {engine.path}" in out


def test_a_changed_plan_is_a_problem(tmp_path: Path, capsys: Any) -> None:
    model = write_engine(tmp_path / "engine")
    (model.path / "model.plan").write_bytes(bytes(100_000))
    assert shown(capsys, model.path)[0] == 0
    code, _, errors = shown(capsys, model.path, "--verify")
    assert code == 3 and "model.plan" in errors


def test_odd_papers_are_shown_and_named(tmp_path: Path, capsys: Any) -> None:
    folder = write_engine(tmp_path / "engine").path
    edit(folder, lambda told: told["engine"].update(profiles="many", seconds={"build": -1}))
    code, out, errors = shown(capsys, folder)
    assert code == 3 and "rtx4090" in out
    assert "`engine.profiles` is 'many', a list expected" in errors and "`engine.seconds.build` is -1, a number expected" in errors


def start(version: str, n_bytes: int) -> bytes:
    """The first bytes of a plan of TensorRT-RTX 1.7 for 8.6 and 8.9."""
    return struct.pack("<4sIQQ4B4sQ", b"vtrt", 0, 2, n_bytes, *map(int, version.split(".")), b"vtrt", 0b1100)


def test_halves_of_characters_go_through_json(tmp_path: Path, capsys: Any) -> None:
    folder = write_engine(tmp_path / "engine").path
    edit(folder, lambda told: told["engine"]["target"].update(title="\ud800é"))
    code, out, _ = shown(capsys, folder, "--json")
    assert code == 0 and json.loads(out)["engine"]["target"]["title"] == "\ud800é"
    assert "\\ud800" in shown(capsys, folder)[1]


# --- an engine that TensorRT-RTX built ----------------------------------------------------------------------------------


def test_a_real_engine(tmp_path: Path, capsys: Any) -> None:
    """Built here without a GPU: its papers and its first bytes agree, every node is accounted for, and one flipped bit is found."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="needs the TensorRT-RTX wheels: pip install 'ernie-cli[rtx]'")
    source = write_graph(tmp_path / "onnx")
    options = Options(shapes=("x:1x16,4x16,8x16",), library="tensorrt-rtx", effort=0)
    model = build(source.path, "rtx4090", tmp_path / "engine", options)
    told, start = engine_facts(model), header.read(model.main_file())
    assert start is not None and start.capabilities == ("8.9",) and start.n_bytes == model.manifest["files"]["model.plan"]["size"]
    assert told["library"]["version"] == told["library"]["abi"] == start.version and told["library"]["cuda"]
    layers, removed = ([each[name] for each in told["layers"]["profiles"]] for name in ("layers", "removed"))
    named = {node for each in layers[0] for node in each["nodes"]} | {node for nodes in removed[0].values() for node in nodes}
    assert named == {"first", "relu", "quantize", "dequantize", "weights", "second"}
    assert told["actual"]["activation_bytes"] and told["seconds"]["build"] > 0 and told["actual"]["host_peak_bytes"] > 10_000_000
    assert shown(capsys, model.path, "--verify")[0] == shown(capsys, model.path, "--layers")[0] == 0
    here = (start.version, "8.9", this_system())
    admit(model, *here)
    content = bytearray(model.main_file().read_bytes())
    content[len(content) // 2] ^= 1
    model.main_file().write_bytes(content)
    with pytest.raises(InputError, match="its sha256 is"):
        admit(model, *here)


# --- the map of precisions ----------------------------------------------------------------------------------------------


def test_weights_behind_casts_transposes_and_blocks(tmp_path: Path) -> None:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    arrays = {
        "table": np.zeros((8, 4), np.float32), "w": np.zeros((4, 4), np.float16), "codes": np.zeros((4, 4), np.int8),
        "scales": np.ones((4,), np.float16), "ids2": np.zeros(1, np.int64), "shape": np.zeros(3, np.int64),
    }  # fmt: skip
    nodes = [
        helper.make_node("Cast", ["table"], ["half"], "cast", to=TensorProto.FLOAT16),
        helper.make_node("Gather", ["half", "ids"], ["e"], "embed"),
        helper.make_node("Transpose", ["w"], ["wt"], "turn"),
        helper.make_node("MatMul", ["e", "wt"], ["a"], "plain"),
        helper.make_node("DequantizeLinear", ["codes", "scales"], ["wide"], "widen", axis=1),
        helper.make_node("MatMul", ["a", "wide"], ["b"], "narrow"),
        helper.make_node("MatMul", ["b", "a"], ["c"], "two_activations"),
        helper.make_node("Gather", ["shape", "ids2"], ["s"], "of_a_shape"),
    ]
    ids, result = (
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["N"]),
        helper.make_tensor_value_info("c", TensorProto.FLOAT16, None),
    )
    graph = helper.make_graph(nodes, "g", [ids], [result], [numpy_helper.from_array(array, name) for name, array in arrays.items()])
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    found = precision_map(parse(tmp_path / "m.onnx"))
    assert found["layers"] == {"fp32 weights, fp16": ["embed"], "fp16": ["plain"], "int8 weights, fp16": ["narrow"]}
    assert found["types"]["int8"] == {"tensors": 1, "bytes": 16}
