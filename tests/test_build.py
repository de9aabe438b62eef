"""`ernie build` from the command line: what it takes, what it refuses and how, what it leaves. Each part of the work: tests/engine/."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ernie_cli import console, nvml
from ernie_cli.app import main
from ernie_cli.engine.options import Options
from ernie_cli.engine.plan import plan
from ernie_cli.staging import staged

pytest.importorskip("tensorrt_rtx_bindings", reason="needs the TensorRT-RTX wheels: pip install 'ernie-cli[rtx]'")

WITHOUT_GPU = pytest.mark.skipif(bool(nvml.read().gpus), reason="what is said where there is no GPU")
NANO = "ernie-4.5-nano"
#: Whatever else is installed where the tests run.
RTX = ["--engine-library", "tensorrt-rtx"]


def write(
    folder: Path, nodes: list[onnx.NodeProto], x: list[int | str], y: list[int | str], *weights: tuple[int, ...], **more: Any
) -> Path:
    """A graph from `x` to `y`, with weights called w0, w1 … of these shapes; more: kind (of tensor), opset, domain."""
    kind = more.get("kind", TensorProto.FLOAT)
    numpy = np.float64 if kind == TensorProto.DOUBLE else np.float32
    rng = np.random.default_rng(0)
    arrays = [numpy_helper.from_array(rng.normal(size=shape).astype(numpy), f"w{at}") for at, shape in enumerate(weights)]
    ends = [[helper.make_tensor_value_info(name, kind, shape)] for name, shape in (("x", x), ("y", y))]
    graph = helper.make_graph(nodes, "g", *ends, arrays)
    domains = [helper.make_opsetid("", 17), *(helper.make_opsetid(name, 1) for name in more.get("domains", ()))]
    folder.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=domains, ir_version=9), folder / "model.onnx")
    return folder


def perceptron(folder: Path, rows: int | str, **more: Any) -> Path:
    product, relu = helper.make_node("MatMul", ["x", "w0"], ["h"]), helper.make_node("Relu", ["h"], ["y"])
    return write(folder, [product, relu], [rows, 32], [rows, 32], (32, 32), **more)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """fixed, free: a small perceptron. vision: a convolution over pictures of any number and size. double; contrib; texts."""
    folder = tmp_path_factory.mktemp("models")
    perceptron(folder / "fixed", 4)
    perceptron(folder / "free", "rows")
    perceptron(folder / "double", 4, kind=TensorProto.DOUBLE)
    convolution = helper.make_node("Conv", ["x", "w0"], ["y"], pads=[1, 1, 1, 1])
    write(folder / "vision", [convolution], ["N", 3, "H", "W"], ["N", 16, "H", "W"], (16, 3, 3, 3))
    theirs = [helper.make_node(name, [a], [b], domain="com.microsoft") for name, a, b in (("Gelu", "x", "h"), ("Inverse", "h", "y"))]
    write(folder / "contrib", theirs, [4, 4], [4, 4], domains=["com.microsoft"])
    write(folder / "texts", [helper.make_node("Identity", ["x"], ["y"])], [2], [2], kind=TensorProto.STRING)
    return folder


@pytest.fixture(scope="module")
def engine(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built one, in a place with a space and other letters."""
    out = tmp_path_factory.mktemp("built") / "an engine 中"
    assert main(words(models / "fixed", out)) == 0
    return out


def words(model: Path | str, out: Path, *more: str, device: str = "rtx4090") -> list[str]:
    return ["build", str(model), "--device", device, *RTX, "--opt-level", "0", "-o", str(out), *more]


