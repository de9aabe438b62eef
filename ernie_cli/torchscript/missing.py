"""Operators that torch's exporter of TorchScript has no mapping for, written in ONNX's. Those that it has and writes wrongly: faults.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..need import need

_END = (1 << 63) - 1  # of ONNX's Slice: to the end, however long


def _diff(g: Any, x: Any, n: Any, dim: Any, prepend: Any = None, append: Any = None) -> Any:
    """`torch.diff`: neighbours' differences along `dim`, `n` times; what it is to begin and end with is joined on first."""
    times, axis = _number(n), _number(dim)
    parts = [value for value in (prepend, x, append) if value is not None and not value.node().mustBeNone()]
    if len(parts) > 1:
        x = g.op("Concat", *parts, axis_i=axis)
    for _ in range(times):
        x = g.op("Sub", _slice(g, x, axis, 1, _END), _slice(g, x, axis, 0, -1))
    return x


def _slice(g: Any, x: Any, axis: int, begin: int, end: int) -> Any:
    tensor = need("torch").tensor
    return g.op("Slice", x, *(g.op("Constant", value_t=tensor([number])) for number in (begin, end, axis)))


def _number(value: Any) -> int:
    return int(value.node().t("value"))


#: torch operator → its symbolic function, from opset 10 on (Slice with inputs).
OPERATORS: dict[str, Callable[..., Any]] = {"aten::diff": _diff}
LOWEST = 10
