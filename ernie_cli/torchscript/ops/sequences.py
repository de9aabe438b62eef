"""Sequences are List[Tensor], optionals Optional[…]; nothing changes a list in place."""

from __future__ import annotations

import torch

from ..node import Node, Unmapped
from ..text import whole
from . import Rule


def insert(xs: list[torch.Tensor], x: torch.Tensor, at: int) -> list[torch.Tensor]:
    new = list(xs)
    new.insert(at, x)
    return new


def append(xs: list[torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
    return xs + [x]  # noqa: RUF005 - TorchScript knows no [*xs, x]


def erase(xs: list[torch.Tensor], at: int) -> list[torch.Tensor]:
    new = list(xs)
    new.pop(at)
    return new


def concat(xs: list[torch.Tensor], axis: int, stack: bool) -> torch.Tensor:
    return torch.stack(xs, axis) if stack else torch.cat(xs, axis)


def split(x: torch.Tensor, lengths: torch.Tensor | None, axis: int, keep: bool) -> list[torch.Tensor]:
    """Parts of the given lengths (a list) or of one length (a number), or single slices, which lose the axis unless `keep`."""
    if lengths is None:
        return list(torch.split(x, 1, axis)) if keep else list(torch.unbind(x, axis))
    if lengths.dim() == 0:
        return list(torch.split(x, int(lengths.item()), axis))
    sizes: list[int] = lengths.to(torch.int64).tolist()
    return list(torch.split_with_sizes(x, sizes, axis))


def length(xs: list[torch.Tensor], device: torch.device) -> torch.Tensor:
    return torch.tensor(len(xs), dtype=torch.int64, device=device)


def truth(known: bool, device: torch.device) -> torch.Tensor:
    return torch.tensor(known, dtype=torch.bool, device=device)


def get(x: torch.Tensor | None) -> torch.Tensor:
    assert x is not None, "OptionalGetElement: there is none"
    return x


def get_sequence(xs: list[torch.Tensor] | None) -> list[torch.Tensor]:
    assert xs is not None, "OptionalGetElement: there is none"
    return xs


def _insert(node: Node) -> str:
    if not node.has(2):
        return node.call(append, node.x(0), node.x(1))
    return node.call(insert, node.x(0), node.x(1), whole(node, 2))


def _erase(node: Node) -> str:
    return node.call(erase, node.x(0), whole(node, 1) if node.has(1) else -1)


def _split(node: Node) -> str:
    return node.call(split, node.x(0), node.x(1), node.attr("axis", 0), bool(node.attr("keepdims", 1)))


def _empty(node: Node) -> str:
    return "torch.jit.annotate(List[Tensor], [])"


def _optional(node: Node) -> str:
    return node.x(0) if node.has(0) else "None"


def _has(node: Node) -> str:
    if not node.has(0):
        return node.call(truth, False, node.device)
    return node.call(truth, f"{node.x(0)} is not None" if node.fact(0).kind.startswith("optional") else "True", node.device)


def _get(node: Node) -> str:
    kind = node.fact(0).kind
    if not node.has(0):
        raise Unmapped("the element of nothing")
    if not kind.startswith("optional"):
        return node.x(0)
    return node.call(get_sequence if kind == "optional_sequence" else get, node.x(0))


RULES: dict[str, Rule] = {
    "SequenceConstruct": lambda node: node.xs(),
    "SequenceEmpty": _empty,
    "SequenceInsert": _insert,
    "SequenceErase": _erase,
    "SequenceAt": lambda node: f"{node.x(0)}[{whole(node, 1)}]",
    "SequenceLength": lambda node: node.call(length, node.x(0), node.device),
    "ConcatFromSequence": lambda node: node.call(concat, node.x(0), node.attr("axis"), bool(node.attr("new_axis", 0))),
    "SplitToSequence": _split,
    "Optional": _optional,
    "OptionalHasElement": _has,
    "OptionalGetElement": _get,
}
