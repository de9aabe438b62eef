"""Order along an axis: ArgMax, ArgMin, TopK, CumSum, Unique, NonZero."""

from __future__ import annotations

import torch

from ..node import Node
from ..text import narrow, whole, wide
from . import Rule


def last_index(x: torch.Tensor, axis: int, keep: bool, largest: bool) -> torch.Tensor:
    """ArgMax or ArgMin where the last of equals wins."""
    back = torch.flip(x, [axis])
    found = torch.argmax(back, axis, keep) if largest else torch.argmin(back, axis, keep)
    return x.size(axis) - 1 - found


def top_k(x: torch.Tensor, k: int, axis: int, largest: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Of equal values the first comes first, which torch.topk does not promise."""
    values, indices = torch.sort(x, dim=axis, descending=largest, stable=True)
    return values.narrow(axis, 0, k), indices.narrow(axis, 0, k)


def running(x: torch.Tensor, axis: int, exclusive: bool, reverse: bool, product: bool) -> torch.Tensor:
    """CumSum or CumProd; exclusive: without the element itself; reverse: from the end."""
    if reverse:
        x = torch.flip(x, [axis])
    sums = torch.cumprod(x, axis, dtype=x.dtype) if product else torch.cumsum(x, axis, dtype=x.dtype)
    if exclusive:
        first = (
            torch.ones_like(x.narrow(axis, 0, min(1, x.size(axis))))
            if product
            else torch.zeros_like(x.narrow(axis, 0, min(1, x.size(axis))))
        )
        sums = torch.cat([first, sums], axis).narrow(axis, 0, x.size(axis))
    return torch.flip(sums, [axis]) if reverse else sums


def unique(x: torch.Tensor, axis: int, flat: bool, ordered: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Different elements (flat) or slices along `axis`, where each was first seen, which each is, and how often. Not `ordered`:
    in the order in which they are seen."""
    if flat:
        x = x.reshape(-1)
        axis = 0
    values, inverse, counts = torch.ops.aten.unique_dim(x, axis, True, True, True)
    places = torch.arange(inverse.numel(), device=x.device)
    first = torch.full([counts.numel()], inverse.numel(), device=x.device, dtype=torch.int64).scatter_reduce(0, inverse, places, "amin")
    if not ordered:
        order = torch.argsort(first)
        values, first, counts = values.index_select(axis, order), first.index_select(0, order), counts.index_select(0, order)
        inverse = torch.argsort(order).index_select(0, inverse)
    return values, first, inverse, counts


def _arg(node: Node) -> str:
    largest = node.op == "ArgMax"
    axis, keep = node.attr("axis", 0), bool(node.attr("keepdims", 1))
    if node.attr("select_last_index", 0):
        return node.call(last_index, wide(node, 0), axis, keep, largest)
    return f"torch.arg{'max' if largest else 'min'}({wide(node, 0)}, {axis}, {keep})"


def _top_k(node: Node) -> str:
    k = str(node.attr("k")) if node.opset < 10 else whole(node, 1)
    return node.call(top_k, node.x(0), k, node.attr("axis", -1), bool(node.attr("largest", 1)))


def _running(node: Node) -> str:
    flags = (bool(node.attr("exclusive", 0)), bool(node.attr("reverse", 0)))
    if flags == (False, False) and node.op == "CumSum" and node.dtype(0):
        return narrow(node, f"torch.cumsum({wide(node, 0)}, {whole(node, 1)}, dtype={wide(node, 0)}.dtype)")
    return narrow(node, node.call(running, wide(node, 0), whole(node, 1), *flags, node.op == "CumProd"))


def _unique(node: Node) -> str:
    axis = node.attr("axis")
    text = node.call(unique, wide(node, 0), axis or 0, axis is None, bool(node.attr("sorted", 1)))
    return text if node.n_outputs == 4 else f"{text}[{0 if node.n_outputs == 1 else f':{node.n_outputs}'}]"


RULES: dict[str, Rule] = {
    "ArgMax": _arg,
    "ArgMin": _arg,
    "TopK": _top_k,
    "CumSum": _running,
    "CumProd": _running,
    "Unique": _unique,
    "NonZero": lambda node: f"torch.nonzero({wide(node, 0)}).t()",
}
