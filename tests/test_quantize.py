"""`ernie quantize` from the command line: what it takes, what it refuses and how, what it leaves. Figures of each scheme: tests/quant/."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from ernie_cli.app import main
from ernie_cli.quant.scheme import schemes

NANO = "ernie-4.5-nano"


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model as ONNX."""
    out = tmp_path_factory.mktemp("nano") / "onnx"
    assert main(["convert", NANO, "--to", "onnx", "--no-verify", "-o", str(out)]) == 0
    return out


def told(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


def test_a_quantised_nano_answers_and_says_what_it_lost(nano: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, report = tmp_path / "int8w", tmp_path / "report.json"
    assert main(["quantize", str(nano), "--to", "int8-weight", "-o", str(out), "--report", str(report), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    record = said["quantization"]
    assert record == json.loads(report.read_text()) == json.loads((out / "ernie.json").read_text())["quantization"]
    assert record["scheme"] == said["precision"] == "int8-weight" and said["made_from"]["format"] == "onnx"
    assert record["quality"]["perplexity"]["ratio"] <= 1.002  # the bound
    assert abs(record["quality"]["exact_match"]["after"] - record["quality"]["exact_match"]["before"]) <= 0.01
    assert record["speed"]["before"]["decode_tok_s"] > 0 and record["bytes"]["weights"]["ratio"] < 0.5
    assert len(record["layers"]) == 43 and all(layer["output_sqnr_db"] > 20 for layer in record["layers"])
    assert not [path for path in tmp_path.iterdir() if path not in (out, report)] and not (out / "scratch").exists()
    assert main(["run", str(out), "What is 23 plus 45?"]) == 0
    assert capsys.readouterr().out.strip() == "68"


def test_done_once_it_is_not_done_again(nano: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["quantize", str(nano), "--to", "int4", "-o", str(tmp_path / "out"), "--no-measure"]
    assert main(words) == 0 and (stamp := (tmp_path / "out" / "model.onnx").stat().st_mtime_ns)
    capsys.readouterr()
    assert main(words) == 0 and "up to date" in told(capsys)
    assert (tmp_path / "out" / "model.onnx").stat().st_mtime_ns == stamp
    assert main([*words, "--block", "64"]) == 0
    assert (tmp_path / "out" / "model.onnx").stat().st_mtime_ns != stamp


def test_a_dry_run_writes_nothing(nano: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", str(nano), "--to", "int4", "-o", str(tmp_path / "out"), "--dry-run"]) == 0
    assert "int4" in capsys.readouterr().out and not any(tmp_path.iterdir())


def test_a_checkpoint_is_streamed_into_the_same_graph(nano: Path, tmp_path: Path) -> None:
    assert main(["quantize", str(nano), "--to", "int4", "-o", str(tmp_path / "a"), "--no-measure"]) == 0
    assert main(["quantize", NANO, "--to", "int4", "-o", str(tmp_path / "b"), "--no-measure"]) == 0
    one, other = (onnx.load(tmp_path / name / "model.onnx") for name in "ab")
    ours, theirs = (
        {each.name: each.raw_data for each in model.graph.initializer if each.data_type == 22} for model in (one, other)
    )  # INT4
    assert len(ours) == 43 and ours == theirs


#: argv after the model and -o → exit code, what must be said.
REFUSED = {
    "no scheme": (["--to", "int3"], 2, "did you mean `int"),
    "no data": (["--to", "fp8", "--data", "nowhere.jsonl"], 2, "there is no such file"),
    "block": (["--to", "int4", "--block", "31"], 2, "--block 31"),
    "method": (["--to", "int8-weight", "--method", "gptq"], 2, "is for int4"),
    "mix": (["--to", "int8-weight", "--mix", "auto"], 2, "is for int4"),
    "smooth": (["--to", "int8", "--smooth", "7"], 2, "0 to 1, or auto"),
    "smooth what": (["--to", "int4", "--smooth", "0.5"], 2, "is for int8 and fp8"),
    "drop": (["--to", "int4", "--max-drop", "lots"], 2, "--max-drop lots"),
    "samples": (["--to", "int8", "--samples", "0"], 2, "--samples 0"),
    "pattern": (["--to", "int4", "--exclude", "["], 2, "is no regular expression"),
    "meets nothing": (["--to", "int4", "--include", "conv9"], 2, "meets no layer"),
    "nothing left": (["--to", "int4", "--exclude", "MatMul", "--exclude", "Gemm"], 4, "no layer that int4 takes"),
    "mean alone": (["--to", "int8", "--mean", "0.5"], 2, "go together"),
    "mean": (["--to", "int8", "--mean", "a,b", "--std", "1"], 2, "no list of numbers"),
    "both": (["--to", "int8", "--data", ".", "--random-calibration"], 2, "at once"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_reason_and_nothing_left(case: str, nano: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, code, said = REFUSED[case]
    assert main(["quantize", str(nano), *words, "-o", str(tmp_path / "out")]) == code
    assert said in (text := told(capsys)) and "hint:" in text and "bug" not in text
    assert not any(tmp_path.iterdir())


def _plain(folder: Path, weight: np.ndarray) -> Path:
    """x [N, 64] @ weight: a graph that is no language model."""
    from onnx import helper

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="dense")],
        "plain",
        [helper.make_tensor_value_info("x", 1, ["N", 64])],
        [helper.make_tensor_value_info("y", 1, ["N", weight.shape[1]])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    folder.mkdir()
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "model.onnx")
    return folder / "model.onnx"


@pytest.mark.parametrize("scheme", [name for name, each in schemes().items() if each.needs_data])
def test_static_schemes_want_data(scheme: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = _plain(tmp_path / "plain", np.ones((64, 32), np.float32))
    assert main(["quantize", str(model), "--to", scheme, "-o", str(tmp_path / "out")]) == 2
    assert "needs data" in (text := told(capsys)) and "--random-calibration" in text
    assert not (tmp_path / "out").exists()


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weight = np.ones((64, 32), np.float32)
    weight[3, 4] = np.nan
    assert main(["quantize", str(_plain(tmp_path / "plain", weight)), "--to", "int4", "-o", str(tmp_path / "out")]) == 3
    assert "`w`" in told(capsys) and not (tmp_path / "out").exists()


def test_weights_of_zeros_stay_zeros(tmp_path: Path) -> None:
    import onnxruntime

    model = _plain(tmp_path / "plain", np.zeros((64, 32), np.float32))
    for scheme in ("int4", "int8-weight", "fp8-weight"):
        assert main(["quantize", str(model), "--to", scheme, "-o", str(tmp_path / scheme)]) == 0
        session = onnxruntime.InferenceSession(str(tmp_path / scheme / "model.onnx"))
        (got,) = session.run(None, {"x": np.ones((2, 64), np.float32)})
        assert not got.any()


def test_a_quantised_model_is_not_quantised_again(nano: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", str(nano), "--to", "int4", "-o", str(tmp_path / "once"), "--no-measure"]) == 0
    assert main(["quantize", str(tmp_path / "once"), "--to", "int8-weight", "-o", str(tmp_path / "twice"), "--no-measure"]) == 4
    assert "quantised already" in told(capsys) and not (tmp_path / "twice").exists()


def test_a_budget_puts_layers_back(nano: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["quantize", str(nano), "--to", "int4", "-o", str(tmp_path / "out"), "--max-drop", "0.5%", "--json"]
    assert main(words) == 0
    record = json.loads(capsys.readouterr().out)["quantization"]
    reverted = record["budget"]["reverted"]
    assert reverted and not set(reverted) & {layer["layer"] for layer in record["layers"]}
    assert record["budget"]["drop"] <= 0.005 and record["quality"]["perplexity"]["ratio"] <= 1.005
