"""NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss."""

import torch
from torch import Tensor

from ..node import Node
from . import Rule

REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}


def nll(x: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignored: int) -> Tensor:
    """x [N, C, …] of log-probabilities. torch lacks kernels for half types on the CPU: those are computed in float32."""
    wide = x if x.dtype == torch.float64 else x.to(torch.float32)
    classes = None if weight is None else weight.to(wide.dtype)
    return torch.ops.aten.nll_loss_nd(wide, target.to(torch.int64), classes, reduction, ignored).to(x.dtype)


def cross_entropy(x: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignored: int) -> tuple[Tensor, Tensor]:
    """(loss, log-probabilities)."""
    log_probabilities = torch.log_softmax(x, 1)
    return nll(log_probabilities, target, weight, reduction, ignored), log_probabilities


def _settings(node: Node) -> tuple[str, str, str, int, int]:
    """Without ignore_index nothing is ignored: no label is as low as this one."""
    ignored = node.attr("ignore_index", -(2**31))
    return node.x(0), node.x(1), node.x(2), REDUCTIONS[node.attr("reduction", "mean")], ignored


def _cross_entropy(node: Node) -> str:
    return node.call(cross_entropy, *_settings(node)) + ("[0]" if node.n_outputs == 1 else "")


RULES: dict[str, Rule] = {
    "NegativeLogLikelihoodLoss": lambda node: node.call(nll, *_settings(node)),
    "SoftmaxCrossEntropyLoss": _cross_entropy,
}
