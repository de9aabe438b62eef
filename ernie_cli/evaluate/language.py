"""Perplexity, exact match and the distance to another model, of a language model on texts.

Every scored token counts alike, whichever text it stands in. How texts are read is windows.py's, what logits become is
likelihood.py's, what the model writes itself is answers.py's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .. import console
from ..errors import InputError, UsageError
from ..model import Model
from . import windows
from .answers import Answer, Asker
from .rows import Opened, open_rows
from .texts import Encoder, Text
from .windows import Window

#: Rows side by side at most: more make no token cheaper.
MOST_ROWS = 32


@dataclass(frozen=True)
class Scores:
    """Of some tokens. perplexity: exp of the mean of -log p. The rest is there with a reference: its perplexity, perplexity over
    that, mean KL(reference ‖ model) in nats per token, and the share of tokens where both find the same token likeliest."""

    tokens: int
    perplexity: float
    reference_perplexity: float | None = None
    ratio: float | None = None
    kl: float | None = None
    top1: float | None = None


@dataclass(frozen=True)
class LanguageScore:
    """full: everything but each text's first token. answer: answers with their end token, None where the texts have none.

    exact_match: share of the `asked` answers that the model writes itself, greedily, to the letter (white space around apart);
    None where nothing was asked. reference_exact_match: the reference's. unasked: answers that do not fit the context.
    windows: into how many pieces texts were cut that are too long for one. misses: where the model wrote something else.
    """

    texts: int
    full: Scores
    answer: Scores | None
    exact_match: float | None
    reference_exact_match: float | None
    asked: int
    unasked: int
    windows: int
    misses: tuple[dict[str, str], ...] = field(default=(), repr=False)

    @property
    def main(self) -> Scores:
        """The scores that a model is judged by: of answers where there are any."""
        return self.answer or self.full

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "misses": list(self.misses), "weighting": "every token alike"}


def measure(
    model: Model, texts: Sequence[Text], *, reference: Model | None = None, exact: bool = True, batch: int = MOST_ROWS
) -> LanguageScore:
    """Score `model` on `texts` (see texts.read), against `reference` where one is given.

    exact: whether answers are asked for. batch: rows side by side; results do not depend on it.
    Raises UsageError where the models' vocabularies differ, InputError for tokens outside them, and what opening raises.
    """
    longest = max((len(text.ids) for text in texts), default=1)
    with ExitStack() as stack:
        opened = []
        for each in (model, reference) if reference else (model,):
            opened.append(open_rows(each, batch=min(batch, len(texts)), longest=longest))
            stack.callback(opened[-1].close)
        _check(opened, texts)
        asked = exact and any(text.answer for text in texts)
        encoder = Encoder(model.folder) if asked else None
        return _measured(opened, texts, [Asker(each, texts, encoder) for each in opened] if encoder else [])


def _check(opened: Sequence[Opened], texts: Sequence[Text]) -> None:
    known = opened[0].info.vocab_size
    if any(each.info.vocab_size != known for each in opened):
        what = f"{opened[0].model.path} has a vocabulary of {known} tokens, {opened[1].model.path} one of {opened[1].info.vocab_size}"
        raise UsageError(f"{what}: their predictions cannot be compared", "compare a model with one made from the same checkpoint")
    for text in texts:
        if text.ids and not 0 <= min(text.ids) <= max(text.ids) < known:
            hint = "do the tokenizer and the model belong together?"
            raise InputError(f"{text.where}: token {max(text.ids)}, and the model knows 0 to {known - 1}", hint)
    if all(len(text.ids) < 2 for text in texts):
        raise InputError("no text has two tokens, so nothing is predicted", "give longer texts")
    for each in opened:
        if each.info.context < 2:
            raise InputError(f"{each.model.path}: its context holds {each.info.context} token", "compare its config.json with the original")


def _measured(opened: Sequence[Opened], texts: Sequence[Text], askers: Sequence[Asker]) -> LanguageScore:
    cut = windows.cut(texts, min(each.info.context for each in opened))
    figures: dict[Window, np.ndarray] = {}
    with console.progress("reading", sum(each.length for each in cut), unit="tokens") as meter:
        for group in windows.groups(cut, min(each.info.batch for each in opened)):
            read = windows.read(opened, texts, group)
            figures.update(zip(group, read.figures, strict=True))
            whole = [row for row, each in enumerate(group) if _holds_answer(each, texts[each.text])]
            for asker, rows, best in zip(askers, read.rows, ("best", "reference_best"), strict=False):
                asker.finish(rows, [(row, group[row].text, read.figures[row][best]) for row in whole])
            meter.advance(sum(each.length for each in group))
    return _score(texts, {each: figures[each] for each in cut}, [asker.answers for asker in askers], compared=len(opened) > 1)


def _holds_answer(window: Window, text: Text) -> bool:
    return text.answer > 0 and window.length == len(text.ids) > text.answer


def _score(
    texts: Sequence[Text], figures: Mapping[Window, np.ndarray], answers: Sequence[Mapping[int, Answer]], *, compared: bool
) -> LanguageScore:
    full, answer = [], []
    for window, found in figures.items():
        text = texts[window.text]
        first = max(window.new, len(text.ids) - text.answer)
        full.append(found[window.new - window.start - 1 :])  # found[i] is of token start + 1 + i
        answer.append(found[first - window.start - 1 :])
    of_answers = np.concatenate(answer)
    shares = [sum(given.right for given in each.values()) / len(each) for each in answers if each]
    given = answers[0] if answers else {}
    return LanguageScore(
        texts=len(texts),
        full=_scores(np.concatenate(full), compared),
        answer=_scores(of_answers, compared) if len(of_answers) else None,
        exact_match=shares[0] if shares else None,
        reference_exact_match=shares[1] if len(shares) > 1 else None,
        asked=len(given),
        unasked=sum(text.answer > 0 for text in texts) - len(given) if answers else 0,
        windows=sum(window.length < len(texts[window.text].ids) for window in figures),
        misses=tuple(_miss(texts[number], each) for number, each in sorted(given.items()) if not each.right),
    )


def _miss(text: Text, given: Answer) -> dict[str, str]:
    return {"prompt": text.prompt, "answer": text.expected, "given": given.text}


def _scores(fields: np.ndarray, compared: bool) -> Scores:
    mean = float(fields["nats"].mean())
    if not compared:
        return Scores(len(fields), _exp(mean))
    other = float(fields["reference_nats"].mean())
    kl, top1 = max(0.0, float(fields["kl"].mean())), float((fields["best"] == fields["reference_best"]).mean())
    return Scores(len(fields), _exp(mean), _exp(other), _exp(mean - other), kl, top1)


def _exp(nats: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(nats))
