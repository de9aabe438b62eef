"""ONNX operator → Paddle calls. One file per family; each function takes the builder, the node and the node's inputs.

Inputs are Paddle values, or numpy arrays where they are known while the program is built: arrays of objects where only some
elements are known (numbers) and others are not (values), as in shapes. See builder.py. Importing this loads no Paddle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: operator of the default domain → function(builder, node, *inputs) → a value, or a tuple of them
TABLE: dict[str, Callable[..., Any]] = {}


def op(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a function into the table under these operators' names."""

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            TABLE[name] = function
        return function

    return enter


def table() -> dict[str, Callable[..., Any]]:
    """The whole table, every family loaded."""
    from . import (  # noqa: F401
        activations,
        arithmetic,
        control,
        detection,
        indexing,
        layers,
        norms,
        padding,
        pooling,
        recurrent,
        reductions,
        resizing,
        shapes,
    )

    return TABLE
