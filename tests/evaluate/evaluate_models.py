"""Decoders for the tests of ernie_cli/evaluate: seeded, in every format that has a decoder, with texts of random ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ernie_cli import route
from ernie_cli.evaluate.texts import Text
from ernie_cli.model import Model

#: The likeliest tokens of a tiny model have a twentieth of the probability: nobody's rounding changes which one it is.
VOCABULARY = 320


def converted(checkpoint: Path, to: str = "onnx", **options: Any) -> Model:
    out = checkpoint.with_name("-".join([checkpoint.name, to, *map(str, options.values())]))
    return route.convert(checkpoint, to=to, out=out, options=route.Options(verify=False, **options))


def random_texts(*lengths: int, seed: int = 0) -> list[Text]:
    draw = np.random.default_rng(seed)
    return [Text(tuple(draw.integers(0, VOCABULARY, length).tolist()), where=f"text {number}") for number, length in enumerate(lengths)]


def torch_logits(net: Any, ids: Sequence[int]) -> Any:
    """transformers' float32 logits [T, V]."""
    import torch

    with torch.inference_mode():
        return net.float()(input_ids=torch.tensor([list(ids)])).logits[0]


def torch_nats(net: Any, ids: Sequence[int]) -> list[float]:
    """-log p of each token but the first, by torch's cross entropy."""
    import torch

    logits = torch_logits(net, ids)
    return torch.nn.functional.cross_entropy(logits[:-1].double(), torch.tensor(list(ids)[1:], dtype=torch.long), reduction="none").tolist()
