"""Reduce* over axes that are attributes, constant inputs or known only at run time."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from ..node import Node, literal
from ..text import WIDE, dtype_of, ints, is_integer, narrow, wide
from . import Rule

#: (node, x, axes, keepdims) as texts → the expression.
Write = Callable[[Node, str, str, str], str]


def axes_of(axes: torch.Tensor, x: torch.Tensor, noop: bool) -> list[int]:
    """Axes given at run time; none means all of them."""
    given: list[int] = axes.tolist()
    if len(given) == 0 and not noop:
        given = all_axes(x)
    return given


def all_axes(x: torch.Tensor) -> list[int]:
    return list(range(x.dim()))


def total(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    """The sum in x's own type; over no axes, x."""
    return torch.sum(x, axes, keep, dtype=x.dtype) if len(axes) > 0 else x


def product(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    rest = x
    for axis in axes:
        rest = torch.prod(rest, axis, keepdim=True, dtype=x.dtype)
    return rest if keep else torch.squeeze(rest, axes)


def mean(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    if x.is_floating_point():
        return torch.mean(x, axes, keep)
    return torch.div(torch.sum(x, axes, keep), x.numel() // max(torch.sum(x, axes).numel(), 1), rounding_mode="trunc").to(x.dtype)


def largest(x: torch.Tensor, axes: list[int], keep: bool, bound: float) -> torch.Tensor:
    """The maximum; of nothing at all, `bound`, the least value of the type."""
    if x.numel() > 0:
        return torch.amax(x, axes, keep)
    return torch.full_like(torch.sum(x, axes, keep), bound, dtype=x.dtype)


def least(x: torch.Tensor, axes: list[int], keep: bool, bound: float) -> torch.Tensor:
    if x.numel() > 0:
        return torch.amin(x, axes, keep)
    return torch.full_like(torch.sum(x, axes, keep), bound, dtype=x.dtype)


def log_sum_exp(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    return torch.logsumexp(x if x.is_floating_point() else x.to(torch.float32), axes, keep).to(x.dtype)


def _reduction(before: str, after: str) -> Rule:
    """before: the function of each element; after: of the result."""

    def rule(node: Node) -> str:
        x = f"{before}({wide(node, 0)})" if before else wide(node, 0)
        axes, noop = _axes(node)
        keep = literal(bool(node.attr("keepdims", 1)))
        text = x if axes == "[]" and noop else _WRITE[node.op](node, x, axes, keep)
        if after and is_integer(node):
            return f"{after}({text}).to({dtype_of(node)})"
        return narrow(node, f"{after}({text})" if after else text)

    return rule


def _axes(node: Node) -> tuple[str, bool]:
    """The axes as text, and whether an empty list means none rather than all."""
    noop, known = bool(node.attr("noop_with_empty_axes", 0)), ints(node, "axes", 1)
    if known is None and node.has(1):
        return node.call(axes_of, node.x(1), node.x(0), noop), noop
    if known or noop:
        return literal(known or []), noop
    rank = node.rank(0)
    return (node.call(all_axes, node.x(0)) if rank is None else literal(list(range(rank)))), noop


def _sum(node: Node, x: str, axes: str, keep: str) -> str:
    if axes.startswith("op_") and node.attr("noop_with_empty_axes", 0):
        return node.call(total, x, axes, keep)
    return f"torch.sum({x}, {axes}, {keep}, dtype={'torch.int64' if node.dtype(0) in WIDE else dtype_of(node)})"


def _mean(node: Node, x: str, axes: str, keep: str) -> str:
    plain = (node.dtype(0) or "").startswith(("float", "bfloat"))
    return f"torch.mean({x}, {axes}, {keep})" if plain else node.call(mean, x, axes, keep)


def _extreme(function: str) -> Write:
    def write(node: Node, x: str, axes: str, keep: str) -> str:
        if 0 in (node.shape(0) or (0,)):
            low, high = _bounds(node.dtype(0))
            return node.call(largest if function == "amax" else least, x, axes, keep, low if function == "amax" else high)
        return f"torch.{function}({x}, {axes}, {keep})"

    return write


def _bounds(dtype: str | None) -> tuple[float, float]:
    """The least and the largest value of a type; floats end in infinities."""
    if dtype == "bool":
        return 0.0, 1.0
    if dtype is None or not dtype.startswith(("int", "uint")):
        return -math.inf, math.inf
    info = np.iinfo(dtype)
    return float(info.min), float(info.max)


_WRITE: dict[str, Write] = {
    **dict.fromkeys(("ReduceSum", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceSumSquare"), _sum),
    "ReduceMean": _mean,
    "ReduceMax": _extreme("amax"),
    "ReduceMin": _extreme("amin"),
    "ReduceProd": lambda node, x, axes, keep: node.call(product, x, axes, keep),
    "ReduceLogSumExp": lambda node, x, axes, keep: node.call(log_sum_exp, x, axes, keep),
}

RULES: dict[str, Rule] = {
    **{name: _reduction("", "") for name in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSumExp")},
    "ReduceL1": _reduction("torch.abs", ""),
    "ReduceL2": _reduction("torch.square", "torch.sqrt"),
    "ReduceLogSum": _reduction("", "torch.log"),
    "ReduceSumSquare": _reduction("torch.square", ""),
}
