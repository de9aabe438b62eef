"""Normalisations over batches, planes, groups, last axes and channels."""

# ruff: noqa: RUF005 - TorchScript knows no [*list]

import torch
from torch import Tensor

from ..node import Node, Unmapped
from . import Rule


def batch_norm(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor, epsilon: float) -> Tensor:
    """Types may differ between x, scale and bias, mean and var: computed in the widest, given in x's."""
    wide = torch.promote_types(torch.promote_types(x.dtype, scale.dtype), mean.dtype)
    y = torch.batch_norm(x.to(wide), scale.to(wide), bias.to(wide), mean.to(wide), var.to(wide), False, 0.0, epsilon, True)
    return y.to(x.dtype)


def batch_norm_training(
    x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor, epsilon: float, momentum: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, running mean, running variance); the variance is of the population, unlike torch's."""
    axes = [0] + list(range(2, x.dim()))
    now = x.to(mean.dtype).mean(axes)
    spread = x.to(mean.dtype).var(axes, unbiased=False)
    y = batch_norm(x, scale, bias, now, spread, epsilon)
    return y, mean * momentum + now * (1 - momentum), var * momentum + spread * (1 - momentum)


def batch_norm_pointwise(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor, epsilon: float) -> Tensor:
    """spatial=0 of opset 7: statistics for each element."""
    return (x - mean) / torch.sqrt(var + epsilon) * scale + bias


