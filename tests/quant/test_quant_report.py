"""What a quantisation cost: each layer's SQNR, the whole model's loss, bytes, and how all that looks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quant_by_hand import INT4, INT8, conv_net, float_nano, names, pictures, quantised

from ernie_cli import console
from ernie_cli.errors import InputError
from ernie_cli.evaluate import texts
from ernie_cli.model import Model
from ernie_cli.onnxgraph.load import load
from ernie_cli.quant import layers
from ernie_cli.quant.codes import Codes, round_to_nearest
from ernie_cli.quant.report import files, outputs, quality, table
from ernie_cli.quant.report.harm import harm
from ernie_cli.quant.scheme import WeightFormat


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("report")
    whole = float_nano(folder / "float")
    return {"float": whole, "int4": quantised(whole, INT4, folder / "int4"), "int8": quantised(whole, INT8, folder / "int8")}


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("net")
    whole = conv_net(folder / "float")
    return {"float": whole, "int8": quantised(whole, INT8, folder / "int8")}


def lines(model: Model) -> list[texts.Text]:
    return texts.heldout(model.folder)[::24]


def feeds(model: Model) -> list[dict[str, np.ndarray]]:
    return [{"input_ids": np.array([text.ids], np.int64)} for text in lines(model)[:4]]


def ends(model: Model) -> dict[str, str]:
    known = names(model)
    return {name: str(node.outputs[0].name) for node in load(model).graph if (name := str(node.name)) in known}


# --- weights ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "form", "channel", "summed"),
    [
        ((256, 96), INT4, 1, 0), ((96, 256), INT4, 0, 1), ((256, 96), INT8, 1, 0), ((96, 256), INT8, 0, 1), ((7, 3), INT8, 1, 0),
        ((64, 8, 3, 3), INT8, 0, 1), ((8, 64, 3, 3), INT8, 1, 0), ((256, 96), WeightFormat("fp8"), 1, 0), ((64, 40000), INT4, 1, 0),
        ((40000, 64), INT8, 1, 0),
    ],
)  # fmt: skip
def test_sqnr_of_a_weight_is_that_of_its_dequantised_codes(shape: tuple[int, ...], form: WeightFormat, channel: int, summed: int) -> None:
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    codes = round_to_nearest(weight, form, channel, summed)
    gap = weight.astype(np.float64) - codes.dequantized()
    want = 10 * np.log10((weight.astype(np.float64) ** 2).sum() / (gap**2).sum())
    assert quality.weight_sqnr(weight, codes) == pytest.approx(want, abs=0.1 if weight.size > 1 << 20 else 1e-3)


def test_a_matrix_may_lie_across_its_codes() -> None:
    weight = np.random.default_rng(0).standard_normal((64, 96)).astype(np.float16)
    codes = round_to_nearest(weight, INT4, 1, 0)
    assert quality.weight_sqnr(weight.T, codes) == pytest.approx(quality.weight_sqnr(weight, codes), abs=1e-4)


def test_weights_without_noise_or_signal_have_finite_figures() -> None:
    zeros = np.zeros((32, 4), np.float32)
    nothing = Codes(zeros.astype(np.int8), np.ones(4, np.float32), 1)
    assert quality.weight_sqnr(zeros, nothing) == 200 and quality.weight_sqnr(zeros + 1, nothing) == 0
    assert quality.weight_sqnr(zeros, Codes(nothing.codes + np.int8(1), nothing.scale, 1)) == -200
    assert quality.weight_sqnr(zeros + np.nan, nothing) == -200
    assert quality.weight_sqnr(zeros[:0], Codes(nothing.codes[:0], nothing.scale, 1)) == 200


@pytest.mark.parametrize(
    ("signal", "noise", "db"), [(100, 1, 20), (1, 0, 200), (0, 1, -200), (0, 0, 200), (1, float("nan"), -200), (1e300, 1e-300, 200)]
)
def test_decibels(signal: float, noise: float, db: float) -> None:
    assert quality.sqnr_db(signal, noise) == db


# --- layers' outputs ----------------------------------------------------------------------------------------------------------------


def test_layers_of_nano_are_compared_on_data(nano: dict[str, Model]) -> None:
    where = ends(nano["float"])
    begins = {layer.name: str(layer.activation.name) for layer in layers.find(load(nano["float"]), _scheme())}
    four = outputs.layer_errors(nano["float"], nano["int4"], where, feeds(nano["float"]), inputs=begins)
    eight = outputs.layer_errors(nano["float"], nano["int8"], where, feeds(nano["float"]))
    assert list(four) == list(where) == names(nano["float"])
    assert all(10 < four[name]["output_sqnr_db"] < 30 < eight[name]["output_sqnr_db"] for name in where)
    assert four["model.layers.0.self_attn.q_proj"]["input_sqnr_db"] == 200  # nothing before it has lost anything
    assert 10 < four["lm_head"]["input_sqnr_db"] < 30 and four["lm_head"]["rms"] > 0


def test_values_are_seen_in_turns_where_they_are_too_many(nano: dict[str, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    where, some = ends(nano["float"]), feeds(nano["float"])[:2]
    at_once = outputs.layer_errors(nano["float"], nano["int4"], where, some)
    monkeypatch.setattr(outputs, "MAX_BYTES", 2_000_000)
    assert outputs.layer_errors(nano["float"], nano["int4"], where, some) == at_once
    monkeypatch.setattr(outputs, "fit_together", lambda models: False)
    assert outputs.layer_errors(nano["float"], nano["int4"], where, some) == at_once


def test_folded_factors_are_taken_out_and_strange_names_left_out(net: dict[str, Model]) -> None:
    same = outputs.layer_errors(net["float"], net["float"], {"fc": "scores", "no": "such"}, pictures())
    assert set(same) == {"fc"} and same["fc"]["output_sqnr_db"] == 200
    halved = outputs.layer_errors(net["float"], net["float"], {"fc": "scores"}, pictures(), folded={"scores": np.full(10, 2.0)})
    assert halved["fc"]["output_sqnr_db"] == 0  # the difference is as large as the signal
    assert outputs.layer_errors(net["float"], net["int8"], {"fc": "scores"}, []) == {}


def test_layers_of_a_net_are_compared_and_tried_alone(net: dict[str, Model]) -> None:
    found = outputs.layer_errors(net["float"], net["int8"], ends(net["float"]), pictures())
    assert list(found) == ["conv1", "conv2", "fc"] and all(25 < each["output_sqnr_db"] < 60 for each in found.values())
    alone = harm(net["float"], net["int8"], [*found, "unknown"], pictures())
    assert list(alone) == list(found) and all(0 < value < 1e-2 for value in alone.values())
    # Nothing lies behind the last layer: its harm is the noise of its own output.
    only = quantised(net["float"], INT8, net["float"].folder.parent / "only", reverted=["conv1", "conv2"])
    gap = outputs.layer_errors(net["float"], only, {"fc": "scores"}, pictures())["fc"]["output_sqnr_db"]
    assert 10 * np.log10(1 / alone["fc"]) == pytest.approx(gap, abs=3)  # onnxruntime rounds activations, too, where it can
    assert harm(net["float"], net["int8"], list(found), pictures(), seconds=0) == {} == harm(net["float"], net["int8"], list(found), [])


# --- the whole model ----------------------------------------------------------------------------------------------------------------


def test_the_loss_of_a_language_model(nano: dict[str, Model]) -> None:
    told = lines(nano["float"])
    four, eight = (quality.measure(nano["float"], nano[name], [], texts=told) for name in ("int4", "int8"))
    assert four["perplexity"]["before"] == eight["perplexity"]["before"] and four["kl"] > eight["kl"] > 0
    assert four["perplexity"]["ratio"] == pytest.approx(four["perplexity"]["after"] / four["perplexity"]["before"])
    assert eight["top1"] > four["top1"] > 0.7 and eight["perplexity"]["ratio"] < 1.01
    assert eight["exact_match"]["before"] > 0.8 and abs(eight["exact_match"]["after"] - eight["exact_match"]["before"]) < 0.1
    assert eight["answers"] == len(told) and eight["answer_perplexity"]["before"] < eight["perplexity"]["before"]
    json.dumps(four, allow_nan=False)


@pytest.mark.parametrize(("metric", "field"), [("perplexity", None), ("kl", "kl"), ("top1", "top1"), ("exact-match", None)])
def test_a_judge_measures_what_the_report_says(nano: dict[str, Model], metric: str, field: str | None) -> None:
    told = lines(nano["float"])[:3]
    measure, baseline = quality.judge(nano["float"], metric, [], texts=told)
    whole = quality.measure(nano["float"], nano["int8"], [], texts=told)
    want = whole[field] if field else whole[metric.replace("-", "_")]["after"]
    assert measure(nano["int8"]) == pytest.approx(want, rel=1e-4)
    assert baseline == pytest.approx({"kl": 0.0, "top1": 1.0}.get(metric) if field else whole[metric.replace("-", "_")]["before"], rel=1e-4)


def test_texts_without_answers_cannot_be_matched(nano: dict[str, Model]) -> None:
    with pytest.raises(InputError, match="no answers"):
        quality.judge(nano["float"], "exact-match", [], texts=[texts.Text((1, 5, 9, 11))])


def test_the_loss_of_a_net(net: dict[str, Model]) -> None:
    found = quality.measure(net["float"], net["int8"], pictures())
    assert set(found["outputs"]) == {"scores", "features"}
    assert all(0.999 < each["cosine"] < 1 and each["snr_db"] > 25 for each in found["outputs"].values())
    measure, baseline = quality.judge(net["float"], "cosine", pictures())
    assert measure(net["float"]) == pytest.approx(1.0) and baseline == 1.0
    assert measure(net["int8"]) == min(each["cosine"] for each in found["outputs"].values())


def test_bytes_before_and_after(nano: dict[str, Model]) -> None:
    found = files.bytes_of(nano["float"], nano["int4"])
    assert found["files"]["before"] == (nano["float"].folder / "model.onnx").stat().st_size
    assert found["files"]["after"] == sum(file.stat().st_size for file in files.weight_files(nano["int4"]))
    assert (
        found["weights"]["ratio"] == pytest.approx(found["weights"]["after"] / found["weights"]["before"], abs=1e-4)
        and found["files"]["ratio"] < 0.4
    )
    from ernie_cli import nano as embedded

    checkpoint = Model.open(embedded.path())
    assert files.weight_bytes(checkpoint) == sum(file.stat().st_size for file in embedded.path().glob("*.safetensors"))
    assert files.is_decoder(nano["int4"]) and not files.is_decoder(checkpoint)


def test_weights_in_a_file_of_their_own_count(tmp_path: Path) -> None:
    import onnx

    model = conv_net(tmp_path / "net")
    proto = onnx.load(model.main_file())
    for tensor in proto.graph.initializer:
        onnx.external_data_helper.set_external_data(tensor, "weights.bin")
    (tmp_path / "two").mkdir()
    onnx.save(proto, tmp_path / "two" / "net.onnx")
    assert [file.name for file in files.weight_files(Model.open(tmp_path / "two"))] == ["net.onnx", "weights.bin"]
    assert files.weight_bytes(Model.open(tmp_path / "two")) == files.weight_bytes(model)


# --- how it looks -------------------------------------------------------------------------------------------------------------------

_RECORD: dict[str, Any] = {
    "scheme": "int4",
    "layers": [
        {"layer": f"model.layers.{at}.mlp.down_proj", "bytes": [196608, 30720], "weight_sqnr_db": 20.0, "output_sqnr_db": 40.0 - at}
        for at in range(20)
    ],
    "data": {"said": "144 of 192 embedded lines", "random": False},
    "quality": {
        "kind": "language", "perplexity": {"before": 2.451, "after": 2.4702, "ratio": 1.0078}, "kl": 0.0021, "top1": 0.9861,
        "answer_perplexity": {"before": 1.04, "after": 1.041, "ratio": 1.001},
        "exact_match": {"before": 0.975, "after": 0.973}, "answers": 407,
    },
    "bytes": {
        "files": {"before": 6725623, "after": 2611000, "ratio": 0.3882}, "weights": {"before": 6691480, "after": 2583772, "ratio": 0.386},
    },
    "speed": {
        "before": {"prefill_tok_s": 1790.0, "decode_tok_s": 700.2}, "after": {"prefill_tok_s": 1510.0, "decode_tok_s": 903.3},
        "ratio": {"prefill": 0.844, "decode": 1.29}, "how": "medians of 7 rounds",
    },
    "budget": {"metric": "perplexity", "drop": 0.0078, "max_drop": 0.01, "reverted": ["lm_head"]},
    "seconds": 12.34,
}  # fmt: skip


def said(record: dict[str, Any], capsys: pytest.CaptureFixture[str], **options: bool) -> str:
    console.result(table.render(record, **options))
    return capsys.readouterr().out


def test_a_record_reads_well(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(_RECORD, capsys)
    rows = text.splitlines()
    assert max(map(len, rows)) <= 100 and "\x1b" not in text
    assert rows[2].split()[0] == "model.layers.19.mlp.down_proj" and "… 5 more, all at 36 dB or above" in text
    for figure in ("2.451 → 2.470 (×1.0078)", "0.0021 nats", "98.61%", "97.5% → 97.3% of 407", "6.7 → 2.6 MB (0.39×)", "700 → 903 tok/s",
                   "0.84×, not faster here", "0.78% lost of 1% allowed", "1 of 21 layers stay in float: lm_head", "12.3 s"):  # fmt: skip
        assert figure in text


def test_all_layers_are_shown_when_asked_for(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(_RECORD, capsys, everything=True).count("down_proj") == 20
    monkeypatch.setattr(console.settings, "verbosity", 1)
    assert said(_RECORD, capsys).count("down_proj") == 20


def test_harm_goes_before_sqnr(capsys: pytest.CaptureFixture[str]) -> None:
    records = [{**each, "harm": 1e-3 / (1 + at)} for at, each in enumerate(_RECORD["layers"])]
    rows = said({**_RECORD, "layers": records}, capsys).splitlines()
    assert "harm" in rows[1] and rows[2].split()[0] == "model.layers.0.mlp.down_proj" and "1.0e-03" in rows[2]


def test_random_calibration_is_said_in_red_and_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    record = {**_RECORD, "data": {"said": "noise", "random": True}}
    terminal = Console(force_terminal=True, color_system="standard", width=100)
    with terminal.capture() as lines:
        terminal.print(table.render(record))
    assert "\x1b[1;31mRANDOM NUMBERS" in lines.get() and "RANDOM NUMBERS" in said(record, capsys)
    assert any("random" in each for each in table.warnings(record)) and not any("random" in each for each in table.warnings(_RECORD))


def test_names_are_shortened_where_they_are_alike_but_stay_apart() -> None:
    long = [f"/model/resnet/encoder/stages.{at}/layers.0/layer/layer.{at % 2}/convolution/Conv" for at in range(4)]
    found = table.shortened([*long, "/model/resnet/embedder/Conv"])
    assert len(set(found.values())) == 5 and found["/model/resnet/embedder/Conv"] == "embedder/Conv"
    assert all(len(name) < 60 and name.startswith("encoder/stages.") for name in map(found.__getitem__, long))
    assert table.shortened(["lm_head"]) == {"lm_head": "lm_head"} and table.shortened(["model.a", "model.b"])["model.a"] == "model.a"
    assert table.shortened([]) == {} and len(table.shortened(["x" * 300, "x" * 301])) == 2


def test_names_of_layers_cannot_drive_the_terminal_nor_break_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    odd = [{"layer": "\x1b[31m[red]" + "x" * 200, "bytes": 12, "weight_sqnr_db": 200.0}, {"layer": "字" * 60, "weight_sqnr_db": -200.0}]
    text = said({"layers": odd}, capsys)
    assert "\x1b" not in text and "[red]" in text and max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    "record", [{}, {"scheme": "int4"}, {"layers": []}, {"layers": [{"layer": "a"}]}, {"quality": {"outputs": {}}, "speed": None}]
)
def test_what_was_not_measured_is_left_out(record: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert "nan" not in said(record, capsys) and table.warnings(record) == []


def test_outputs_of_a_net_have_a_table(net: dict[str, Model], capsys: pytest.CaptureFixture[str]) -> None:
    found = quality.measure(net["float"], net["int8"], pictures())
    text = said({"quality": found}, capsys)
    assert "scores" in text and "features" in text and "cosine" in text
    one = {"outputs": {"scores": {**found["outputs"]["scores"], "snr_db": None}}}
    assert "scores: cosine 0.99" in said({"quality": one}, capsys) and "exact" in said({"quality": one}, capsys)


@pytest.mark.parametrize(("db", "cells"), [(-200, 0), (0, 0), (25, 7), (50, 14), (200, 14)])
def test_bars(db: float, cells: int) -> None:
    assert table.bar(db) == "█" * cells


def _scheme() -> Any:
    from ernie_cli.quant.scheme import find

    return find("int4")
