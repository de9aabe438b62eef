"""The split: deterministic, and nothing on both sides."""

from itertools import islice
from random import Random

import pytest

from ernie_cli import nano
from ernie_cli.nano import data, facts, numerals, tasks


def training_prompts(count: int) -> set[str]:
    rng = Random("any")
    return {data.train_question(rng, 0, lang).prompt for _ in range(count // 2) for lang in tasks.LANGUAGES}


def test_the_same_seed_gives_the_same_texts():
    first = list(islice(data.training_stream(3), 50))
    assert first == list(islice(data.training_stream(3), 50))
    assert first != list(islice(data.training_stream(4), 50))


def test_no_held_out_question_is_ever_in_training():
    assert not training_prompts(30000) & {line["prompt"] for line in nano.heldout()}


def test_no_held_out_question_is_in_the_training_texts_or_in_the_calibration():
    held = {line["prompt"] for line in nano.heldout()}
    texts = ["".join(part.text for part in parts) for parts in islice(data.training_stream(0), 3000)]
    texts += [line["text"] for line in nano.calibration()]
    asked = {line.removeprefix("User: ") for text in texts for line in text.replace(data.chat.SEP, "\n").split("\n")}
    assert not held & asked


def test_every_fact_is_taught_in_some_phrasing():
    prompts = " ".join(training_prompts(20000))
    for row in facts.CAPITALS:
        assert row[0] in prompts and row[2] in prompts


def test_held_out_covers_every_task_in_both_languages_and_forms():
    lines = nano.heldout()
    assert len(lines) >= 400
    assert {(line["task"], line["lang"]) for line in lines} == {(task, lang) for task in tasks.TASKS for lang in tasks.LANGUAGES}
    assert {line["form"] for line in lines} == {"chat", "raw"}
    assert len({line["prompt"] for line in lines}) == len(lines)


@pytest.mark.parametrize("task", tasks.TASKS)
@pytest.mark.parametrize("lang", tasks.LANGUAGES)
def test_questions_are_filled_in(task, lang):
    rng = Random(0)
    for _ in range(100):
        question = tasks.draw(rng, task, lang)
        assert question.answer and "{" not in question.prompt + question.answer


@pytest.mark.parametrize(("n", "lang", "words"), [
    (0, "en", "zero"), (13, "en", "thirteen"), (40, "en", "forty"), (42, "en", "forty-two"),
    (0, "zh", "零"), (10, "zh", "十"), (13, "zh", "十三"), (40, "zh", "四十"), (42, "zh", "四十二"),
])  # fmt: skip
def test_numbers_in_words(n, lang, words):
    assert numerals.spelled(n, lang) == words


def test_arithmetic_is_right():
    rng = Random(0)
    for _ in range(300):
        for task, sign in ("add", 1), ("subtract", -1):
            question = tasks.draw(rng, task, "en")
            a, b = map(int, question.key.split("/")[1].split(","))
            assert int(question.answer) == a + sign * b


def test_sort_and_reverse_are_right():
    rng = Random(0)
    for _ in range(100):
        x = tasks.draw(rng, "sort", "zh")
        assert x.answer.split() == sorted(x.key.split("/")[1].split())
        y = tasks.draw(rng, "reverse", "zh")
        assert y.answer.split()[::-1] == y.key.split("/")[1].split()
