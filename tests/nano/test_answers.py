"""The shipped weights answer, measured with transformers; and the scoring itself, measured with a fake."""

import json

import pytest

from ernie_cli import nano
from ernie_cli.nano import chat, evaluate
from ernie_cli.nano.tokenizer import EOS_ID, SEP_ID, Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(nano.path())


@pytest.fixture(scope="module")
def reference():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from ernie_cli.nano.reference import Reference

    return Reference(nano.path())


@pytest.fixture(scope="module")
def stated() -> dict:
    return json.loads((nano.path().parent / "metrics.json").read_text(encoding="utf-8"))["heldout"]


def test_nano_answers_what_it_has_never_seen(reference, stated):
    score = reference.score(nano.heldout())
    assert score.exact_match >= 0.90
    assert min(score.by_lang.values()) >= 0.90
    assert min(score.by_form.values()) >= 0.90
    # Another processor may round another way; a handful of close calls may then turn.
    assert score.exact_match == pytest.approx(stated["exact_match"], abs=0.01)


def test_perplexity_is_as_stated(reference, stated):
    perplexity = reference.perplexity(nano.heldout())
    assert perplexity.answer == pytest.approx(stated["perplexity"]["answer"], rel=0.01)
    assert perplexity.full == pytest.approx(stated["perplexity"]["full"], rel=0.01)
    assert perplexity.answer < perplexity.full


SAID = [
    ([{"role": "user", "content": "12 + 7 ="}], "19"),
    ([{"role": "user", "content": "中国的首都是哪里？"}], "北京"),
    (
        [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "What is the opposite of hot?"},
            {"role": "assistant", "content": "cold"},
            {"role": "user", "content": "What is the capital of Japan?"},
        ],
        "Tokyo",
    ),
]


@pytest.mark.parametrize(("messages", "expected"), SAID)
def test_nano_answers_and_stops(reference, tokenizer, messages, expected):
    import torch

    ids = tokenizer.encode(chat.render(messages))
    out = reference.model.generate(input_ids=torch.tensor([ids]), max_new_tokens=24, do_sample=False)[0, len(ids) :].tolist()
    assert out[-1] == EOS_ID
    assert evaluate.clean(out, tokenizer) == expected


EXAMPLES = [
    {"prompt": "12 + 7 =", "answer": "19", "task": "add", "lang": "en", "form": "raw"},
    {"prompt": "法国的首都是", "answer": "巴黎", "task": "capital", "lang": "zh", "form": "chat"},
]


def test_a_perfect_generate_scores_one(tokenizer):
    right = {chat.prompt_text(x): tokenizer.encode(chat.answer_text(x)) for x in EXAMPLES}
    score = evaluate.score(lambda ids: [*right[tokenizer.decode(ids)], SEP_ID, 99, 98], tokenizer, EXAMPLES)
    assert (score.exact_match, score.lines, score.misses) == (1.0, 2, [])


def test_a_wrong_answer_is_counted_and_shown(tokenizer):
    score = evaluate.score(lambda ids: [*tokenizer.encode("19"), EOS_ID], tokenizer, EXAMPLES)
    assert score.exact_match == 0.5
    assert score.by_lang == {"en": 1.0, "zh": 0.0}
    assert [(miss["prompt"], miss["given"]) for miss in score.misses] == [("法国的首都是", "19")]


def test_perplexity_of_a_uniform_model_is_its_vocabulary(tokenizer):
    numpy = pytest.importorskip("numpy")
    perplexity = evaluate.perplexity(lambda ids: numpy.zeros((len(ids), 1536)), tokenizer, EXAMPLES)
    assert perplexity.answer == pytest.approx(1536)
    assert perplexity.full == pytest.approx(1536)
    assert perplexity.answer_tokens < perplexity.full_tokens