def test_what_it_leaves_and_says(engine: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(path.name for path in engine.iterdir()) == ["ernie.json", "model.plan"] and list(engine.parent.iterdir()) == [engine]
    assert main([*words(models / "fixed", engine), "--json"]) == 0  # nothing to do
    told = capsys.readouterr()
    said = json.loads(told.out)
    assert said["up_to_date"] and said["format"] == "engine" and said["precision"] == "fp32" and "up to date" in told.err
    assert {name: value for name, value in said.items() if name not in ("path", "up_to_date")} == json.loads(
        (engine / "ernie.json").read_text()
    )


def test_another_option_builds_again_and_says_which_library_and_why(
    engine: Path, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(engine, out)
    assert main(words(models / "fixed", out, "--device", "l4")) == 0
    told = capsys.readouterr()
    assert "for NVIDIA L4, by TensorRT-RTX" in told.err and told.out.splitlines()[-1] == str(out)
    assert json.loads((out / "ernie.json").read_text())["engine"]["target"]["device"] == "l4" and list(tmp_path.iterdir()) == [out]


def test_a_dry_run_writes_nothing(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(NANO, tmp_path / "out", "--precision", "int4", "--context", "64", "--dry-run", "--json")) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["precision"] == "int4" and not said["up_to_date"] and not any(tmp_path.iterdir())
    assert said["prediction"]["cache_bytes"] == 64 * 3072 and said["capabilities"] == ["8.9"]  # 6 layers × 2 × 2 heads × 64 × 2 bytes


#: Model, argv → exit code, what must be said.
REFUSED: dict[str, tuple[str, list[str], int, str]] = {
    "no shape": ("free", [], 2, "--shape x:1x32,4x32,8x32"),
    "no such input": ("free", ["--shape", "z:1x32"], 2, "its inputs are `x`"),
    "too few axes": ("free", ["--shape", "x:32"], 2, "the model's `x` is rowsx32"),
    "not its length": ("free", ["--shape", "x:4x31"], 2, "the model's `x` is rowsx32"),
    "not a fixed one's": ("fixed", ["--shape", "x:5x32"], 2, "leave --shape out"),
    "of nothing": ("free", ["--shape", "x:0x32"], 2, "`0x32` is no shape"),
    "negative": ("free", ["--shape", "x:-1x32"], 2, "`-1x32` is no shape"),
    "other digits": ("free", ["--shape", "x:１x32"], 2, "is no shape"),
    "descending": ("free", ["--shape", "x:8x32,4x32,1x32"], 2, "do not ascend"),
    "four": ("free", ["--shape", "x:1x32,2x32,3x32,4x32"], 2, "three are the most"),
    "twice": ("free", ["--shape", "x:1x32", "--shape", "x:2x32"], 2, "tells `x` twice"),
    "no colon": ("free", ["--shape", "x"], 2, "parted by a colon"),
    "too many rows": ("free", ["--shape", "x:1x32,999999999x32"], 7, "at most "),
    "too large, fixed": ("free", ["--shape", "x:999999999x32"], 7, "smaller shapes (--shape)"),
    "context of no decoder": ("fixed", ["--context", "64"], 2, "--context is for ERNIE decoders"),
    "batch of no decoder": ("free", ["--batch", "2"], 2, "--shape x:1x32,4x32,8x32"),
    "shape of a decoder": (NANO, ["--shape", "input_ids:1x4"], 2, "leave --shape out"),
    "context 0": (NANO, ["--context", "0"], 2, "--context"),
    "context beyond": (NANO, ["--context", "1025"], 2, "--context 1024 is the most"),
    "batch 0": (NANO, ["--batch", "0"], 2, "--batch"),
    "no device": ("fixed", ["--device", "rtx409"], 2, "did you mean `--device rtx4090`"),
    "no GPU": ("fixed", ["--device", "cpu"], 2, "name what will run it: --device a100, l4"),
    "not compiled for": ("fixed", ["--device", "jetson-orin-nano"], 4, "on the board"),
    "no precision": ("fixed", ["--precision", "fp61"], 2, "did you mean --precision fp16"),
    "not on that device": (NANO, ["--device", "t4", "--precision", "int4"], 4, "--precision int8-weight"),
    "bfloat16": (NANO, ["--device", "t4", "--precision", "bf16"], 4, "--precision fp16"),
    "fp32 attention": (NANO, ["--precision", "fp32"], 4, "--precision fp16"),
    "double": ("double", [], 4, "computes in fp64"),
    "no data": ("vision", ["--shape", "x:1x3x8x8", "--precision", "int8"], 2, "--data lines.jsonl, arrays.npz or a folder of images"),
    "no such data": ("vision", ["--shape", "x:1x3x8x8", "--precision", "int8", "--data", "no.npz"], 2, "no such file or folder"),
    "no use of data": ("fixed", ["--precision", "fp16", "--data", "."], 2, "leave --data out"),
    "no cache": ("vision", ["--shape", "x:1x3x8x8", "--precision", "fp8-kv", "--data", "."], 4, "--precision int8-weight"),
    "no layer": ("vision", ["--shape", "x:1x3x8x8", "--precision", "int4"], 4, "vision: it has no layer that int4 takes"),
    "no size": ("fixed", ["--workspace", "much"], 2, "--workspace 2GB"),
    "no size so large": ("fixed", ["--workspace", "9" * 400], 2, "--workspace 2GB"),
    "level": ("fixed", ["--opt-level", "6"], 2, "--opt-level"),
    "not in RTX": ("fixed", ["--version-compatible", "--timing-cache", "t"], 4, "--timing-cache and --version-compatible"),
    "contrib, all of them": ("contrib", [], 4, "Gelu × 1 (h), a contrib operator of ONNX Runtime; com.microsoft::Inverse"),
    "texts": ("texts", [], 4, "the input `x`: TensorRT has no such type"),
    "no engine to verify": ("fixed", ["--verify"], 2, "no engine"),
    "no engine to refit": ("fixed", ["--refit-from", "m"], 2, "no engine"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_reason_and_nothing_left(case: str, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, more, code, said = REFUSED[case]
    assert main(words(model if model == NANO else models / model, tmp_path / "out", *more)) == code
    told = capsys.readouterr()
    assert said in told.err and "hint:" in told.err and "bug" not in told.err and told.out == ""
    assert not any(tmp_path.iterdir())


def test_what_is_proposed_in_place_of_too_much_is_taken(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def asked(rows: int, side: int = 4096, device: str = "t4") -> str:
        shape = f"x:1x3x64x64,1x3x64x64,{rows}x3x{side}x{side}"
        code = main(words(models / "vision", tmp_path / "out", "--shape", shape, "--dry-run", device=device))
        told = capsys.readouterr().err
        assert code == (7 if "error" in told else 0)
        return told

    fits = int(re.findall(r"at most (\d+) rows", asked(64))[0])
    assert not asked(fits) and asked(fits + 1)
    found = re.findall(r"--device ([\w-]+)", asked(1, 14_000))
    assert not asked(1, 14_000, found[0])


#: Source, -o → what must be said. Nothing of these is ours to replace, or it holds what is read.
PLACES = {
    "the source": ("fixed", "fixed", "lie inside each other"),
    "in the source": ("fixed", "fixed/out", "lie inside each other"),
    "around the source": ("fixed", ".", "lie inside each other"),
    "the source's file": ("fixed/model.onnx", "fixed/model.onnx", "lie inside each other"),
    "another's folder": ("fixed", "free", "was not made by ernie"),
    "another's file": ("fixed", "free/model.onnx", "was not made by ernie"),
}


@pytest.mark.parametrize("case", PLACES)
def test_places_that_are_not_for_results(case: str, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out, said = PLACES[case]
    assert main(words(models / source, models / out)) == 2 and said in capsys.readouterr().err


def test_one_result_is_made_once_at_a_time(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), staged(tmp_path / "out"):
        assert main(words(models / "fixed", tmp_path / "out")) == 2 and "another ernie is making" in capsys.readouterr().err
        raise KeyboardInterrupt
    assert not any(tmp_path.iterdir())


def test_other_calibration_data_is_other_work(models: Path, tmp_path: Path) -> None:
    data, keys = tmp_path / "data.npz", set()
    for value in (1, 1, 2):
        np.savez(data, x=np.full((4, 3, 8, 8), value, np.float32))
        options = Options(precision="int8", data=str(data), shapes=("x:1x3x8x8",), library="tensorrt-rtx")
        keys.add(plan(models / "vision", device="rtx4090", out=tmp_path / "out", options=options).key)
    assert len(keys) == 2


@pytest.mark.parametrize(
    "record", [{"quantization": [1]}, {"made_from": "x"}, {"quantization": {"scheme": []}}, {"checks": 7}, {"precision": {}}]
)
def test_papers_that_say_nonsense(record: dict[str, Any], models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(models / "fixed", tmp_path / "m")
    (tmp_path / "m" / "ernie.json").write_text(json.dumps({"ernie": 1, "format": "onnx", **record}))
    assert main(words(tmp_path / "m", tmp_path / "out", "--precision", "fp16", "--dry-run")) == 0, capsys.readouterr().err


#: argv with an engine → exit code, what must be said.
OF_ENGINES = {
    "built again": ([], 4, "what it was made from: "),
    "refitted, but fixed": (["--refit-from", "MODEL"], 4, "--force --refit"),
    "refitted where": (["--refit-from", "MODEL", "--verify"], 2, "needs -o"),
    "verified": pytest.param(["--verify"], 5, "no GPU here", marks=WITHOUT_GPU),
}


@pytest.mark.parametrize(("more", "code", "said"), OF_ENGINES.values(), ids=OF_ENGINES)
def test_engines_are_not_built(
    more: list[str], code: int, said: str, engine: Path, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [str(models / "fixed") if word == "MODEL" else word for word in more]
    assert main(words(engine, tmp_path / "out", *more)) == code
    told = capsys.readouterr().err
    assert said in told and "hint:" in told and not any(tmp_path.iterdir())


def test_nobody_knows_how_long_what_has_not_begun_takes(capsys: pytest.CaptureFixture[str]) -> None:
    update = console._ticker("building", 100, every_s=0)
    for done in (0, 50):
        update(done, None)
    first, half = capsys.readouterr().err.splitlines()
    assert first == "building: 0%" and "50%, " in half and half.endswith("s left")
