"""Pieces of text that rules of several families write. The rules are in ops/."""

from __future__ import annotations

from .node import Node, literal
from .types import HELD, dtype_text

#: Types that torch can hold but hardly compute with: done in int64 and turned back. (uint64 from 2**63 on orders wrongly there.)
WIDE = frozenset({"uint16", "uint32", "uint64"})


def wide(node: Node, i: int) -> str:
    """Input i in a type that torch computes with."""
    return f"{node.x(i)}.to(torch.int64)" if node.dtype(i) in WIDE else node.x(i)


def narrow(node: Node, text: str, i: int = 0) -> str:
    """What was computed from `wide` inputs, in input i's own type again."""
    dtype = node.dtype(i)
    return f"{text}.to({dtype_text(dtype)})" if dtype is not None and dtype in WIDE else text


def dtype_of(node: Node, i: int = 0) -> str:
    """Input i's torch type: its name where known, asked at run time otherwise."""
    dtype = node.dtype(i)
    return dtype_text(dtype) if dtype in HELD else f"{node.x(i)}.dtype"


def is_integer(node: Node, i: int = 0) -> bool:
    return (node.dtype(i) or "").startswith(("int", "uint"))


def ints(node: Node, attribute: str, i: int) -> list[int] | None:
    """A list that older opsets have as an attribute and newer ones as a constant input i. None: not given, or not constant."""
    given = node.attr(attribute)
    if given is not None:
        return [int(n) for n in (given if isinstance(given, list) else [given])]
    const = node.const(i)
    return None if const is None else [int(n) for n in const.reshape(-1)]


def texts(node: Node, i: int) -> list[str] | None:
    """The elements of input i, a vector of ints (or one int), each as text: literals, or int variables. None where unknown."""
    const, items = node.const(i), node.fact(i).items
    if const is not None and const.ndim <= 1 and const.dtype.kind in "iu":
        return [literal(int(n)) for n in const.reshape(-1)]
    return None if items is None else list(items)


def whole(node: Node, i: int) -> str:
    """The only number of input i as a TorchScript int."""
    const, items = node.const(i), node.fact(i).items
    if const is not None:
        return literal(int(const.reshape(-1)[0]))
    return f"int({node.x(i)}.item())" if items is None else items[0]
