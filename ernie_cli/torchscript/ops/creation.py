"""Tensors from shapes and numbers: Shape, Size, Range, ConstantOfShape, EyeLike, the random ones."""

from __future__ import annotations

import numpy as np
import torch

from ..node import Node, Unmapped, literal
from ..text import WIDE, dtype_of, texts
from ..types import HELD, dtype_text
from . import Rule


def shape_part(x: torch.Tensor, begin: int, end: int) -> torch.Tensor:
    return torch.ops.aten.slice(torch._shape_as_tensor(x), 0, begin, end, 1).to(x.device)


def size(x: torch.Tensor) -> torch.Tensor:
    return torch.tensor(x.numel(), dtype=torch.int64, device=x.device)


def full(shape: torch.Tensor, value: float, dtype: torch.dtype) -> torch.Tensor:
    lengths: list[int] = shape.tolist()
    return torch.full(lengths, value, dtype=dtype, device=shape.device)


def full_ints(shape: torch.Tensor, value: int, dtype: torch.dtype) -> torch.Tensor:
    lengths: list[int] = shape.tolist()
    return torch.full(lengths, value, dtype=dtype, device=shape.device)


def span(begin: torch.Tensor, end: torch.Tensor, step: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """begin, begin + step, … before end; nothing where the step leads away from it."""
    count = int(torch.ceil((end.to(torch.float64) - begin.to(torch.float64)) / step.to(torch.float64)).item())
    return (begin + torch.arange(max(count, 0), device=begin.device) * step).to(dtype)


def eye_like(x: torch.Tensor, k: int, dtype: torch.dtype) -> torch.Tensor:
    rows = torch.arange(x.size(0), device=x.device).unsqueeze(1)
    return (torch.arange(x.size(1), device=x.device).unsqueeze(0) == rows + k).to(dtype)


def uniform(shape: list[int], low: float, high: float, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return (torch.rand(shape, device=device) * (high - low) + low).to(dtype)


def normal(shape: list[int], mean: float, scale: float, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return (torch.randn(shape, device=device) * scale + mean).to(dtype)


def _shape(node: Node) -> str:
    begin, end = node.attr("start", 0), node.attr("end")
    if begin == 0 and end is None:
        return f"torch._shape_as_tensor({node.x(0)}).to({node.x(0)}.device)"
    return node.call(shape_part, node.x(0), begin, 2**62 if end is None else end)


def _constant_of_shape(node: Node) -> str:
    value = node.attr("value", np.zeros(1, np.float32))
    if value.dtype.name not in HELD:
        raise Unmapped(f"the type {value.dtype.name}")
    number = value.astype(HELD[value.dtype.name] if value.dtype.name.endswith(("int4", "int2")) else value.dtype).reshape(-1)[0]
    fill = literal(float(number) if value.dtype.kind not in "biu" else number)
    lengths = texts(node, 0)
    if lengths is not None:
        return f"torch.full([{', '.join(lengths)}], {fill}, dtype={dtype_text(value.dtype.name)}, device={node.device})"
    function = full if value.dtype.kind not in "biu" else full_ints
    return node.call(function, node.x(0), int(number) if function is full_ints else fill, dtype_text(value.dtype.name))


def _range(node: Node) -> str:
    bounds = [texts(node, i) for i in range(3)]
    if bounds[0] == ["0"] and bounds[1] is not None and bounds[2] == ["1"]:
        return f"torch.arange({bounds[1][0]}, dtype={dtype_of(node)}, device={node.device})"
    return node.call(span, *(f"{node.x(i)}.to(torch.int64)" if node.dtype(i) in WIDE else node.x(i) for i in range(3)), dtype_of(node))


def _eye_like(node: Node) -> str:
    return node.call(eye_like, node.x(0), node.attr("k", 0), _dtype(node, dtype_of(node)))


def _dtype(node: Node, default: str) -> str:
    """The type that the attribute `dtype` names."""
    import onnx_ir as ir

    given = node.attr("dtype")
    return default if not given else dtype_text(ir.DataType(given).numpy().name)


def _random(node: Node) -> str:
    like = node.op.endswith("Like")
    shape = f"{node.x(0)}.size()" if like else literal(node.attr("shape"))
    dtype = _dtype(node, dtype_of(node) if like else "torch.float32")
    if "Normal" in node.op:
        return node.call(normal, shape, float(node.attr("mean", 0.0)), float(node.attr("scale", 1.0)), dtype, node.device)
    return node.call(uniform, shape, float(node.attr("low", 0.0)), float(node.attr("high", 1.0)), dtype, node.device)


RULES: dict[str, Rule] = {
    "Shape": _shape,
    "Size": lambda node: node.call(size, node.x(0)),
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "EyeLike": _eye_like,
    **dict.fromkeys(("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"), _random),
}
