"""Speeds before and after: that they are measured in turns, said in figures, and doubted where nothing is gained. No seconds asserted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quant_by_hand import INT4, INT8, conv_net, float_nano, pictures, quantised

from ernie_cli.errors import UsageError
from ernie_cli.model import Model
from ernie_cli.quant.report import speed


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Model]:
    folder = tmp_path_factory.mktemp("speed")
    whole = float_nano(folder / "float")
    return whole, quantised(whole, INT4, folder / "int4")


def test_a_decoder_reads_and_writes(nano: tuple[Model, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "ROUNDS", 3)
    found = speed.measure(*nano)
    assert set(found["before"]) == set(found["after"]) == {"prefill_tok_s", "decode_tok_s"} and found["kind"] == "decoder"
    for name in ("prefill", "decode"):
        assert found["ratio"][name] == pytest.approx(found["after"][f"{name}_tok_s"] / found["before"][f"{name}_tok_s"], rel=0.02)
    assert found["rounds"] == 3 and "128 + 32 tokens" in found["how"] and "in turns" in found["how"]
    json.dumps(found, allow_nan=False)


def test_large_models_are_open_one_at_a_time_and_stop_early(nano: tuple[Model, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "fit_together", lambda models: False)
    found = speed.measure(*nano, seconds=0)
    assert found["rounds"] == 1 and "one model open at a time" in found["how"] and found["before"]["decode_tok_s"] > 0


def test_a_graph_runs_on_data_or_on_plausible_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "ROUNDS", 3)
    whole = conv_net(tmp_path / "net")
    narrow = quantised(whole, INT8, tmp_path / "int8")
    for feeds in (pictures()[0], None):
        found = speed.measure(whole, narrow, feeds=feeds)
        assert found["kind"] == "graph" and set(found["ratio"]) == {"run"} and found["before"]["ms"] > 0 < found["after"]["ms"]


def test_two_kinds_of_models_have_no_common_speed(nano: tuple[Model, Model], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="decoder"):
        speed.measure(nano[0], conv_net(tmp_path / "net"))


def test_small_contexts_are_filled_as_far_as_they_go(nano: tuple[Model, Model], tmp_path: Path) -> None:
    small = quantised(nano[0], INT8, tmp_path / "small")
    config = json.loads((small.folder / "config.json").read_text())
    (small.folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 10}))
    runner = speed._Decoder(Model.open(small.folder), "cpu")
    assert (runner.prefill, runner.decode) == (5, 5) and set(runner.round()) == {"prefill", "decode"}
    runner.close()


def record(**ratio: float) -> dict[str, Any]:
    before = {"prefill_tok_s": 100.0, "decode_tok_s": 10.0, "ms": 4.0}
    after = {f"{name}_tok_s": before[f"{name}_tok_s"] * each for name, each in ratio.items() if name != "run"}
    return {"ratio": ratio, "before": before, "after": {**after, "ms": 4.0 / ratio.get("run", 1)}}


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        ({"prefill": 1.4, "decode": 1.5}, []),
        ({"run": 1.8}, []),
        ({"run": 0.8}, ["not faster here", "0.80×", "4 → 5 ms", "int8 pays"]),
        ({"run": 1.0}, ["not faster here: 1.00×"]),
        ({"prefill": 0.5, "decode": 1.3}, ["prefill 0.50× (100 → 50 tok/s)", "decode is, 1.30×"]),
        ({"prefill": 0.5, "decode": 0.8}, ["prefill 0.50×", "decode 0.80× (10 → 8 tok/s)"]),
    ],
)
def test_what_is_not_faster_is_said_plainly(ratio: dict[str, float], said: list[str]) -> None:
    text = speed.warning(record(**ratio), frozenset({"int8"}))
    assert all(each in text for each in said) and bool(text) == bool(said)


@pytest.mark.parametrize(("kind", "said"), [("fp8", "8.9"), ("int8", "VNNI"), ("int4", "GPUs"), ("", "not faster")])
def test_it_says_where_it_would_be(kind: str, said: str) -> None:
    assert said in speed.warning(record(run=0.5), frozenset({kind}))
    assert "hardly waits for memory" in speed.warning(record(run=0.5), frozenset({kind}), 5_000_000)


@pytest.mark.parametrize(
    ("pair", "said"), [((700.2, 903.3), "700 → 903"), ((12.34, 4.567), "12.3 → 4.57"), ((99.6, 0.0123), "100 → 0.0123")]
)
def test_figures_have_as_many_digits_as_they_deserve(pair: tuple[float, float], said: str) -> None:
    assert speed.arrow(*pair) == said


def test_plausible_inputs_fit(tmp_path: Path) -> None:
    from ernie_cli.runtime.graphs import open_graph

    session = open_graph(conv_net(tmp_path / "net"))
    found = speed.plausible(session)
    assert found["pixels"].shape[1:] == (3, 16, 16) and found["pixels"].dtype == np.float32
