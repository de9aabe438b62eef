"""More or less around a tensor: Pad, CenterCropPad. Negative pads cut, as ONNX has it."""

from __future__ import annotations

import torch

from ..node import Node, literal
from ..text import ints, narrow, wide
from . import Rule


def pad_axis(x: torch.Tensor, axis: int, before: int, after: int, mode: str) -> torch.Tensor:
    """One axis in a mode that repeats x itself, by the index of each element of the result."""
    length = x.size(axis)
    places = torch.arange(-before, length + after, device=x.device)
    if mode == "edge":
        places = torch.clamp(places, 0, length - 1)
    elif mode == "wrap":
        places = torch.remainder(places, length)
    elif length > 1:  # reflect: a wave with this period
        period = 2 * (length - 1)
        places = torch.remainder(places, period)
        places = torch.where(places >= length, period - places, places)
    else:
        places = torch.zeros_like(places)
    return torch.index_select(x, axis, places)


def pad_lists(x: torch.Tensor, pads: list[int], axes: list[int], mode: str, value: float) -> torch.Tensor:
    """pads: all begins, then all ends, in the order of axes."""
    count = len(axes)
    if mode != "constant":
        for i in range(count):
            if pads[i] != 0 or pads[i + count] != 0:
                x = pad_axis(x, axes[i], pads[i], pads[i + count], mode)
        return x
    both = [0 for _ in range(2 * x.dim())]  # torch: from the last axis, begin and end in turn
    for i in range(count):
        axis = axes[i] + x.dim() if axes[i] < 0 else axes[i]
        both[2 * (x.dim() - 1 - axis)] = pads[i]
        both[2 * (x.dim() - 1 - axis) + 1] = pads[i + count]
    return torch.constant_pad_nd(x, both, value)


def pad(x: torch.Tensor, pads: torch.Tensor, value: torch.Tensor | None, axes: torch.Tensor | None, mode: str) -> torch.Tensor:
    """Everything known only at run time."""
    widths: list[int] = pads.to(torch.int64).tolist()
    dims = list(range(x.dim()))
    if axes is not None:
        given: list[int] = axes.to(torch.int64).tolist()
        dims = given
    fill = 0.0
    if value is not None:
        fill = float(value.item())
    return pad_lists(x, widths, dims, mode, fill)


def center_crop_pad(x: torch.Tensor, shape: torch.Tensor, axes: list[int]) -> torch.Tensor:
    """To these lengths, from or into the middle; the odd element is cut or added behind."""
    lengths: list[int] = shape.to(torch.int64).tolist()
    if len(axes) == 0:
        axes = list(range(x.dim()))
    for i in range(len(axes)):
        more = lengths[i] - x.size(axes[i])
        if more > 0:
            x = pad_lists(x, [more // 2, more - more // 2], [axes[i]], "constant", 0.0)
        elif more < 0:
            x = x.narrow(axes[i], (-more) // 2, lengths[i])
    return x


def _pad(node: Node) -> str:
    mode = f'"{node.attr("mode", "constant")}"'
    pads = ints(node, "pads", 1) if node.opset >= 11 else node.attr("pads", node.attr("paddings"))
    axes, value, rank = ints(node, "axes", 3), _fill(node), node.rank(0)
    if axes is None and not node.has(3) and rank is not None:
        axes = list(range(rank))
    if pads is None or axes is None or value is None:
        return narrow(node, node.call(pad, wide(node, 0), node.x(1), node.x(2), node.x(3), mode))
    if node.attr("mode", "constant") == "constant" and rank is not None and node.dtype(0) != "bool":
        return narrow(node, f"torch.constant_pad_nd({wide(node, 0)}, {literal(_backwards(pads, axes, rank))}, {literal(value)})")
    return narrow(node, node.call(pad_lists, wide(node, 0), pads, axes, mode, float(value)))


def _fill(node: Node) -> float | int | None:
    """The constant that fills, None where it is known only at run time."""
    if node.opset < 11:
        return float(node.attr("value", 0.0))
    const = node.const(2)
    if const is None or const.size == 0:
        return 0 if not node.has(2) or const is not None else None
    return const.reshape(-1)[0].item() if const.dtype.kind in "biuf" else float(const.reshape(-1)[0])


def _backwards(pads: list[int], axes: list[int], rank: int) -> list[int]:
    """ONNX's pads as torch wants them: from the last axis on, begin and end in turn."""
    both = [0] * (2 * rank)
    for i, axis in enumerate(axes):
        both[2 * (rank - 1 - axis % rank)], both[2 * (rank - 1 - axis % rank) + 1] = pads[i], pads[i + len(axes)]
    return both


RULES: dict[str, Rule] = {
    "Pad": _pad,
    "CenterCropPad": lambda node: node.call(
        center_crop_pad, node.x(0), node.x(1), node.attr("axes", []) or "torch.jit.annotate(List[int], [])"
    ),
}
