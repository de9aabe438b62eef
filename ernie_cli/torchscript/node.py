"""What a rule sees of an ONNX node, and what it may write. Writing the whole forward method is emit.py's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: A TorchScript-able Python function: annotated, without defaults that need Python objects.
Function = Callable[..., Any]


class Unmapped(Exception):
    """Raised by a rule: this use of the operator has no mapping. Its text says what is missing; coverage reports it."""


@dataclass(frozen=True)
class Fact:
    """What shape inference and the graph tell of a value. dtype: as numpy and ml_dtypes name it ("float32", "bfloat16", "int4",
    "string"), None where unknown. shape: None where the rank is unknown, with None (or a symbol) for each unknown length.
    const: the array where the value is constant. kind: "tensor", "sequence", "optional" (of a tensor) or "optional_sequence".
    items: for a short vector of ints (or one int), the text of each element, a literal or an int variable: see shapes.py."""

    dtype: str | None = None
    shape: tuple[int | str | None, ...] | None = None
    const: np.ndarray | None = None
    kind: str = "tensor"
    items: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Node:
    """One use of an operator. Inputs are known by the names of the variables that hold them."""

    op: str
    name: str
    opset: int
    inputs: tuple[str | None, ...]
    outputs: tuple[str | None, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    facts: tuple[Fact, ...] = ()
    out_facts: tuple[Fact, ...] = ()
    functions: dict[str, Function] = field(default_factory=dict)
    #: Text of the device that everything runs on, for rules that make tensors of nothing: the first input's.
    device: str = 'torch.device("cpu")'

    @property
    def n_inputs(self) -> int:
        return len(self.inputs)

    @property
    def n_outputs(self) -> int:
        return len(self.outputs)

    def has(self, i: int) -> bool:
        """Whether input i is there: not beyond the end and not left empty."""
        return i < len(self.inputs) and self.inputs[i] is not None

    def wants(self, i: int) -> bool:
        """Whether output i has a name, that is, may be used."""
        return i < len(self.outputs) and self.outputs[i] is not None

    def x(self, i: int) -> str:
        """The variable of input i, or "None" where it is absent."""
        return (self.inputs[i] if i < len(self.inputs) else None) or "None"

    def xs(self) -> str:
        """All inputs as the text of a list: "[a, b]"."""
        return f"[{', '.join(self.x(i) for i in range(self.n_inputs))}]"

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute as int, float, str, list of them or np.ndarray; `default` where it is not given."""
        return self.attributes.get(name, default)

    def fact(self, i: int) -> Fact:
        return self.facts[i] if i < len(self.facts) else Fact()

    def out_fact(self, i: int) -> Fact:
        return self.out_facts[i] if i < len(self.out_facts) else Fact()

    def dtype(self, i: int) -> str | None:
        """Input i's type as "float32", "bfloat16", "int4" …, None where unknown."""
        return self.fact(i).dtype

    def out_dtype(self, i: int) -> str | None:
        return self.out_fact(i).dtype

    def shape(self, i: int) -> tuple[int | str | None, ...] | None:
        """Input i's shape, None where even the rank is unknown; a length that is no int is not fixed."""
        return self.fact(i).shape

    def rank(self, i: int) -> int | None:
        shape = self.fact(i).shape
        return None if shape is None else len(shape)

    def out_rank(self, i: int) -> int | None:
        shape = self.out_fact(i).shape
        return None if shape is None else len(shape)

    def const(self, i: int) -> np.ndarray | None:
        """Input i's value where it is constant in the graph."""
        return self.fact(i).const

    def call(self, function: Function, *args: Any) -> str:
        """Text of a call of a TorchScript-able function, which goes into the archive. Text arguments stand as they are (variables,
        expressions; `quote` makes a literal), everything else becomes a literal."""
        name = f"op_{function.__module__.rsplit('.', 1)[-1]}_{function.__name__}"
        self.functions[name] = function
        return f"{name}({', '.join(arg if isinstance(arg, str) else literal(arg) for arg in args)})"


def quote(text: str) -> str:
    """A string literal."""
    return repr(text)


def literal(value: Any) -> str:
    """A number, bool, None, array or (nested) list of them as TorchScript text."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(literal, value))}]"
    return repr(value)