def instance_norm(x: Tensor, scale: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    return torch.instance_norm(x, scale, bias, None, None, True, 0.0, epsilon, True)


def group_norm_grouped(x: Tensor, scale: Tensor, bias: Tensor, groups: int, epsilon: float) -> Tensor:
    """Opset 18: one scale and bias per group."""
    repeats = x.size(1) // groups
    return torch.group_norm(x, groups, scale.repeat_interleave(repeats), bias.repeat_interleave(repeats), epsilon, True)


def layer_norm(x: Tensor, scale: Tensor, bias: Tensor | None, axis: int, epsilon: float) -> Tensor:
    """For a scale that broadcasts to the normalised axes instead of having their shape."""
    y = torch.layer_norm(x, x.shape[axis:], None, None, epsilon) * scale
    return y if bias is None else y + bias


def layer_norm_all(x: Tensor, scale: Tensor, bias: Tensor | None, axis: int, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """(y, mean, 1 / standard deviation); the statistics are float32, whatever x is."""
    y, mean, scatter = torch.native_layer_norm(x, x.shape[axis:], None, None, epsilon)
    y = y * scale
    return y if bias is None else y + bias, mean, scatter


def rms_norm(x: Tensor, scale: Tensor, axis: int, epsilon: float) -> Tensor:
    """Mean square and division at least in float32, the scale in its own type."""
    wide = x if x.dtype == torch.float64 else x.to(torch.float32)
    axes = list(range(axis if axis >= 0 else axis + x.dim(), x.dim()))
    return (wide * torch.rsqrt(wide.square().mean(axes, keepdim=True) + epsilon)).to(x.dtype) * scale


def rms_norm_last(x: Tensor, scale: Tensor, epsilon: float) -> Tensor:
    """Over the last axis alone, which torch.onnx can write again."""
    wide = x if x.dtype == torch.float64 else x.to(torch.float32)
    return (wide * torch.rsqrt(wide.square().mean([-1], keepdim=True) + epsilon)).to(x.dtype) * scale


def lp_norm(x: Tensor, axis: int, p: int) -> Tensor:
    """0 where the norm is 0."""
    norm = torch.norm(x, p, [axis], keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / norm)


def mean_variance_norm(x: Tensor, axes: list[int]) -> Tensor:
    """(x - mean) / (standard deviation + 1e-9), the constant of the operator's definition."""
    centred = x - x.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)


def lrn(x: Tensor, size: int, alpha: float, beta: float, bias: float) -> Tensor:
    """Over the `size` channels around each, one more after than before where size is even."""
    planes = x.square().flatten(2).unsqueeze(1)
    planes = torch.constant_pad_nd(planes, [0, 0, (size - 1) // 2, size // 2], 0.0)
    mean = torch.nn.functional.avg_pool2d(planes, [size, 1], [1, 1]).view(x.shape)
    return x / (mean * alpha + bias).pow(beta)


def _epsilon(node: Node) -> float:
    return float(node.attr("epsilon", 1e-5))


def _batch_norm(node: Node) -> str:
    training = node.attr("training_mode", 0) if node.opset >= 14 else int(node.n_outputs > 1)
    inputs = [node.x(i) for i in range(5)]
    if training:
        if node.n_outputs > 3:
            raise Unmapped("training before opset 14")
        if node.n_outputs == 1:
            return f"{node.call(batch_norm_training, *inputs, _epsilon(node), float(node.attr('momentum', 0.9)))}[0]"
        return node.call(batch_norm_training, *inputs, _epsilon(node), float(node.attr("momentum", 0.9)))
    if node.attr("spatial", 1) == 0:
        return node.call(batch_norm_pointwise, *inputs, _epsilon(node))
    if node.dtype(0) is not None and all(node.dtype(i) == node.dtype(0) for i in range(5)):
        return f"torch.batch_norm({', '.join(inputs)}, False, 0.0, {_epsilon(node)!r}, True)"
    return node.call(batch_norm, *inputs, _epsilon(node))


def _fixed(shape: tuple[int | str | None, ...] | None) -> list[int] | None:
    """A shape whose every length is known."""
    sizes = [n for n in shape or () if isinstance(n, int)]
    return sizes if shape is not None and len(sizes) == len(shape) else None


def _layer_norm(node: Node) -> str:
    axis, shape = node.attr("axis", -1), _fixed(node.shape(1))
    rank = node.rank(0)
    covers = -axis if axis < 0 else None if rank is None else rank - axis
    own = shape is not None and len(shape) == covers and _fixed((node.shape(0) or ())[-len(shape) :]) in (shape, None)
    own = own and shape != [1] and (not node.has(2) or _fixed(node.shape(2)) == shape)
    if node.n_outputs > 1:
        text = node.call(layer_norm_all, node.x(0), node.x(1), node.x(2), axis, _epsilon(node))
        return text if node.n_outputs == 3 else f"{text}[:{node.n_outputs}]"
    if own and node.dtype(0) == node.dtype(1):
        return f"torch.layer_norm({node.x(0)}, {shape}, {node.x(1)}, {node.x(2)}, {_epsilon(node)!r})"
    return node.call(layer_norm, node.x(0), node.x(1), node.x(2), axis, _epsilon(node))


def _group_norm(node: Node) -> str:
    groups = node.attr("num_groups")
    if node.opset < 21:
        return node.call(group_norm_grouped, node.x(0), node.x(1), node.x(2), groups, _epsilon(node))
    return f"torch.group_norm({node.x(0)}, {groups}, {node.x(1)}, {node.x(2)}, {_epsilon(node)!r}, True)"


def _lrn(node: Node) -> str:
    alpha, beta, bias = (float(node.attr(*of)) for of in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    return node.call(lrn, node.x(0), node.attr("size"), alpha, beta, bias)


RULES: dict[str, Rule] = {
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": lambda node: node.call(instance_norm, node.x(0), node.x(1), node.x(2), _epsilon(node)),
    "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm,
    "RMSNormalization": lambda node: node.call(
        rms_norm_last if node.attr("axis", -1) == -1 else rms_norm,
        *(node.x(i) for i in (0, 1)),
        *([] if node.attr("axis", -1) == -1 else [node.attr("axis")]),
        _epsilon(node),
    ),
    "LpNormalization": lambda node: node.call(lp_norm, node.x(0), node.attr("axis", -1), node.attr("p", 2)),
    "MeanVarianceNormalization": lambda node: node.call(mean_variance_norm, node.x(0), list(node.attr("axes", [0, 2, 3]))),
    "LRN": _lrn,
}
