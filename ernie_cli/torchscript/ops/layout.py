"""The same elements in another shape or order: Reshape, Transpose, Squeeze, Expand, Concat, Split, Tile, DepthToSpace."""

from __future__ import annotations

import torch

from ..node import Node, Unmapped, literal
from ..text import ints, texts
from . import Rule


def reshape(x: torch.Tensor, shape: torch.Tensor, allow_zero: bool) -> torch.Tensor:
    """A shape known only at run time; 0 keeps the input's length unless `allow_zero`."""
    if not allow_zero:  # on tensors: torch's exporter to ONNX cannot write a list whose items change in a loop
        kept = torch.cat([torch._shape_as_tensor(x).to(shape.device), torch.zeros_like(shape)])
        shape = torch.where(shape == 0, kept[: shape.size(0)], shape)
    lengths: list[int] = shape.tolist()
    return x.reshape(lengths)


def flatten(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Two axes: all before `axis`, and the rest."""
    if axis < 0:
        axis = axis + x.dim()
    rows = 1
    for i in range(axis):
        rows = rows * x.size(i)
    return x.reshape([rows, -1 if x.numel() > 0 else x.numel() // max(rows, 1)])


def squeeze_ones(x: torch.Tensor) -> torch.Tensor:
    return torch.squeeze(x)


def squeeze(x: torch.Tensor, axes: torch.Tensor) -> torch.Tensor:
    dims: list[int] = axes.tolist()
    return torch.squeeze(x, dims)


def unsqueeze_all(x: torch.Tensor, axes: list[int]) -> torch.Tensor:
    """New axes at these places of the result."""
    rank = x.dim() + len(axes)
    for axis in sorted([axis + rank if axis < 0 else axis for axis in axes]):
        x = torch.unsqueeze(x, axis)
    return x


def unsqueeze(x: torch.Tensor, axes: torch.Tensor) -> torch.Tensor:
    dims: list[int] = axes.tolist()
    return unsqueeze_all(x, dims)


def reverse_axes(x: torch.Tensor) -> torch.Tensor:
    return x.permute([x.dim() - 1 - i for i in range(x.dim())])


def expand_to(x: torch.Tensor, shape: list[int]) -> torch.Tensor:
    """Broadcast both ways: a length 1 in `shape` keeps the input's."""
    for i in range(1, min(x.dim(), len(shape)) + 1):
        if shape[len(shape) - i] == 1:
            shape[len(shape) - i] = x.size(x.dim() - i)
    if len(shape) < x.dim():
        shape = list(x.size())[: x.dim() - len(shape)] + shape
    return x.expand(shape)


def expand(x: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    # On tensors, as in reshape. Whichever is shorter gets ones in front.
    own = torch._shape_as_tensor(x).to(shape.device)
    wanted = torch.cat([torch.ones_like(own)[: max(own.size(0) - shape.size(0), 0)], shape])
    own = torch.cat([torch.ones_like(shape)[: max(shape.size(0) - own.size(0), 0)], own])
    lengths: list[int] = torch.where(wanted == 1, own, wanted).tolist()
    return x.expand(lengths)


def tile(x: torch.Tensor, repeats: torch.Tensor) -> torch.Tensor:
    times: list[int] = repeats.tolist()
    return x.repeat(times)


def even_parts(x: torch.Tensor, count: int, axis: int) -> list[torch.Tensor]:
    """`count` parts of one length, the last one shorter where it does not divide."""
    length = x.size(axis)
    each = (length + count - 1) // count
    parts: list[torch.Tensor] = []
    for i in range(count):
        begin = min(i * each, length)
        parts.append(x.narrow(axis, begin, min(each, length - begin)))
    return parts


def parts_of(x: torch.Tensor, lengths: torch.Tensor, axis: int) -> list[torch.Tensor]:
    sizes: list[int] = lengths.tolist()
    return list(torch.split_with_sizes(x, sizes, axis))


def depth_to_space(x: torch.Tensor, block: int, columns_first: bool) -> torch.Tensor:
    n, c, h, w = x.size(0), x.size(1), x.size(2), x.size(3)
    if columns_first:
        return torch.pixel_shuffle(x, block)
    apart = x.reshape([n, block, block, c // (block * block), h, w])
    return apart.permute([0, 3, 4, 1, 5, 2]).reshape([n, c // (block * block), h * block, w * block])


def space_to_depth(x: torch.Tensor, block: int, columns_first: bool) -> torch.Tensor:
    n, c, h, w = x.size(0), x.size(1), x.size(2), x.size(3)
    if columns_first:
        return torch.pixel_unshuffle(x, block)
    apart = x.reshape([n, c, h // block, block, w // block, block])
    return apart.permute([0, 3, 5, 1, 2, 4]).reshape([n, c * block * block, h // block, w // block])


def _reshape(node: Node) -> str:
    shape, zero = ints(node, "shape", 1), bool(node.attr("allowzero", 0))
    if shape is None:
        items = node.fact(1).items
        if items is not None:
            lengths = [f"{node.x(0)}.size({i})" if n == "0" and not zero else n for i, n in enumerate(items)]
            return f"{node.x(0)}.reshape([{', '.join(lengths)}])"
        return node.call(reshape, node.x(0), node.x(1), zero)
    lengths = [f"{node.x(0)}.size({i})" if n == 0 and not zero else str(n) for i, n in enumerate(shape)]
    return f"{node.x(0)}.reshape([{', '.join(lengths)}])"


def _flatten(node: Node) -> str:
    axis, rank, x = node.attr("axis", 1), node.rank(0), node.x(0)
    if rank is None or rank == 0:
        return node.call(flatten, x, axis)
    axis += rank if axis < 0 else 0
    if axis in (0, rank):
        return f"{x}.reshape({[1, -1] if axis == 0 else [-1, 1]})"
    rows = x if axis == 1 else f"torch.flatten({x}, 0, {axis - 1})"
    return rows if axis == 1 and rank == 2 else f"torch.flatten({rows}, 1)"


def _transpose(node: Node) -> str:
    order, rank = node.attr("perm"), node.rank(0)
    if order is None and rank is not None:
        order = list(range(rank))[::-1]
    return node.call(reverse_axes, node.x(0)) if order is None else f"{node.x(0)}.permute({literal(order)})"


def _squeeze(node: Node) -> str:
    axes = ints(node, "axes", 1)
    if axes is None:
        return node.call(squeeze, node.x(0), node.x(1)) if node.has(1) else f"torch.squeeze({node.x(0)})"
    return f"torch.squeeze({node.x(0)}, {literal(axes)})"  # a list even of one: exported as Squeeze again, see faults.py; a number as If


def _unsqueeze(node: Node) -> str:
    axes = ints(node, "axes", 1)
    if axes is None:
        return node.call(unsqueeze, node.x(0), node.x(1))
    rank = node.rank(0)
    if len(axes) == 1:
        return f"torch.unsqueeze({node.x(0)}, {axes[0]})"
    if rank is None and min(axes) < 0:
        return node.call(unsqueeze_all, node.x(0), axes)
    text = node.x(0)
    for axis in sorted(axis % ((rank or 0) + len(axes)) if axis < 0 else axis for axis in axes):
        text = f"torch.unsqueeze({text}, {axis})"
    return text


def _expand(node: Node) -> str:
    items, lengths = texts(node, 1), node.shape(0)
    if items is None:
        return node.call(expand, node.x(0), node.x(1))
    if lengths is None or len(lengths) > len(items):
        return node.call(expand_to, node.x(0), f"[{', '.join(items)}]")
    new = len(items) - len(lengths)
    wanted = [*items[:new], *(_wider(node.x(0), i, lengths[i], item) for i, item in enumerate(items[new:]))]
    return f"{node.x(0)}.expand([{', '.join(wanted)}])"


def _wider(x: str, axis: int, length: int | str | None, item: str) -> str:
    """The length that both broadcast to: torch keeps one with -1, and does not take 1 for "as it is"."""
    if item == "1":
        return "-1"
    return item if length == 1 or item.isdigit() else f"max({item}, {x}.size({axis}))"


def _concat(node: Node) -> str:
    return f"torch.cat({node.xs()}, {node.attr('axis', 1)})"


def _split(node: Node) -> str:
    axis, lengths, count = node.attr("axis", 0), ints(node, "split", 1), node.n_outputs
    if lengths is not None:
        parts = f"torch.split_with_sizes({node.x(0)}, {literal(lengths)}, {axis})"
    elif node.has(1):
        parts = node.call(parts_of, node.x(0), node.x(1), axis)
    else:
        shape = node.shape(0)
        length = None if shape is None else shape[axis]
        if isinstance(length, int):
            each = -(-length // count)
            sizes = [max(0, min(each, length - i * each)) for i in range(count)]
            parts = f"torch.split_with_sizes({node.x(0)}, {literal(sizes)}, {axis})"
        else:
            parts = node.call(even_parts, node.x(0), count, axis)
    return f"{parts}[0]" if count == 1 else parts


def _tile(node: Node) -> str:
    if node.opset < 6:
        raise Unmapped("Tile of opset 1")
    times, items = ints(node, "repeats", 1), node.fact(1).items
    if items is not None:
        return f"{node.x(0)}.repeat([{', '.join(items)}])"
    return node.call(tile, node.x(0), node.x(1)) if times is None else f"{node.x(0)}.repeat({literal(times)})"


def _depth_to_space(node: Node) -> str:
    return node.call(depth_to_space, node.x(0), node.attr("blocksize"), node.attr("mode", "DCR") == "CRD")


RULES: dict[str, Rule] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Expand": _expand,
    "Concat": _concat,
    "Split": _split,
    "Tile": _tile,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": lambda node: node.call(space_to_depth, node.x(0), node.attr("blocksize"), node.attr("mode", "DCR") == "CRD"),
}
