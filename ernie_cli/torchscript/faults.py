"""Puts right, while it runs, what torch's exporter of TorchScript is known to get wrong. The exporter itself is called in export.py."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from ..need import need
from . import missing
from .opsets import registry

#: From this opset on the axes of Squeeze are an input.
_AXES_ARE_AN_INPUT = 13


@contextmanager
def corrected(number: int) -> Iterator[None]:
    """Within it, the exporter writes the operators of `_CORRECTIONS` rightly, and those of missing.py at all. number: the opset."""
    table = registry()
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for operator, correction in _CORRECTIONS.items():
            if theirs := _maps(table, operator, number):
                _register(stack, operator, correction(theirs, number), number)
        for operator, symbolic in missing.OPERATORS.items():
            if number >= missing.LOWEST and not _maps(table, operator, number):
                _register(stack, operator, symbolic, number)
        yield


def _maps(table: Any, operator: str, number: int) -> Any:
    group = table.get_function_group(operator)
    return group.get(number) if group is not None else None


def _register(stack: ExitStack, operator: str, symbolic: Callable[..., Any], number: int) -> None:
    onnx = need("torch").onnx
    onnx.register_custom_op_symbolic(operator, symbolic, number)
    stack.callback(onnx.unregister_custom_op_symbolic, operator, number)


def _own_dim(theirs: Callable[..., Any], number: int) -> Callable[..., Any]:
    """A negative dim of `repeat_interleave` is made positive (torch 2.4 to 2.13) by adding to the constant itself.

    Equal constants of a module read from a file are one: the -1 of `x.view(a, b, -1, 32)` then becomes a 3, too. Grouped heads
    and rotations of decoders write both. So it gets a constant of its own.
    """

    def symbolic(g: Any, x: Any, repeats: Any, dim: Any = None, *more: Any) -> Any:
        value = _constant(dim)
        return theirs(g, x, repeats, dim if value is None else g.op("Constant", value_t=value.clone()), *more)

    return symbolic


def _several_dims(theirs: Callable[..., Any], number: int) -> Callable[..., Any]:
    """`squeeze` of several dims ends the exporter with a ValueError. As with one dim, each is taken to be of length 1."""

    def symbolic(g: Any, x: Any, dim: Any = None) -> Any:
        axes = _constant(dim)
        if axes is None or axes.dim() != 1:
            return theirs(g, x) if dim is None else theirs(g, x, dim)
        if number >= _AXES_ARE_AN_INPUT:
            return g.op("Squeeze", x, g.op("Constant", value_t=axes.clone()))
        return g.op("Squeeze", x, axes_i=axes.tolist())

    return symbolic


def _stable(theirs: Callable[..., Any], number: int) -> Callable[..., Any]:
    """`sort` with its `stable` argument is taken for one with `out` and refused. ONNX's TopK, which it becomes, is always stable."""

    def symbolic(g: Any, x: Any, *more: Any) -> Any:
        return theirs(g, x, *(more[1:] if len(more) == 3 else more))

    return symbolic


def _constant(value: Any) -> Any:
    """The tensor of a constant of the graph that is being written, else None."""
    node = value.node() if value is not None else None
    return node.t("value") if node is not None and node.kind() == "onnx::Constant" and node.kindOf("value") == "t" else None


_CORRECTIONS: dict[str, Callable[..., Callable[..., Any]]] = {
    "aten::argsort": _stable,
    "aten::repeat_interleave": _own_dim,
    "aten::sort": _stable,
    "aten::squeeze": _several_dims,
}
