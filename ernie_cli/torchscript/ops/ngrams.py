"""TfIdfVectorizer over integers. Over strings it has no mapping: torch has no tensors of them."""

from __future__ import annotations

import torch

from ..node import Node, Unmapped
from . import Rule


def tf_idf(
    x: torch.Tensor, pool: list[int], starts: list[int], places: list[int], weights: list[float], sizes: list[int], skips: int, mode: str
) -> torch.Tensor:
    """x [T] or [B, T] → how often each n-gram of the pool occurs, at its place in a row. sizes: the least and the largest n.
    starts: where in the pool the 1-grams, 2-grams … begin. skips: how many elements may be left out between two of a gram."""
    rows = x.reshape([-1, x.size(-1)])
    grams = torch.tensor(pool, dtype=torch.int64, device=x.device)
    counts: list[torch.Tensor] = []
    for n in range(1, len(starts) + 1):
        end = starts[n] if n < len(starts) else len(pool)
        group = grams[starts[n - 1] : end].reshape([-1, n])
        found = torch.zeros([rows.size(0), group.size(0)], device=x.device)
        if sizes[0] <= n and n <= sizes[1]:
            for skip in range(1 if n == 1 else skips + 1):
                windows = rows.size(1) - (n - 1) * (skip + 1)
                if windows > 0:
                    equal = torch.ones([rows.size(0), windows, group.size(0)], dtype=torch.bool, device=x.device)
                    for j in range(n):
                        part = rows.narrow(1, j * (skip + 1), windows).unsqueeze(2)
                        equal = torch.logical_and(equal, part == group[:, j])
                    found = found + equal.sum(1)
        counts.append(found)
    known = torch.cat(counts, 1)
    factors = torch.tensor(weights, device=x.device) if len(weights) > 0 else torch.ones([known.size(1)], device=x.device)
    if mode == "IDF":
        known = (known > 0).to(torch.float32) * factors
    elif mode == "TFIDF":
        known = known * factors
    result = torch.zeros([rows.size(0), max(places) + 1], device=x.device)
    result = torch.index_copy(result, 1, torch.tensor(places, device=x.device), known)
    return result.reshape(list(x.size())[:-1] + [result.size(1)])  # noqa: RUF005 - TorchScript knows no [*a, b]


def _tf_idf(node: Node) -> str:
    if node.attr("pool_int64s") is None:
        raise Unmapped("strings: torch has no tensors of them")
    sizes = [node.attr("min_gram_length"), node.attr("max_gram_length")]
    weights = [float(w) for w in node.attr("weights", [])] or "torch.jit.annotate(List[float], [])"
    lists = (node.attr("pool_int64s"), node.attr("ngram_counts"), node.attr("ngram_indexes"), weights, sizes)
    return node.call(tf_idf, node.x(0), *lists, node.attr("max_skip_count"), f'"{node.attr("mode")}"')


RULES: dict[str, Rule] = {"TfIdfVectorizer": _tf_idf}
