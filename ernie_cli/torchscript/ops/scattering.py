"""Writing into a copy of a tensor: Scatter, ScatterElements, ScatterND, TensorScatter, OneHot."""

from __future__ import annotations

import torch

from ..node import Node
from ..text import narrow, wide
from . import Rule

#: ONNX's reductions → torch's.
REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def scatter(x: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor, axis: int) -> torch.Tensor:
    places = indices.to(torch.int64)
    return torch.scatter(x, axis, torch.where(places < 0, places + x.size(axis), places), updates)


def scatter_reduce(x: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor, axis: int, reduction: str) -> torch.Tensor:
    places = indices.to(torch.int64)
    return torch.scatter_reduce(x, axis, torch.where(places < 0, places + x.size(axis), places), updates, reduction)


def scatter_nd(x: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor, reduction: str) -> torch.Tensor:
    """Elements or slices at index tuples are set, or combined by `reduction` ("" sets)."""
    depth = indices.size(-1)
    inner = list(x.size())[depth:]
    offset = torch.zeros(list(indices.size())[: indices.dim() - 1], dtype=torch.int64, device=x.device)
    cells = 1
    for i in range(depth):
        part = torch.select(indices, -1, i).to(torch.int64)
        offset = offset * x.size(i) + torch.where(part < 0, part + x.size(i), part)
        cells = cells * x.size(i)
    flat = x.reshape([cells] + inner)  # noqa: RUF005 - TorchScript knows no [a, *b]
    at = offset.reshape(-1)
    new = updates.reshape([at.numel()] + inner)  # noqa: RUF005
    if reduction == "":
        return torch.index_copy(flat, 0, at, new).reshape(x.size())
    at = at.reshape([-1] + [1 for _ in inner]).expand_as(new)
    return torch.scatter_reduce(flat, 0, at, new, reduction).reshape(x.size())


def tensor_scatter(cache: torch.Tensor, update: torch.Tensor, begins: torch.Tensor | None, axis: int, circular: bool) -> torch.Tensor:
    """Write `update` into `cache` along `axis` from each batch's place on; circular: past the end it goes on at the start."""
    if axis < 0:
        axis = axis + cache.dim()
    steps = torch.arange(update.size(axis), device=cache.device).unsqueeze(0).expand(cache.size(0), -1)
    if begins is not None:
        steps = steps + begins.to(torch.int64).unsqueeze(1)
    if circular:
        steps = torch.remainder(steps, cache.size(axis))
    shape = [1 for _ in range(cache.dim())]
    shape[0] = cache.size(0)
    shape[axis] = update.size(axis)
    return torch.scatter(cache, axis, steps.reshape(shape).expand_as(update), update)


def one_hot(indices: torch.Tensor, depth: torch.Tensor, values: torch.Tensor, axis: int) -> torch.Tensor:
    """values: [off, on]. An index out of [-depth, depth) gives a row of off."""
    count = int(depth.item())
    places = indices.to(torch.int64)
    places = torch.where(places < 0, places + count, places)
    if axis < 0:
        axis = axis + indices.dim() + 1
    shape = [1 for _ in range(indices.dim() + 1)]
    shape[axis] = count
    hot = places.unsqueeze(axis) == torch.arange(count, device=indices.device).reshape(shape)
    return torch.where(hot, values[1], values[0])


def _scatter_elements(node: Node) -> str:
    reduction, axis = node.attr("reduction", "none"), node.attr("axis", 0)
    if reduction == "none":
        return narrow(node, node.call(scatter, wide(node, 0), node.x(1), wide(node, 2), axis))
    return narrow(node, node.call(scatter_reduce, wide(node, 0), node.x(1), wide(node, 2), axis, f'"{REDUCTIONS[reduction]}"'))


def _scatter_nd(node: Node) -> str:
    reduction = REDUCTIONS.get(node.attr("reduction", "none"), "")
    return narrow(node, node.call(scatter_nd, wide(node, 0), node.x(1), wide(node, 2), f'"{reduction}"'))


def _tensor_scatter(node: Node) -> str:
    return node.call(tensor_scatter, node.x(0), node.x(1), node.x(2), node.attr("axis", -2), node.attr("mode", "linear") == "circular")


RULES: dict[str, Rule] = {
    "Scatter": _scatter_elements,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "TensorScatter": _tensor_scatter,
    "OneHot": lambda node: narrow(node, node.call(one_hot, node.x(0), node.x(1), wide(node, 2), node.attr("axis", -1)), 2),
}
