"""Language models in every format, measured against what transformers and torch say about the same tokens."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluate_models import converted, random_texts, torch_logits, torch_nats
from tiny_checkpoint import make_checkpoint

from ernie_cli import nano
from ernie_cli.errors import InputError, UsageError
from ernie_cli.evaluate import language, rows, texts, windows
from ernie_cli.evaluate.texts import Text
from ernie_cli.model import Model

LENGTHS = (5, 60, 17, 17, 2, 33, 1, 17)
#: Format and options of a decoder; None: the checkpoint itself, converted in the cache.
FORMS: dict[str, tuple[str, dict[str, Any]] | None] = {
    "checkpoint": None,
    "static": ("onnx", {"kv_cache": "static"}),
    "growing": ("onnx", {"kv_cache": "growing"}),
    "static, all logits": ("onnx", {"kv_cache": "static", "all_logits": True}),
    "growing, all logits": ("onnx", {"kv_cache": "growing", "all_logits": True}),
    "torchscript": ("torchscript", {}),
    "pdmodel": ("pdmodel", {}),
}
NEEDS = {"torchscript": "torch", "pdmodel": "paddle"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("tiny") / "hf"
    return folder, make_checkpoint(folder)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Another model with the same vocabulary."""
    folder = tmp_path_factory.mktemp("other") / "hf"
    return folder, make_checkpoint(folder, seed=1, num_hidden_layers=1)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ERNIE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def form(tiny: tuple[Path, Any]) -> Callable[[str], Model]:
    made: dict[str, Model] = {}

    def make(name: str) -> Model:
        if name not in made:
            wanted = FORMS[name]
            made[name] = Model.open(tiny[0]) if wanted is None else converted(tiny[0], wanted[0], **wanted[1])
        return made[name]

    return make


@pytest.mark.parametrize("name", FORMS)
def test_every_format_gives_the_perplexity_of_transformers(form: Callable[[str], Model], tiny: tuple[Path, Any], name: str) -> None:
    if importlib.util.find_spec(NEEDS.get(name, "numpy")) is None:
        pytest.skip(f"{NEEDS[name]} is not installed")
    lengths = LENGTHS[2:5] if name == "pdmodel" else LENGTHS  # a process of its own takes each step there
    chosen = random_texts(*lengths)
    score = language.measure(form(name), chosen)
    nats = [each for text in chosen for each in torch_nats(tiny[1], text.ids)]
    assert score.full.tokens == len(nats) == sum(lengths) - len(lengths)
    assert score.full.perplexity == pytest.approx(np.exp(np.mean(nats)), rel=1e-5)
    assert score.answer is None and score.exact_match is None


@pytest.mark.parametrize("name", ["static", "growing"])
def test_kl_and_agreement_are_torchs(form: Callable[[str], Model], tiny: tuple[Path, Any], other: tuple[Path, Any], name: str) -> None:
    from torch.nn.functional import kl_div

    chosen = random_texts(*LENGTHS)
    score = language.measure(form(name), chosen, reference=Model.open(other[0]))
    kl, agrees = [], []
    for text in chosen:
        mine, theirs = (torch_logits(net, text.ids)[:-1].double().log_softmax(-1) for net in (tiny[1], other[1]))
        kl += kl_div(mine, theirs, log_target=True, reduction="none").sum(-1).tolist()
        agrees += (mine.argmax(-1) == theirs.argmax(-1)).tolist()
    assert score.full.kl == pytest.approx(np.mean(kl), rel=1e-5) and score.full.top1 == pytest.approx(np.mean(agrees))
    nats = [each for text in chosen for each in torch_nats(other[1], text.ids)]
    assert score.full.reference_perplexity == pytest.approx(np.exp(np.mean(nats)), rel=1e-5)
    assert score.full.ratio == pytest.approx(score.full.perplexity / np.exp(np.mean(nats)), rel=1e-5)


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_narrow_models_are_measured_too(tiny: tuple[Path, Any], form: Callable[[str], Model], dtype: str) -> None:
    score = language.measure(converted(tiny[0], dtype=dtype), random_texts(*LENGTHS), reference=form("static"))
    assert score.main.kl and 0 < score.main.kl < 0.01 and score.main.ratio == pytest.approx(1, abs=0.05)


