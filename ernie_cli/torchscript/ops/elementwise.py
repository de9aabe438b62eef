"""Elementwise mathematics: Add … Pow, Exp, Sin, Clip, Max. Activations have their own file; so have comparisons and casts."""

from __future__ import annotations

import torch

from ..node import Node, literal
from ..text import WIDE, dtype_of, is_integer, narrow, wide
from . import Rule


def clip(x: torch.Tensor, low: torch.Tensor | None, high: torch.Tensor | None) -> torch.Tensor:
    """Bounds that are tensors; where low > high, high wins."""
    if low is not None:
        x = torch.maximum(x, low)
    if high is not None:
        x = torch.minimum(x, high)
    return x


def divide(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Of a type known only at run time."""
    return torch.div(x, y) if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def is_inf(x: torch.Tensor, negative: bool, positive: bool) -> torch.Tensor:
    inf = torch.isinf(x)
    if not negative:
        inf = torch.logical_and(inf, x > 0)
    if not positive:
        inf = torch.logical_and(inf, x < 0)
    return inf


def _unary(function: str) -> Rule:
    return lambda node: narrow(node, f"{function}({wide(node, 0)})")


def _binary(function: str) -> Rule:
    return lambda node: narrow(node, f"{function}({wide(node, 0)}, {wide(node, 1)})")


def _folded(function: str) -> Rule:
    """Any number of inputs, two by two."""

    def rule(node: Node) -> str:
        text = wide(node, 0)
        for i in range(1, node.n_inputs):
            text = f"{function}({text}, {wide(node, i)})"
        return narrow(node, text) if node.n_inputs > 1 else node.x(0)

    return rule


def _div(node: Node) -> str:
    """Integers are cut towards zero."""
    if node.dtype(0) is None:
        return node.call(divide, node.x(0), node.x(1))
    mode = ', rounding_mode="trunc"' if is_integer(node) else ""
    return narrow(node, f"torch.div({wide(node, 0)}, {wide(node, 1)}{mode})")


def _mod(node: Node) -> str:
    return narrow(node, f"torch.{'fmod' if node.attr('fmod', 0) else 'remainder'}({wide(node, 0)}, {wide(node, 1)})")


def _pow(node: Node) -> str:
    """The result has the base's type, whatever the exponent's is."""
    exponent = node.const(1)
    if exponent is not None and exponent.ndim == 0:
        text = f"torch.pow({wide(node, 0)}, {literal(exponent.reshape(-1)[0])})"
    else:
        text = f"torch.pow({wide(node, 0)}, {wide(node, 1)})"
    same = node.dtype(0) is not None and node.dtype(0) == node.dtype(1) and node.dtype(0) not in WIDE
    return text if same else f"{text}.to({dtype_of(node)})"


def _mean(node: Node) -> str:
    return f"({_folded('torch.add')(node)}) / {node.n_inputs}" if node.n_inputs > 1 else node.x(0)


def _clip(node: Node) -> str:
    if node.opset < 11:
        low, high = node.attr("min"), node.attr("max")
        return f"torch.clamp({node.x(0)}, {literal(low)}, {literal(high)})" if (low, high) != (None, None) else node.x(0)
    if not node.has(1) and not node.has(2):
        return node.x(0)
    bounds = [node.const(i) for i in (1, 2)]
    if all(bound is not None or not node.has(i) for i, bound in zip((1, 2), bounds, strict=True)) and node.dtype(0) not in ("uint64",):
        texts = [literal(None if bound is None else bound.reshape(-1)[0]) for bound in bounds]
        return narrow(node, f"torch.clamp({wide(node, 0)}, {', '.join(texts)})")
    return narrow(node, node.call(clip, wide(node, 0), *(wide(node, i) if node.has(i) else "None" for i in (1, 2))))


def _is_inf(node: Node) -> str:
    negative, positive = bool(node.attr("detect_negative", 1)), bool(node.attr("detect_positive", 1))
    return f"torch.isinf({node.x(0)})" if negative and positive else node.call(is_inf, node.x(0), negative, positive)


def _softened(function: str) -> Rule:
    """Functions that old kernels lack for float16 are left to torch, which has them all."""
    return lambda node: f"torch.{function}({node.x(0)})"


RULES: dict[str, Rule] = {
    **{name.capitalize(): _softened(name) for name in ("ceil", "floor", "round", "sqrt", "exp", "log", "reciprocal", "erf", "sign")},
    **{name.capitalize(): _softened(name) for name in ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh")},
    **{name.capitalize(): _softened(name) for name in ("asinh", "acosh", "atanh")},
    "Abs": _unary("torch.abs"),
    "Neg": _unary("torch.neg"),
    "Sign": _unary("torch.sign"),
    "Add": _binary("torch.add"),
    "Sub": _binary("torch.sub"),
    "Mul": _binary("torch.mul"),
    "Div": _div,
    "Mod": _mod,
    "Pow": _pow,
    "Max": _folded("torch.maximum"),
    "Min": _folded("torch.minimum"),
    "Sum": _folded("torch.add"),
    "Mean": _mean,
    "Clip": _clip,
    "IsNaN": lambda node: f"torch.isnan({node.x(0)})",
    "IsInf": _is_inf,
    "Identity": lambda node: node.x(0),
}
