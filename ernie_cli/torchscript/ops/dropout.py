"""Dropout and drawing from distributions over given probabilities. The drawn numbers are torch's, never those of another engine."""

import torch
from torch import Tensor

from ..node import Node
from ..types import dtype_text
from . import Rule


def dropout(x: Tensor, ratio: Tensor | None, training: Tensor) -> tuple[Tensor, Tensor]:
    """(x with elements dropped and the others scaled up, mask of those kept)."""
    share = 0.5 if ratio is None else float(ratio)
    if not bool(training) or share == 0.0:
        return x, torch.ones_like(x, dtype=torch.bool)
    mask = torch.rand(x.shape, device=x.device) >= share
    return torch.where(mask, x / (1.0 - share), torch.zeros_like(x)), mask


def bernoulli(x: Tensor, dtype: int) -> Tensor:
    return (torch.rand(x.shape, dtype=torch.float64, device=x.device) < x).to(dtype)


def multinomial(x: Tensor, samples: int, dtype: int) -> Tensor:
    """x [B, classes] of unnormalised log-probabilities → [B, samples]."""
    return torch.multinomial(torch.softmax(x.to(torch.float32), -1), samples, True).to(dtype)


def _dropout(node: Node) -> str:
    training = node.const(2)
    if node.opset >= 12 and node.has(2) and (training is None or bool(training)):
        return node.call(dropout, node.x(0), node.x(1), node.x(2)) + ("[0]" if node.n_outputs == 1 else "")
    if node.n_outputs == 1:
        return node.x(0)
    if node.opset < 10:  # the mask had x's type
        return f"{node.x(0)}, torch.ones_like({node.x(0)})"
    return f"{node.x(0)}, torch.ones_like({node.x(0)}, dtype=torch.bool)"


def _type(node: Node, default: str) -> str:
    import onnx_ir as ir

    return dtype_text(str(ir.DataType(node.attr("dtype")).numpy().name)) if node.attr("dtype") else default


RULES: dict[str, Rule] = {
    "Dropout": _dropout,
    "Bernoulli": lambda node: node.call(bernoulli, node.x(0), _type(node, f"{node.x(0)}.dtype")),
    "Multinomial": lambda node: node.call(multinomial, node.x(0), node.attr("sample_size", 1), _type(node, "torch.int32")),
}
