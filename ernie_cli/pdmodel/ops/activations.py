"""Activation functions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import TABLE, op

_PLAIN = {"Relu": "relu", "Sigmoid": "sigmoid", "Softsign": "softsign", "Mish": "mish"}


def _plain(name: str) -> Any:
    return lambda c, node, x: getattr(c.F, name)(c.t(x))


TABLE.update({name: _plain(function) for name, function in _PLAIN.items()})


@op("Clip")
def clip(c: Any, node: Any, x: Any, low: Any = None, high: Any = None) -> Any:
    x = c.t(x)
    low = np.asarray(node.get("min"), np.float32) if low is None and node.get("min") is not None else low
    high = np.asarray(node.get("max"), np.float32) if high is None and node.get("max") is not None else high
    if low is not None:
        x = c.p.maximum(x, c.t(low))
    return c.p.minimum(x, c.t(high)) if high is not None else x


@op("Gelu")
def gelu(c: Any, node: Any, x: Any) -> Any:
    return c.F.gelu(c.t(x), approximate=node.get("approximate", "none") == "tanh")


@op("LeakyRelu")
def leaky_relu(c: Any, node: Any, x: Any) -> Any:
    return c.F.leaky_relu(c.t(x), node.get("alpha", 0.01))


@op("PRelu")
def prelu(c: Any, node: Any, x: Any, slope: Any) -> Any:
    x = c.t(x)
    zero = c.p.zeros_like(x)
    return c.p.maximum(x, zero) + c.t(slope) * c.p.minimum(x, zero)


@op("Elu")
def elu(c: Any, node: Any, x: Any) -> Any:
    return c.F.elu(c.t(x), node.get("alpha", 1.0))


@op("Celu")
def celu(c: Any, node: Any, x: Any) -> Any:
    return c.F.celu(c.t(x), node.get("alpha", 1.0))


@op("Selu")
def selu(c: Any, node: Any, x: Any) -> Any:
    alpha, gamma = node.get("alpha", 1.6732632423543772), node.get("gamma", 1.0507009873554805)
    x = c.t(x)
    zero = c.p.zeros_like(x)
    return gamma * (c.p.maximum(x, zero) + alpha * (c.p.exp(c.p.minimum(x, zero)) - 1.0))


@op("ThresholdedRelu")
def thresholded_relu(c: Any, node: Any, x: Any) -> Any:
    return c.F.thresholded_relu(c.t(x), node.get("alpha", 1.0))


@op("HardSigmoid")
def hard_sigmoid(c: Any, node: Any, x: Any) -> Any:
    return c.F.hardsigmoid(c.t(x), slope=node.get("alpha", 0.2), offset=node.get("beta", 0.5))


@op("HardSwish")
def hard_swish(c: Any, node: Any, x: Any) -> Any:
    return c.F.hardswish(c.t(x))


@op("Swish")
def swish(c: Any, node: Any, x: Any) -> Any:
    x = c.t(x)
    return x * c.F.sigmoid(x * node.get("alpha", 1.0))


@op("Softplus")
def softplus(c: Any, node: Any, x: Any) -> Any:
    return c.F.softplus(c.t(x), threshold=math.inf)


@op("Shrink")
def shrink(c: Any, node: Any, x: Any) -> Any:
    x, bias, edge = c.t(x), node.get("bias", 0.0), node.get("lambd", 0.5)
    zero = c.p.zeros_like(x)
    return c.p.where(x < -edge, x + bias, c.p.where(x > edge, x - bias, zero))
