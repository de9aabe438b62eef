"""Products of matrices: MatMul, Gemm, Einsum, Det. Quantised ones have their own file."""

from __future__ import annotations

from ..node import Node, literal
from ..text import is_integer, narrow, wide
from . import Rule


def _matmul(node: Node) -> str:
    return narrow(node, f"torch.matmul({wide(node, 0)}, {wide(node, 1)})")


def _gemm(node: Node) -> str:
    """alpha · A·B + beta · C; the plain case is a linear layer."""
    alpha, beta = float(node.attr("alpha", 1.0)), float(node.attr("beta", 1.0))
    a = f"{wide(node, 0)}.t()" if node.attr("transA", 0) else wide(node, 0)
    shape, plain = node.shape(2), (alpha, beta) == (1.0, 1.0) and not is_integer(node)
    bias = not node.has(2) or (shape is not None and len(shape) == 1 and shape[0] != 1)
    if plain and bias and node.attr("transB", 0):
        return f"torch.nn.functional.linear({a}, {node.x(1)}, {node.x(2)})"
    b = f"{wide(node, 1)}.t()" if node.attr("transB", 0) else wide(node, 1)
    number = int if is_integer(node) else float
    text = f"torch.matmul({a}, {b})" + ("" if alpha == 1.0 else f" * {literal(number(alpha))}")
    if node.has(2):
        text = f"{text} + {wide(node, 2)}" + ("" if beta == 1.0 else f" * {literal(number(beta))}")
    return narrow(node, f"({text})")


RULES: dict[str, Rule] = {
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Einsum": lambda node: f"torch.einsum({node.attr('equation')!r}, {node.xs()})",
    "Det": lambda node: f"torch.linalg.det({node.x(0)})" if node.dtype(0) != "float16" else f"torch.linalg.det({node.x(0)}.float()).half()",
}
