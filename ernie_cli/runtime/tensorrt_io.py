"""What goes into an engine and comes out of it, as data: names, types, and the shapes that each of its profiles takes.

Read from a loaded engine by tensorrt_engine.py; nothing here needs a library or a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import UsageError
from .graphs import TensorSpec

Shape = tuple[int, ...]

#: Length of an axis that a profile leaves open.
FREE = -1


@dataclass(frozen=True)
class Range:
    """The shapes that one profile takes of one input: all from `least` to `most`; kernels were chosen for `best`."""

    least: Shape
    best: Shape
    most: Shape

    def takes(self, shape: Sequence[int]) -> bool:
        """Whether `shape` lies in it, axis by axis."""
        return len(shape) == len(self.most) and all(low <= n <= high for low, n, high in zip(self.least, shape, self.most, strict=True))

    def __str__(self) -> str:
        return said(self.least) if self.least == self.most else f"{said(self.least)} to {said(self.most)}"


@dataclass(frozen=True)
class Port:
    """An input or output. dtype: a numpy name, "float8_e4m3fn" and the like of ml_dtypes included. shape: -1 where it is free.

    on_host: its numbers are read by the processor (shapes handed in as tensors). ranges: of inputs, one per profile.
    """

    name: str
    dtype: str
    shape: Shape
    is_input: bool = True
    on_host: bool = False
    ranges: tuple[Range, ...] = ()

    def spec(self) -> TensorSpec:
        """As graph models show it: a number where every profile wants the same one, None where an axis is free."""
        lengths = [
            {length for each in self.ranges for length in (each.least[axis], each.most[axis])} or {size}
            for axis, size in enumerate(self.shape)
        ]
        return TensorSpec(self.name, self.dtype, tuple(next(iter(each)) if len(each) == 1 and each != {FREE} else None for each in lengths))


def said(shape: Sequence[int]) -> str:
    """(8, 3, 224, 224) → "8x3x224x224"."""
    return "x".join(map(str, shape)) or "a scalar"


def profile_for(ports: Sequence[Port], shapes: Mapping[str, Sequence[int]]) -> int:
    """The profile that takes these shapes of all inputs, the narrowest of several: its kernels were chosen for less else.

    Raises UsageError with the range of the first input that no profile takes.
    """
    inputs = [port for port in ports if port.is_input]
    count = len(inputs[0].ranges) if inputs else 1
    able = [number for number in range(count) if all(port.ranges[number].takes(shapes[port.name]) for port in inputs)]
    if able:
        return min(able, key=lambda number: sum(math.prod(port.ranges[number].most) for port in inputs))
    wrong = next((port for port in inputs if not any(each.takes(shapes[port.name]) for each in port.ranges)), None)
    if wrong is None:
        given = ", ".join(f"{port.name} {said(shapes[port.name])}" for port in inputs)
        ways = "; or ".join(", ".join(f"{port.name} {port.ranges[number]}" for port in inputs) for number in range(count))
        raise UsageError(f"no profile of the engine takes {given} together", f"it takes {ways}")
    taken = " or ".join(dict.fromkeys(map(str, wrong.ranges)))
    first, shape = wrong.ranges[0], shapes[wrong.name]
    if len(shape) != len(wrong.shape):
        raise UsageError(f"`{wrong.name}` has shape {list(shape)}, {len(wrong.shape)} axes are needed", f"the engine takes {taken}")
    wider = [tuple(pick(pair) for pair in zip(end, shape, strict=True)) for pick, end in ((min, first.least), (max, first.most))]
    hint = f"build it again with --shape {wrong.name}:{said(wider[0])},{said(first.best)},{said(wider[1])}"
    raise UsageError(f"`{wrong.name}` is {said(shape)}: the engine was built for {taken}", hint)
