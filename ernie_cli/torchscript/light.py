"""Keeps torch's exporter from carrying the weights through its shape inference. What it writes stays the same, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..need import need

_PASS = "_jit_pass_onnx_graph_shape_type_inference"
#: A shape depends on the values of shapes, axes, indices and scales: few numbers. Whole ones may be counted off a table of positions.
_MOST_ELEMENTS = 1 << 16
_MOST_FLOATS = 1 << 10


@contextmanager
def without_weights() -> Iterator[None]:
    """Within it, the exporter infers the shapes of a graph without the values of its weights.

    Node by node it makes a graph of the node and its constants, serialises it and has it read again; with the weights that is half the
    time of exporting a decoder of 0.3B parameters (torch 2.13; 14 of 28 s). A torch without this pass is left as it is.
    """
    functions = need("torch")._C
    infer = getattr(functions, _PASS, None)
    if infer is None:
        yield
        return

    def light(graph: Any, values: Mapping[str, Any], number: int) -> Any:
        return infer(graph, {name: value for name, value in values.items() if _may_tell_a_shape(value)}, number)

    setattr(functions, _PASS, light)
    try:
        yield
    finally:
        setattr(functions, _PASS, infer)


def _may_tell_a_shape(value: Any) -> bool:
    torch = need("torch")
    if not isinstance(value, torch.Tensor):
        return True
    return int(value.numel()) <= (_MOST_FLOATS if value.is_floating_point() or value.is_complex() else _MOST_ELEMENTS)
