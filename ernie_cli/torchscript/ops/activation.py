"""Activations: ReLU and its kin, the sigmoids, softmax. Plain mathematics (Exp, Erf, Abs …) is elementwise.py's."""

import torch
from torch import Tensor

from ..node import Function, Node
from . import Rule


def celu(x: Tensor, alpha: float) -> Tensor:
    return torch.clamp_min(x, 0.0) + torch.clamp_max(alpha * torch.expm1(x / alpha), 0.0)


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """ONNX broadcasts the slope to the right (numpy's rule), torch.prelu takes it per channel."""
    return torch.where(x < 0, slope * x, x)


def thresholded_relu(x: Tensor, alpha: float) -> Tensor:
    return torch.where(x > alpha, x, torch.zeros_like(x))


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x))."""
    return torch.clamp_min(x, 0) + torch.log1p(torch.exp(-torch.abs(x)))


def shrink(x: Tensor, bias: float, lambd: float) -> Tensor:
    above, below = x > lambd, x < -lambd
    kept = torch.where(above, x - bias, torch.where(below, x + bias, torch.zeros_like(x)))
    return kept.to(x.dtype)  # integers: the bias would make them floats


def softmax_flat(x: Tensor, axis: int) -> Tensor:
    """Before opset 13: everything from `axis` on is one axis."""
    return torch.softmax(x.flatten(axis), -1).view(x.shape) if x.dim() > 0 else torch.ones_like(x)


def log_softmax_flat(x: Tensor, axis: int) -> Tensor:
    return torch.log_softmax(x.flatten(axis), -1).view(x.shape) if x.dim() > 0 else torch.zeros_like(x)


def hardmax(x: Tensor, axis: int) -> Tensor:
    """1 at the first of the largest along `axis`, 0 elsewhere."""
    return torch.zeros_like(x).scatter(axis, torch.argmax(x, axis, keepdim=True), 1.0)


def hardmax_flat(x: Tensor, axis: int) -> Tensor:
    return hardmax(x.flatten(axis), -1).view(x.shape)


def swiglu(gate: Tensor, up: Tensor, alpha: float) -> Tensor:
    return gate * torch.sigmoid(alpha * gate) * up


def _softmax(flat: Function, plain: str) -> Rule:
    def rule(node: Node) -> str:
        if node.opset >= 13:
            return f"{plain}({node.x(0)}, {node.attr('axis', -1)})"
        axis = node.attr("axis", 1)
        rank = node.rank(0)
        if rank is not None and axis in (rank - 1, -1):  # the last axis: flattening changes nothing
            return f"{plain}({node.x(0)}, {axis})"
        return node.call(flat, node.x(0), axis)

    return rule


def _hardmax(node: Node) -> str:
    if node.opset >= 13:
        return node.call(hardmax, node.x(0), node.attr("axis", -1))
    return node.call(hardmax_flat, node.x(0), node.attr("axis", 1))


def _prelu(node: Node) -> str:
    shape, rank = node.shape(1), node.rank(0)
    per_channel = shape is not None and rank is not None and rank > 1 and len(shape) == rank - 1 and all(n == 1 for n in shape[1:])
    if per_channel or node.opset < 7:  # before opset 7 the slope's one axis was that of the channels
        return f"torch.prelu({node.x(0)}, {node.x(1)}.flatten())"
    return node.call(prelu, node.x(0), node.x(1))


def _softplus(node: Node) -> str:
    """Beyond torch's threshold of 20 the rest is below the precision of all types but float64."""
    if node.dtype(0) in ("float32", "float16", "bfloat16"):
        return f"torch.nn.functional.softplus({node.x(0)})"
    return node.call(softplus, node.x(0))


def _gelu(node: Node) -> str:
    return f"torch.nn.functional.gelu({node.x(0)}, approximate={node.attr('approximate', 'none')!r})"


def _hard_sigmoid(node: Node) -> str:
    alpha, beta = float(node.attr("alpha", 0.2)), float(node.attr("beta", 0.5))
    return f"torch.clamp({node.x(0)} * {alpha!r} + {beta!r}, 0.0, 1.0)"


def _swish(node: Node) -> str:
    alpha = float(node.attr("alpha", 1.0))
    return f"torch.nn.functional.silu({node.x(0)})" if alpha == 1.0 else f"{node.x(0)} * torch.sigmoid({node.x(0)} * {alpha!r})"


def _selu(node: Node) -> str:
    alpha, gamma = float(node.attr("alpha", 1.6732632423543772)), float(node.attr("gamma", 1.0507009873554805))
    return f"torch.ops.aten.elu({node.x(0)}, {alpha!r}, {gamma!r})"


RULES: dict[str, Rule] = {
    "Relu": lambda node: f"torch.relu({node.x(0)})",
    "LeakyRelu": lambda node: f"torch.nn.functional.leaky_relu({node.x(0)}, {float(node.attr('alpha', 0.01))!r})",
    "PRelu": _prelu,
    "Elu": lambda node: f"torch.ops.aten.elu({node.x(0)}, {float(node.attr('alpha', 1.0))!r})",
    "Celu": lambda node: node.call(celu, node.x(0), float(node.attr("alpha", 1.0))),
    "Selu": _selu,
    "ThresholdedRelu": lambda node: node.call(thresholded_relu, node.x(0), float(node.attr("alpha", 1.0))),
    "Sigmoid": lambda node: f"torch.sigmoid({node.x(0)})",
    "Tanh": lambda node: f"torch.tanh({node.x(0)})",
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda node: f"torch.nn.functional.hardswish({node.x(0)})",
    "Mish": lambda node: f"torch.nn.functional.mish({node.x(0)})",
    "Gelu": _gelu,
    "Swish": _swish,
    "SwiGLU": lambda node: node.call(swiglu, node.x(0), node.x(1), float(node.attr("alpha", 1.0))),
    "Softplus": _softplus,
    "Softsign": lambda node: f"torch.nn.functional.softsign({node.x(0)})",
    "Shrink": lambda node: node.call(shrink, node.x(0), float(node.attr("bias", 0.0)), float(node.attr("lambd", 0.5))),
    "Softmax": _softmax(softmax_flat, "torch.softmax"),
    "LogSoftmax": _softmax(log_softmax_flat, "torch.log_softmax"),
    "Hardmax": _hardmax,
}
