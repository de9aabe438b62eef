"""Comparisons, boolean and bitwise operators, Where."""

from __future__ import annotations

from ..node import Node, Unmapped
from ..text import narrow, wide
from ..types import dtype_text
from . import Rule


def _compare(function: str) -> Rule:
    def rule(node: Node) -> str:
        if node.dtype(0) == "string":
            raise Unmapped("strings: torch has no tensors of them")
        return f"torch.{function}({wide(node, 0)}, {wide(node, 1)})"

    return rule


def _binary(function: str) -> Rule:
    return lambda node: narrow(node, f"torch.{function}({wide(node, 0)}, {wide(node, 1)})")


def _shift(node: Node) -> str:
    direction = "left" if node.attr("direction") == "LEFT" else "right"
    return narrow(node, f"torch.bitwise_{direction}_shift({wide(node, 0)}, {wide(node, 1)})")


def _where(node: Node) -> str:
    if node.dtype(1) == "string":
        raise Unmapped("strings: torch has no tensors of them")
    return narrow(node, f"torch.where({node.x(0)}, {wide(node, 1)}, {wide(node, 2)})", 1)


def _bit_cast(node: Node) -> str:
    dtype = node.out_dtype(0)
    if dtype is None or dtype in ("string", "int4", "uint4", "int2", "uint2"):
        raise Unmapped(f"the bits of {dtype}")
    return f"torch.view_copy({node.x(0)}, dtype={dtype_text(dtype)})"


RULES: dict[str, Rule] = {
    "Equal": _compare("eq"),
    "Greater": _compare("gt"),
    "GreaterOrEqual": _compare("ge"),
    "Less": _compare("lt"),
    "LessOrEqual": _compare("le"),
    "And": _compare("logical_and"),
    "Or": _compare("logical_or"),
    "Xor": _compare("logical_xor"),
    "Not": lambda node: f"torch.logical_not({node.x(0)})",
    "BitwiseAnd": _binary("bitwise_and"),
    "BitwiseOr": _binary("bitwise_or"),
    "BitwiseXor": _binary("bitwise_xor"),
    "BitwiseNot": lambda node: narrow(node, f"torch.bitwise_not({wide(node, 0)})"),
    "BitShift": _shift,
    "BitCast": _bit_cast,
    "Where": _where,
}
