"""How well a nano answers: exact match and perplexity on the held-out lines.

Knows no backend: the caller brings a function from ids to ids (or to logits), so PyTorch, ONNX and an engine are scored
by the same lines of code.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from .chat import answer_text, prompt_text
from .tokenizer import EOS_ID, SEP_ID

if TYPE_CHECKING:
    import numpy as np

Example = Mapping[str, str]
MAX_NEW_TOKENS = 24  # the longest held-out answer has 8
STOP_IDS = (EOS_ID, SEP_ID)


class Codec(Protocol):
    """What is asked of a tokenizer; `tokenizer.Tokenizer` and a sentencepiece processor both have it."""

    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: list[int]) -> str: ...


@dataclass(frozen=True)
class Score:
    """Shares of exactly right answers, 0 to 1: over all lines, and over each language, form and task."""

    exact_match: float
    lines: int
    by_lang: dict[str, float]
    by_form: dict[str, float]
    by_task: dict[str, float]
    misses: list[dict[str, str]] = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Perplexity:
    """`exp` of the mean negative log likelihood per token: of answer and `</s>` alone, and of everything after the first id."""

    answer: float
    full: float
    answer_tokens: int
    full_tokens: int


def clean(ids: Sequence[int], tokenizer: Codec) -> str:
    """The answer in generated ids: up to the first stop id, without white space around it."""
    stop = next((i for i, token in enumerate(ids) if token in STOP_IDS), len(ids))
    return tokenizer.decode(list(ids[:stop])).strip()


def exact_match(answers: Sequence[str], expected: Sequence[str]) -> float:
    """The share of answers equal to the expected ones, character by character."""
    return sum(a == b for a, b in zip(answers, expected, strict=True)) / max(1, len(expected))


def score_answers(answers: Sequence[str], examples: Sequence[Example]) -> Score:
    """Score finished answers, one for each example in order."""
    expected = [example["answer"] for example in examples]

    def by(name: str) -> dict[str, float]:
        groups: dict[str, tuple[list[str], list[str]]] = {}
        for answer, example in zip(answers, examples, strict=True):
            given, right = groups.setdefault(example[name], ([], []))
            given.append(answer)
            right.append(example["answer"])
        return {group: round(exact_match(*pair), 4) for group, pair in groups.items()}

    misses = [{**example, "given": answer} for answer, example in zip(answers, examples, strict=True) if answer != example["answer"]]
    return Score(round(exact_match(answers, expected), 4), len(examples), by("lang"), by("form"), by("task"), misses)


def score(generate: Callable[[list[int]], list[int]], tokenizer: Codec, examples: Sequence[Example]) -> Score:
    """Ask every example and compare.

    `generate` takes the prompt's ids and returns the new ids, greedily chosen, at least up to the first of `STOP_IDS`
    or `MAX_NEW_TOKENS` of them; what follows a stop id is ignored.
    """
    return score_answers([clean(generate(tokenizer.encode(prompt_text(x))), tokenizer) for x in examples], examples)


def perplexity(logits: Callable[[list[int]], "np.ndarray[Any, Any]"], tokenizer: Codec, examples: Sequence[Example]) -> Perplexity:
    """Perplexity of the right answers.

    `logits` takes ids [T] and returns float logits [T, vocab]: row t predicts id t+1. Prompt and answer are tokenised
    apart, as they are when the model writes the answer itself.
    """
    import numpy as np

    answer_nats, full_nats = [], []
    for example in examples:
        prompt, answer = tokenizer.encode(prompt_text(example)), [*tokenizer.encode(answer_text(example)), EOS_ID]
        ids = prompt + answer
        rows = np.asarray(logits(ids), dtype=np.float64)[:-1]
        rows = rows - rows.max(axis=-1, keepdims=True)
        nats = np.log(np.exp(rows).sum(axis=-1)) - rows[np.arange(len(rows)), ids[1:]]
        full_nats.append(nats)
        answer_nats.append(nats[-len(answer) :])
    answers, full = np.concatenate(answer_nats), np.concatenate(full_nats)
    return Perplexity(round(math.exp(answers.mean()), 4), round(math.exp(full.mean()), 4), len(answers), len(full))
