"""`ernie eval`: which kind of model this is, what it is measured on, and the record of it. The figures come from the neighbours."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import console
from ..errors import UsageError
from ..model import Model

#: What --metric takes, for each kind of model.
LANGUAGE = ("perplexity", "exact-match", "kl", "top1")
GRAPH = ("cosine", "snr", "top1", "max-abs")
#: Without a second model these mean nothing.
_COMPARED = ("kl", "top1")


@dataclass(frozen=True)
class Question:
    """data: file or folder, None: the embedded lines. metrics: some of LANGUAGE or GRAPH; none: all that can be had. limit: so many
    texts or samples. mean, std: of pictures, see quant/options.py."""

    data: str | None = None
    metrics: Sequence[str] = ()
    limit: int | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


def evaluate(model: Model, asked: Question, *, against: Model | None = None) -> dict[str, Any]:
    """Measure `model`, against a second model where one is given. Returns the record.

    Raises UsageError for a question that makes no sense, InputError for data that cannot be used, and what opening models raises.
    """
    start = time.perf_counter()
    kind = "language" if is_language(model) else "graph"
    _check(kind, model, against, asked.metrics)
    measured = _language(model, asked, against) if kind == "language" else _graph(model, asked, against)
    return {
        "model": str(model.path),
        "kind": kind,
        "against": str(against.path) if against else None,
        "data": asked.data or "held-out lines of ernie-4.5-nano",
        **measured,
        "seconds": round(time.perf_counter() - start, 3),
    }


def is_language(model: Model) -> bool:
    """Whether a model takes token ids and keeps a KV cache: a checkpoint, or what `ernie convert` makes of one."""
    if model.format in ("hf", "paddle") or model.manifest.get("kv_cache") or model.told("engine").get("kv_cache"):
        return True
    if model.format != "onnx":
        return False
    from ..onnxgraph.load import load

    inputs = {value.name for value in load(model, known_operators=False).graph.inputs}
    return "input_ids" in inputs and not inputs.isdisjoint({"cache.0.key", "past.0.key"})


def _check(kind: str, model: Model, against: Model | None, metrics: Sequence[str]) -> None:
    known = LANGUAGE if kind == "language" else GRAPH
    unknown = [name for name in metrics if name not in known]
    if unknown:
        raise UsageError(f"no metric named `{unknown[0]}` for a {_SAID[kind]}", f"there are {', '.join(known)}")
    alone = [name for name in metrics if kind == "graph" or name in _COMPARED]
    if against is None and (alone or kind == "graph"):
        what = f"`{alone[0]}` compares two models" if alone else "a graph that is no language model is measured against a second one"
        raise UsageError(f"{model.path}: {what}", "name the other one: --against MODEL2")
    if against is not None and is_language(against) != (kind == "language"):
        other = _SAID["graph" if kind == "language" else "language"]
        raise UsageError(f"{model.path} is a {_SAID[kind]}, {against.path} a {other}", "compare two forms of the same model")


_SAID = {"language": "language model", "graph": "graph model"}


def _language(model: Model, asked: Question, against: Model | None) -> dict[str, Any]:
    from . import language, texts

    found = texts.read(asked.data, model.folder, asked.limit) if asked.data else texts.heldout(model.folder, asked.limit)
    if against is not None:
        texts.check_same(found, model.folder, against.folder, asked.data)
    has_answers = any(text.answer for text in found)
    if "exact-match" in asked.metrics and not has_answers:
        raise UsageError(f"{asked.data}: an exact match needs answers", 'give lines like {"prompt": "…", "answer": "…"}')
    exact = has_answers and (not asked.metrics or "exact-match" in asked.metrics)
    score = language.measure(model, found, reference=against, exact=exact)
    if math.isinf(score.full.perplexity):
        console.warn(f"{model.path} finds some tokens impossible, or gives NaN: the perplexity is infinite")
    return score.as_dict()


def _graph(model: Model, asked: Question, against: Model | None) -> dict[str, Any]:
    from ..quant.calibrate.data import open_data
    from ..quant.options import Options
    from . import graphs

    assert against is not None
    if asked.data is None:
        raise UsageError(f"what should {model.path} be measured on?", "give arrays or pictures: --data x.npz")
    how = Options(data=asked.data, samples=asked.limit or _ALL, mean=asked.mean, std=asked.std)
    feeds = open_data(asked.data, against, how)
    return {"samples": len(feeds), "outputs": graphs.measure(against, model, feeds)}


_ALL = 1 << 31


def chosen(record: Mapping[str, Any], metrics: Sequence[str]) -> list[str]:
    """The metrics that a record has and that were asked for, in the order in which they are told."""
    known = LANGUAGE if record["kind"] == "language" else GRAPH
    there = [name for name in known if record["against"] or name not in _COMPARED]
    return [name for name in there if not metrics or name in metrics]
