"""What a Paddle inference program is, whichever of the two formats it lies in. Reading them is pir.py's and legacy.py's affair."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..runtime.graphs import TensorSpec

#: paddle.framework.VarType.Type (framework.proto) → numpy's name, or ml_dtypes'. 7 to 19 are containers, not element types.
DTYPES = {
    0: "bool",
    1: "int16",
    2: "int32",
    3: "int64",
    4: "float16",
    5: "float32",
    6: "float64",
    20: "uint8",
    21: "int8",
    22: "bfloat16",
    23: "complex64",
    24: "complex128",
    32: "float8_e4m3fn",
    33: "float8_e5m2",
}
WIDTHS = {
    "bool": 1,
    "int8": 1,
    "uint8": 1,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "int16": 2,
    "float16": 2,
    "bfloat16": 2,
    "int32": 4,
    "float32": 4,
    "int64": 8,
    "float64": 8,
    "complex64": 8,
    "complex128": 16,
}


@dataclass(frozen=True)
class Op:
    """One operation: its operator ("pd_op.conv2d", legacy: "conv2d"), a name, the names of what goes in and comes out, its
    attributes (the plain ones), and the operations of its inner blocks."""

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    inner: tuple[Op, ...] = ()


@dataclass(frozen=True)
class Program:
    """A program without its weights. kind: "pir" or "legacy". version: what the file says of its writer, "" where nothing.
    parameters: in the order in which they lie in the .pdiparams file. Names are the file's own; unnamed values have made-up ones."""

    kind: str
    version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: tuple[TensorSpec, ...]
    ops: tuple[Op, ...]

    def walk(self) -> Iterator[Op]:
        """Every operation, those of inner blocks after the one that holds them."""
        pending = list(reversed(self.ops))
        while pending:
            op = pending.pop()
            yield op
            pending += reversed(op.inner)


def shape_of(lengths: list[int]) -> tuple[int | None, ...]:
    """-1 is Paddle's word for a length that is not known."""
    return tuple(length if length >= 0 else None for length in lengths)
