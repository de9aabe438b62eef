"""What a quantised model lost: of its answers (quality of the whole), and where (each layer's weights and outputs, as SQNR).

Running and scoring models is evaluate/'s; how a record looks to people is table.py's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError
from ...model import Model

if TYPE_CHECKING:
    from ...evaluate.language import Scores
    from ...evaluate.texts import Text
    from ..codes import Codes

#: float32 itself has 140 dB or so: beyond, two things are equal. Figures end here, so that records hold no infinities.
MOST_DB = 200.0
#: Numbers of a weight that are dequantised at a time (what a core's cache holds), and that are looked at.
_PIECE, _MOST = 1 << 16, 1 << 20


def sqnr_db(signal: float, noise: float) -> float:
    """Signal over noise, both sums of squares, in dB: from -200 (nothing but noise, or no numbers) to 200 (no noise)."""
    if not (math.isfinite(signal) and math.isfinite(noise)):
        return -MOST_DB
    if noise <= 0:
        return MOST_DB
    return MOST_DB if signal / noise > 1e20 else max(-MOST_DB, 10 * math.log10(max(signal / noise, 1e-20)))


def weight_sqnr(weight: np.ndarray, codes: Codes) -> float:
    """dB of a float weight over what its codes leave out, both laid the same way (of matrices, either may lie across).

    Of large weights a million numbers count, in columns spread evenly over all: exact to a hundredth of a dB, and a few milliseconds.
    """
    from ..codes import spread

    floats, narrow, scale, block = _laid(np.asarray(weight), codes)
    rows, columns = floats.shape
    width = max(16, _PIECE // max(1, rows))
    count = -(-columns // width)
    signal = noise = 0.0
    for start in np.linspace(0, max(0, columns - width), min(count, -(-_MOST // _PIECE)) if count > 1 else 1).astype(int) if rows else ():
        window = slice(start, start + width)
        part = floats[:, window].astype(np.float32)
        signal += power(part)
        part -= _wide(narrow[:, window]) * spread(scale[..., window].astype(np.float32), part.shape, 0 if block else 1, block)
        noise += power(part)
    return sqnr_db(signal, noise)


def _laid(weight: np.ndarray, codes: Codes) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Weight and codes as matrices whose blocks go down and whose channels go across."""
    if weight.ndim == 2 and weight.shape != codes.codes.shape:
        weight = weight.T
    if weight.ndim != 2:
        across = [np.moveaxis(each, codes.axis, -1).reshape(-1, weight.shape[codes.axis]) for each in (weight, codes.codes)]
        return across[0], across[1], codes.scale, 0
    if codes.axis != (0 if codes.block else 1):
        return weight.T, codes.codes.T, codes.scale.T, codes.block
    return weight, codes.codes, codes.scale, codes.block


def _wide(codes: np.ndarray) -> np.ndarray:
    """Codes as float32. 4-bit ones lie in the low half of a byte each: shifting is faster than asking their type."""
    if codes.dtype.name == "int4":
        return ((codes.view(np.int8) << 4) >> 4).astype(np.float32)
    return codes.astype(np.float32)


def power(array: np.ndarray) -> float:
    """Sum of squares."""
    flat = array.reshape(-1)
    return float(np.dot(flat, flat))


# --- layers -------------------------------------------------------------------------------------------------------------------------


def by_damage(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of layers, worst first: by `harm` (see harm.py) where all were tried alone, else by the SQNR of outputs, else of weights.

    Ties keep the order of computation.
    """
    records = list(records)
    if records and all(each.get("harm") is not None for each in records):
        return [str(each["layer"]) for each in sorted(records, key=lambda each: -each["harm"])]
    return [str(each["layer"]) for each in sorted(records, key=sqnr_of)]


def sqnr_of(record: Mapping[str, Any]) -> float:
    """A layer's SQNR in dB: of its output on data where that was measured, else of its weights."""
    found = (record.get(name) for name in ("output_sqnr_db", "weight_sqnr_db"))
    return next((float(each) for each in found if each is not None), MOST_DB)


# --- the whole model ----------------------------------------------------------------------------------------------------------------


def measure(
    before: Model, after: Model, data: Iterable[Mapping[str, np.ndarray]], *, texts: Sequence[Text] | None = None
) -> dict[str, Any]:
    """The loss of the whole model.

    texts: what a language model is measured on (see evaluate.texts); None: this is no language model, and `data` are feeds.
    Returns {"perplexity": {"before", "after", "ratio"}, "answer_perplexity": the same of answers or None, "kl", "top1",
    "exact_match": {"before", "after"} or None, "answers", "tokens", "texts"}; perplexity, KL and top-1 count every token that is
    predicted, since a trained model is too sure of its answers for their perplexity to show a loss. Or
    {"outputs": {name: {"cosine", "snr_db", "top1", …}}}. Raises what running them raises.
    """
    return _graphs(before, after, data) if texts is None else _language(before, after, texts)


def _language(before: Model, after: Model, texts: Sequence[Text]) -> dict[str, Any]:
    from ...evaluate import language

    found = language.measure(after, texts, reference=before)
    exact = None if found.exact_match is None else {"before": found.reference_exact_match, "after": found.exact_match}
    return {
        "kind": "language",
        "perplexity": _perplexity(found.full),
        "answer_perplexity": None if found.answer is None else _perplexity(found.answer),
        "kl": found.full.kl,
        "top1": found.full.top1,
        "exact_match": exact,
        "answers": found.asked,
        "tokens": found.full.tokens,
        "texts": found.texts,
    }


def _perplexity(scores: Scores) -> dict[str, float | None]:
    return {"before": scores.reference_perplexity, "after": scores.perplexity, "ratio": scores.ratio}


def _graphs(before: Model, after: Model, data: Iterable[Mapping[str, np.ndarray]]) -> dict[str, Any]:
    from ...evaluate import graphs

    return {"kind": "graph", "outputs": graphs.measure(before, after, data)}


def judge(
    before: Model, metric: str, data: Iterable[Mapping[str, np.ndarray]], *, texts: Sequence[Text] | None = None
) -> tuple[Callable[[Model], float], float]:
    """What budget.fit asks for: a function that measures `metric` (one of budget.METRICS) of a model, and the float model's value.

    Measures no more than that metric needs. Raises what running them raises.
    """
    if texts is None:
        return (lambda after: _worst(_graphs(before, after, data), metric)), 1.0
    from ...evaluate import language

    told: Sequence[Text] = texts
    if metric in ("kl", "top1"):
        return (lambda after: float(getattr(language.measure(after, told, reference=before, exact=False).full, metric))), float(
            metric == "top1"
        )
    if metric == "exact-match":
        return (lambda model: _answers(language.measure(model, told).exact_match)), _answers(language.measure(before, told).exact_match)

    def perplexity(model: Model) -> float:
        return language.measure(model, told, exact=False).full.perplexity

    return perplexity, perplexity(before)


def _worst(found: Mapping[str, Any], metric: str) -> float:
    """The worst output's, NaN where one gives no numbers. Raises InputError where no output has such a figure."""
    if any(each.get("not_finite") for each in found["outputs"].values()):
        return math.nan
    values = [each[metric] for each in found["outputs"].values() if each.get(metric) is not None]
    if not values:
        raise InputError(f"no output has a {metric}", "--metric cosine")
    return float(min(values))


def _answers(share: float | None) -> float:
    if share is None:
        raise InputError("these texts have no answers to be matched", '--metric perplexity, or lines with {"prompt", "answer"}')
    return share
