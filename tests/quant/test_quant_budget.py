"""`--max-drop`: what it takes, how few layers it reverts, and that what it keeps was measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from quant_by_hand import INT4, conv_net, float_nano, names, pictures, quantised

from ernie_cli.errors import QualityError, UsageError
from ernie_cli.evaluate import texts
from ernie_cli.model import Model
from ernie_cli.quant import budget
from ernie_cli.quant.report import quality
from ernie_cli.quant.report.harm import harm


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("1%", 0.01),
        ("0.01", 0.01),
        (" 0.5 % ", 0.005),
        ("0", 0.0),
        ("0%", 0.0),
        ("100%", 1.0),
        (".5", 0.5),
        ("1e-3", 0.001),
        ("2.5%", 0.025),
    ],
)
def test_a_drop_is_a_share_or_a_percentage(text: str, share: float) -> None:
    assert budget.parse_drop(text) == pytest.approx(share)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "1%"), ("%", "1%"), ("a lot", "1%"), ("-1%", "1%"),
        ("-0.1", "1%"), ("nan", "1%"), ("inf%", "1%"), ("1_0%", "1%"), ("1%%", "1%"),
        ("101%", "1%"), ("٣%", "1%"), ("1e9%", "1%"), ("9" * 400, "1%"), ("0x1", "1%"), ("1", "--max-drop 1%"), ("2", "--max-drop 2%"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_an_example(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as err:
        budget.parse_drop(text)
    assert hint in err.value.hint


@pytest.mark.parametrize(
    ("metric", "baseline", "value", "drop"),
    [
        ("perplexity", 2.0, 2.02, 0.01), ("perplexity", 2.0, 1.9, -0.05), ("top1", 1.0, 0.98, 0.02), ("cosine", 1.0, 0.999, 0.001),
        ("exact-match", 0.9, 0.88, 0.02), ("kl", 0.0, 0.03, 0.03),
    ],
)  # fmt: skip
def test_how_a_drop_is_counted(metric: str, baseline: float, value: float, drop: float) -> None:
    assert budget.METRICS[metric].drop(baseline, value) == pytest.approx(drop)
    assert budget.METRICS[metric].higher_is_better == (metric not in ("perplexity", "kl"))


@pytest.mark.parametrize(("name", "language", "found"), [("auto", True, "perplexity"), ("auto", False, "cosine"), ("top1", False, "top1")])
def test_which_metric_a_model_has(name: str, language: bool, found: str) -> None:
    assert budget.choose(name, language=language) == found


@pytest.mark.parametrize(
    ("name", "language", "said"),
    [("perplexity", False, "has none"), ("cosine", True, "has none"), ("perplexty", True, "mean --metric perplexity")],
)
def test_which_it_has_not(name: str, language: bool, said: str) -> None:
    with pytest.raises(UsageError) as err:
        budget.choose(name, language=language)
    assert said in err.value.message + err.value.hint


class Scripted:
    """A quantisation whose loss is a function of how many of the worst layers are reverted. Notes what is asked of it."""

    def __init__(self, loss: Callable[[int], float], count: int = 40) -> None:
        self.loss, self.damage = loss, [f"layer{at}" for at in range(count)]
        self.built: list[int] = []

    def build(self, reverted: frozenset[str]) -> Model:
        assert reverted == set(self.damage[: len(reverted)])
        self.built.append(len(reverted))
        return Model(Path(str(len(reverted))), "onnx")

    def measure(self, model: Model) -> float:
        return 1 + self.loss(int(str(model.path)))

    def fit(self) -> budget.Fitted:
        return budget.fit(self.build, self.measure, 1.0, self.damage, 0.01)


@pytest.mark.parametrize("needed", range(40))
def test_the_fewest_layers_are_reverted_where_each_helps(needed: int) -> None:
    script = Scripted(lambda count: 0.0 if count >= needed else 0.5)
    found = script.fit()
    assert list(found.reverted) == script.damage[:needed]
    assert script.built[-1] == needed == int(str(found.model.path)) and found.drop == found.tried[-1][1] <= 0.01
    assert len(script.built) <= 2 * 7 + 2 and len(set(script.built)) >= len(script.built) - 1


def test_nothing_is_reverted_or_ranked_where_the_model_fits_at_once() -> None:
    script = Scripted(lambda count: 0.005)
    first = Model(Path("0"), "onnx")
    found = budget.fit(script.build, script.measure, 1.0, lambda: pytest.fail("harm was measured"), 0.01, first=first)
    assert found.reverted == () and found.model is first and script.built == []


def test_layers_are_ranked_when_they_are_needed() -> None:
    script = Scripted(lambda count: 0.02 - 0.01 * count)
    found = budget.fit(script.build, script.measure, 1.0, lambda: script.damage, 0.01)
    assert found.reverted == ("layer0",)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_kept_was_measured_last_though_reverting_may_hurt(seed: int) -> None:
    """A loss that goes up and down: the result fits by its own measurement, whatever else there was."""
    script = Scripted(lambda count: 0.0 if count > 37 or (count * 7 + seed) % 5 == 0 else 0.5)
    found = script.fit()
    assert found.drop == 0.0 and script.built[-1] == len(found.reverted) and found.tried[-1] == (len(found.reverted), 0.0)


@pytest.mark.parametrize(("count", "reverted"), [(40, 6), (6, None)])
def test_where_it_does_not_fit_when_built_again_it_goes_on_one_by_one(count: int, reverted: int | None) -> None:
    script, seen = Scripted(lambda count: 0.0, count), []

    def measure(model: Model) -> float:
        seen.append(int(str(model.path)))
        return 1.5 if seen[-1] < 4 or (seen[-1] in (4, 5) and len(seen) > 5) else 1.0

    if reverted is None:
        with pytest.raises(QualityError):
            budget.fit(script.build, measure, 1.0, script.damage, 0.01)
    else:
        found = budget.fit(script.build, measure, 1.0, script.damage, 0.01)
        assert len(found.reverted) == reverted and found.tried[-1] == (reverted, 0.0)
    assert seen == [0, 1, 2, 4, 3, 4, 5, 6][: 8 if reverted else 7]


@pytest.mark.parametrize("loss", [0.2, float("nan"), float("inf")])
def test_a_budget_that_cannot_be_met_ends_with_the_quality_code(loss: float) -> None:
    """All layers in float are the float model, which meets any budget and is not what was asked for."""
    script = Scripted(lambda count: loss if count < 40 else 0.0)
    with pytest.raises(QualityError) as err:
        script.fit()
    assert err.value.exit_code == 6 and "with 39 of 40 layers in float" in err.value.message and 40 not in script.built
    assert ("--max-drop 21% keeps" in err.value.hint) == (loss == 0.2)


def test_without_layers_to_revert_it_says_what_was_lost() -> None:
    with pytest.raises(QualityError, match="cannot be met"):
        Scripted(lambda count: 0.2, count=0).fit()


def test_nano_in_4_bits_gives_back_the_layers_that_hurt(tmp_path: Path) -> None:
    before = float_nano(tmp_path / "float")
    lines = texts.heldout(before.folder)[::16]
    after = quantised(before, INT4, tmp_path / "int4")
    feeds = [{"input_ids": np.array([each.ids], np.int64)} for each in lines[:2]]
    found = harm(before, after, names(before), feeds)
    ranked = quality.by_damage([{"layer": name, "harm": value} for name, value in found.items()])
    assert set(ranked) == set(names(before)) and ranked[0] == "lm_head" and min(found.values()) > 0
    measure, baseline = quality.judge(before, "kl", [], texts=lines)

    def build(reverted: frozenset[str]) -> Model:
        return quantised(before, INT4, tmp_path / "made", reverted=reverted)

    allowed = measure(after) / 2
    fitted = budget.fit(build, measure, baseline, ranked, allowed, metric="kl", first=after)
    assert 0 < len(fitted.reverted) < len(ranked) / 2 and fitted.reverted == tuple(ranked[: len(fitted.reverted)])
    assert fitted.value <= allowed < fitted.tried[0][1] and measure(fitted.model) == fitted.value
    left = set(names(fitted.model))
    assert left == set(fitted.reverted)  # what is float still, and nothing else


def test_a_net_keeps_its_cosine(tmp_path: Path) -> None:
    before = conv_net(tmp_path / "net")
    measure, baseline = quality.judge(before, "cosine", pictures())

    def build(reverted: frozenset[str]) -> Model:
        return quantised(before, INT4, tmp_path / "made", reverted=reverted)

    found = harm(before, build(frozenset()), names(before), pictures())
    ranked = quality.by_damage([{"layer": name, "harm": value} for name, value in found.items()])
    fitted = budget.fit(build, measure, baseline, ranked, 1e-5, metric="cosine")
    assert fitted.reverted and fitted.drop <= 1e-5 < fitted.tried[0][1]
    with pytest.raises(QualityError):
        budget.fit(lambda _: build(frozenset()), measure, baseline, ranked, 1e-9, metric="cosine")
