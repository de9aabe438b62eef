"""The split, and the texts on each side of it. Everything is a pure function of the seed.

Draws from `tasks.py`; writes nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from random import Random

from . import chat, facts, tasks
from .tasks import LANGUAGES, TASKS, Question

HELD_OUT_PERCENT = 15
HELD_OUT_PER_TASK = 14  # for each language, at most: some tables are too small for so many
HELD_OUT_DRAWS = 4000  # then a small table has shown all it has
CALIBRATION_TEXTS = 192
RAW_SHARE = 0.3


@dataclass(frozen=True)
class Segment:
    """A piece of a training text, tokenised on its own; `answer` pieces are what the model is mostly trained on."""

    text: str
    answer: bool = False
    stop: bool = False  # `</s>` follows: the conversation ends here


def is_held_out(key: str, seed: int) -> bool:
    """Whether a question's content belongs to the held-out side; an empty key never does. A hash, so no list is kept."""
    return bool(key) and int(sha256(f"{seed}/{key}".encode()).hexdigest(), 16) % 100 < HELD_OUT_PERCENT


def train_question(rng: Random, seed: int, lang: str) -> Question:
    """One random question from the training side, tasks weighted as in `TASKS`."""
    names, weights = list(TASKS), [weight for _, weight in TASKS.values()]
    while True:
        question = tasks.draw(rng, rng.choices(names, weights)[0], lang)
        if not is_held_out(question.key, seed):
            return question


def held_out(seed: int, per_task: int = HELD_OUT_PER_TASK) -> list[dict[str, str]]:
    """The held-out lines: up to `per_task` for each task and language, every third in raw form. A larger number adds lines."""
    lines: list[dict[str, str]] = []
    for task in TASKS:
        for lang in LANGUAGES:
            rng, seen = Random(f"{seed}/heldout/{task}/{lang}"), set[str]()
            for _ in range(HELD_OUT_DRAWS):
                question = tasks.draw(rng, task, lang)
                if len(seen) == per_task or question.prompt in seen or not is_held_out(question.key, seed):
                    continue
                form = "raw" if len(seen) % 3 == 2 else "chat"
                seen.add(question.prompt)
                lines.append({"prompt": question.prompt, "answer": question.answer, "task": task, "lang": lang, "form": form})
    return lines


def _as_typed(rng: Random, prompt: str) -> str:
    """The prompt as people type it: sometimes without its last mark, sometimes without a capital."""
    if rng.random() < 0.1:
        prompt = prompt.rstrip("?.？。")
    if rng.random() < 0.1:
        prompt = prompt[0].lower() + prompt[1:]
    return prompt


def _turn(rng: Random, seed: int) -> tuple[str, str, str]:
    """Prompt, answer and language of one training turn."""
    lang = rng.choice(LANGUAGES)
    if rng.random() < 0.02:
        prompt, answer = rng.choice(facts.SMALL_TALK[lang])
        return _as_typed(rng, prompt), answer, lang
    question = train_question(rng, seed, lang)
    return _as_typed(rng, question.prompt), question.answer, lang


def conversation(rng: Random, seed: int) -> list[Segment]:
    """One training text: raw, or a chat of one to three turns that ends in `</s>`."""
    prompt, answer, lang = _turn(rng, seed)
    if rng.random() < RAW_SHARE:
        line = {"prompt": prompt, "answer": answer, "lang": lang, "form": "raw"}
        return [Segment(prompt), Segment(chat.answer_text(line), answer=True, stop=True)]
    system = rng.choice(facts.SYSTEMS[lang]) + "\n" if rng.random() < 0.2 else ""
    segments = [Segment(f"{chat.CLS}{system}User: {prompt}\nAssistant: "), Segment(answer, answer=True)]
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        prompt, answer, _ = _turn(rng, seed)
        segments += [Segment(f"{chat.SEP}User: {prompt}\nAssistant: "), Segment(answer, answer=True)]
    if rng.random() < 0.3:
        # A program that keeps no cache encodes the whole history at once: ` Paris` is then one token, not two.
        segments = [Segment("".join(segment.text for segment in segments[:-1])), segments[-1]]
    return [*segments[:-1], Segment(segments[-1].text, answer=True, stop=True)]


def training_stream(seed: int) -> Iterator[list[Segment]]:
    """Endless training texts."""
    rng = Random(f"{seed}/train")
    while True:
        yield conversation(rng, seed)


def calibration(seed: int) -> list[dict[str, str]]:
    """Texts of the training distribution, prompt and answer, for whoever has to choose quantisation ranges."""
    rng = Random(f"{seed}/calibration")
    return [{"text": "".join(part.text for part in conversation(rng, seed))} for _ in range(CALIBRATION_TEXTS)]
