"""Parts of tensors: Slice, Gather, GatherElements, GatherND, Compress, Trilu, ReverseSequence. Writing into them is scattering.py's."""

from __future__ import annotations

import torch

from ..node import Node
from ..text import ints, narrow, texts, whole, wide
from . import Rule

#: Stands for the end of any axis; exporters write 2**63 - 1, whose negative is no literal.
FAR = 2**62


def slice_axis(x: torch.Tensor, axis: int, begin: int, end: int, step: int) -> torch.Tensor:
    """One axis, as numpy slices it; torch has no steps below 0."""
    length = x.size(axis)
    if step > 0:
        return torch.ops.aten.slice(x, axis, begin, end, step) if begin < length else x.narrow(axis, 0, 0)
    first = min(begin + length if begin < 0 else begin, length - 1)
    last = max(end + length, -1) if end < 0 else end
    if first < 0 or first <= last:
        return x.narrow(axis, 0, 0)
    places = torch.arange(first, last, step, device=x.device)
    return torch.index_select(x, axis, places)


def slice_all(
    x: torch.Tensor, begins: torch.Tensor, ends: torch.Tensor, axes: torch.Tensor | None, steps: torch.Tensor | None
) -> torch.Tensor:
    """Bounds known only at run time."""
    first: list[int] = begins.to(torch.int64).tolist()
    last: list[int] = ends.to(torch.int64).tolist()
    dims = list(range(len(first)))
    if axes is not None:
        given: list[int] = axes.to(torch.int64).tolist()
        dims = given
    by = [1 for _ in first]
    if steps is not None:
        taken: list[int] = steps.to(torch.int64).tolist()
        by = taken
    for i in range(len(first)):
        x = slice_axis(x, dims[i], first[i], last[i], by[i])
    return x


def gather(x: torch.Tensor, indices: torch.Tensor, axis: int) -> torch.Tensor:
    """Slices of `axis` at indices of any shape; negative ones count from the end."""
    if axis < 0:
        axis = axis + x.dim()
    flat = indices.reshape(-1).to(torch.int64)
    flat = torch.where(flat < 0, flat + x.size(axis), flat)
    shape = list(x.size())
    return torch.index_select(x, axis, flat).reshape(shape[:axis] + list(indices.size()) + shape[axis + 1 :])


def gather_elements(x: torch.Tensor, indices: torch.Tensor, axis: int) -> torch.Tensor:
    places = indices.to(torch.int64)
    return torch.gather(x, axis, torch.where(places < 0, places + x.size(axis), places))


def gather_nd(x: torch.Tensor, indices: torch.Tensor, batch: int) -> torch.Tensor:
    """Elements or slices at index tuples, the first `batch` axes walked together."""
    depth = indices.size(-1)
    places = indices.to(torch.int64)
    lead = list(x.size())[:batch]
    outer = list(indices.size())[: indices.dim() - 1]
    rows = 1
    for n in lead:
        rows = rows * n
    flat = x.reshape([rows] + list(x.size())[batch:])  # noqa: RUF005 - TorchScript knows no [a, *b]
    at = places.reshape([rows, -1, depth])
    offset = torch.zeros([rows, at.size(1)], dtype=torch.int64, device=x.device)
    cells = 1
    for i in range(depth):
        length = flat.size(1 + i)
        part = at[:, :, i]
        offset = offset * length + torch.where(part < 0, part + length, part)
        cells = cells * length
    inner = list(x.size())[batch + depth :]
    whole_rows = flat.reshape([rows * cells] + inner)  # noqa: RUF005
    offset = offset + torch.arange(rows, device=x.device).unsqueeze(1) * cells
    return torch.index_select(whole_rows, 0, offset.reshape(-1)).reshape(outer + inner)


def compress(x: torch.Tensor, condition: torch.Tensor, axis: int, flat: bool) -> torch.Tensor:
    if flat:
        x = x.reshape(-1)
        axis = 0
    return torch.index_select(x, axis, torch.nonzero(condition).reshape(-1))


def reverse_sequence(x: torch.Tensor, lengths: torch.Tensor, batch: int, time: int) -> torch.Tensor:
    """The first `lengths[b]` steps of each sequence in reverse, the rest as it is."""
    steps = torch.arange(x.size(time), device=x.device).unsqueeze(0)
    ends = lengths.to(torch.int64).unsqueeze(1)
    places = torch.where(steps < ends, ends - 1 - steps, steps)
    if time < batch:
        places = places.t()
    shape = [1 for _ in range(x.dim())]
    shape[batch] = x.size(batch)
    shape[time] = x.size(time)
    return torch.gather(x, time, places.reshape(shape).expand_as(x))


def _slice(node: Node) -> str:
    bounds = [ints(node, name, i) for i, name in ((1, "starts"), (2, "ends"), (3, "axes"), (4, "steps"))]
    begins, ends, axes, steps = bounds
    items = [_items(node, i, known) for i, known in ((1, begins), (2, ends))]
    if None in items or (axes is None and node.has(3)) or (steps is None and node.has(4)):
        return node.call(slice_all, *(node.x(i) for i in range(5)))
    text = node.x(0)
    first, last = items
    for axis, begin, end, step in zip(axes or range(len(first)), first, last, steps or [1] * len(first), strict=False):  # type: ignore[arg-type]
        if step < 0:
            text = node.call(slice_axis, text, axis, begin, end, step)
        else:
            text = f"torch.ops.aten.slice({text}, {axis}, {begin}, {end}, {step})"
    return text


def _items(node: Node, i: int, known: list[int] | None) -> list[str] | None:
    """Bounds as texts of ints, known now or computed elsewhere."""
    return texts(node, i) if known is None else [str(max(-FAR, min(n, FAR))) for n in known]


def _gather(node: Node) -> str:
    axis, const = node.attr("axis", 0), node.const(1)
    if const is not None and const.ndim == 0:
        return f"torch.select({node.x(0)}, {axis}, {int(const)})"
    rank = node.rank(0)
    if axis >= 0 or rank is not None:
        return narrow(node, f"{wide(node, 0)}[{':, ' * (axis % rank if rank else axis)}{node.x(1)}]")
    return narrow(node, node.call(gather, wide(node, 0), node.x(1), axis))


def _trilu(node: Node) -> str:
    k = whole(node, 1) if node.has(1) else "0"
    return narrow(node, f"torch.{'triu' if node.attr('upper', 1) else 'tril'}({wide(node, 0)}, {k})")


def _compress(node: Node) -> str:
    axis = node.attr("axis")
    return node.call(compress, node.x(0), node.x(1), axis or 0, axis is None)


RULES: dict[str, Rule] = {
    "Slice": _slice,
    "Gather": _gather,
    "GatherElements": lambda node: node.call(gather_elements, node.x(0), node.x(1), node.attr("axis", 0)),
    "GatherND": lambda node: node.call(gather_nd, node.x(0), node.x(1), node.attr("batch_dims", 0)),
    "Compress": _compress,
    "ReverseSequence": lambda node: node.call(
        reverse_sequence, node.x(0), node.x(1), node.attr("batch_axis", 1), node.attr("time_axis", 0)
    ),
    "Trilu": _trilu,
}