def test_a_model_loses_nothing_against_itself(form: Callable[[str], Model]) -> None:
    full = language.measure(form("static"), random_texts(*LENGTHS), reference=form("growing")).full
    assert full.kl == pytest.approx(0, abs=1e-9) and full.top1 == 1.0 and full.ratio == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("name", ["static", "growing"])
def test_batches_and_pieces_change_nothing(form: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    chosen = random_texts(*LENGTHS)
    whole = language.measure(form(name), chosen).full.perplexity
    for batch in (1, 3):
        assert language.measure(form(name), chosen, batch=batch).full.perplexity == pytest.approx(whole, rel=1e-6)
    monkeypatch.setattr(windows, "BATCH_TOKENS", 40)
    monkeypatch.setattr(rows, "LOGITS_BYTES", 320 * 4 * 9)  # nine tokens of logits
    assert language.measure(form(name), chosen).full.perplexity == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize(("length", "context"), [(256, 256), (257, 256), (700, 256), (385, 256)])
def test_texts_longer_than_the_context_are_read_in_windows(
    form: Callable[[str], Model], tiny: tuple[Path, Any], length: int, context: int
) -> None:
    """Each token is scored once, with at least half a window before it."""
    text = random_texts(length)[0]
    nats, begin, scored = [], 0, 1
    while scored < length:
        stop = min(begin + context, length)
        nats += torch_nats(tiny[1], text.ids[begin:stop])[scored - begin - 1 :]
        begin, scored = begin + context // 2, stop
    score = language.measure(form("static"), [text])
    assert score.full.tokens == len(nats) == length - 1
    assert score.full.perplexity == pytest.approx(np.exp(np.mean(nats)), rel=1e-5)
    assert (score.windows > 0) == (length > context)


def test_the_model_s_folder_is_left_as_it_was(form: Callable[[str], Model]) -> None:
    folder = form("static").folder
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    language.measure(form("static"), random_texts(9))
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before


def test_different_vocabularies_are_named(form: Callable[[str], Model], tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "hf", vocab_size=400)
    with pytest.raises(UsageError, match=r"vocabulary of 320 tokens, .* one of 400"):
        language.measure(form("static"), random_texts(9), reference=Model.open(tmp_path / "hf"))


@pytest.mark.parametrize(("chosen", "said"), [([Text((1, 320), where="line 7")], "line 7: token 320"), ([Text((1,))], "no text has two")])
def test_texts_that_do_not_fit_the_model(form: Callable[[str], Model], chosen: list[Text], said: str) -> None:
    with pytest.raises(InputError, match=said):
        language.measure(form("static"), chosen)


def test_what_a_context_of_one_token_could_predict(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "hf", max_position_embeddings=256)
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    made = converted(tmp_path / "hf")
    (made.folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 1}))
    with pytest.raises(InputError, match="its context holds 1 token"):
        language.measure(made, random_texts(9))


@pytest.mark.parametrize("context", [2, 3, 4, 7])
@pytest.mark.parametrize("length", [1, 2, 3, 8, 20])
def test_windows_score_every_token_once(length: int, context: int) -> None:
    cut = windows.cut(random_texts(length), context)
    assert [place for each in cut for place in range(each.new, each.stop)] == list(range(1, length))
    assert all(each.start < each.new and each.length <= context for each in cut)


def test_answers_that_do_not_fit_the_context_are_not_asked_for(tmp_path: Path) -> None:
    import shutil

    shutil.copytree(nano.path(), tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 16}))
    chosen = texts.heldout(nano.path(), 12)
    score = language.measure(Model.open(tmp_path / "hf"), chosen)
    long = sum(len(text.ids) > 16 for text in chosen)
    assert 0 < long == score.unasked and score.asked == 12 - long
    assert score.answer is not None and score.answer.tokens == sum(text.answer for text in chosen)
