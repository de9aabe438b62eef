"""`--shape name:least,best,most` as people type it, and as it is suggested to them. What becomes of it is shapes.py's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..checkpoint.quote import short, some
from ..errors import UsageError

if TYPE_CHECKING:
    from ..runtime.graphs import TensorSpec

Shape = tuple[int, ...]
#: Least, best and largest.
Range = tuple[Shape, Shape, Shape]

#: What is suggested where a model leaves the choice: shortest, likeliest, longest, by kind of axis (see parity/axes.py).
SUGGESTED = {"batch": (1, 4, 8), "length": (1, 64, 128), "space": (224, 224, 224)}
_LENGTH = re.compile(r"[0-9]{1,9}")
_SHOW = "--shape name:1x3x224x224,4x3x224x224,8x3x224x224 (least, best, most; one shape alone is fixed)"


def suggestions(specs: Sequence[TensorSpec]) -> list[str]:
    """`--shape …` for each input with free axes: a guess to be corrected."""
    from ..parity.axes import dynamic_axes

    kinds = {place: axis.kind for axis in dynamic_axes(specs) for place in axis.places}
    typed = []
    for spec in specs:
        if any(not isinstance(axis, int) for axis in spec.shape or ()):
            three = [
                [axis if isinstance(axis, int) else SUGGESTED[kinds[spec.name, at]][turn] for at, axis in enumerate(spec.shape or ())]
                for turn in range(3)
            ]
            typed.append(f"--shape {short(spec.name)}:{','.join('x'.join(map(str, shape)) for shape in three)}")
    return typed


def told_by(given: Sequence[str], specs: Sequence[TensorSpec]) -> dict[str, Range]:
    """Input → what was typed of it. Raises UsageError for inputs and shapes that the model does not have."""
    known, told = {spec.name: spec for spec in specs}, dict[str, Range]()
    for text in given:
        name, shapes = parse(text)
        if name in told:
            raise UsageError(f"--shape tells `{short(name)}` twice", "leave one of them out")
        if name not in known:
            raise UsageError(f"--shape {short(text)}: the model has no such input", f"its inputs are {some(list(known)) or 'none'}")
        own = known[name].shape or ()
        for shape in shapes:
            if len(shape) != len(own) or any(isinstance(axis, int) and axis != length for axis, length in zip(own, shape, strict=True)):
                has = "x".join(str(axis) if axis else "?" for axis in own) or "a scalar"
                raise UsageError(
                    f"--shape {short(text)}: the model's `{short(name)}` is {has}",
                    " ".join(suggestions([known[name]])) or "leave --shape out",
                )
        told[name] = shapes
    return told


def parse(text: str) -> tuple[str, Range]:
    """`x:1x3,4x3,8x3` → ("x", ((1, 3), (4, 3), (8, 3))). One shape is fixed, two are the least and the largest, which is best, too.

    Names may have colons. Raises UsageError.
    """
    name, colon, rest = text.rpartition(":")
    if not colon or not name or not rest:
        raise UsageError(f"--shape {short(text)}: a name and shapes expected, parted by a colon", _SHOW)
    found = [_lengths(part, text) for part in rest.split(",")]
    if len(found) > 3:
        raise UsageError(f"--shape {short(text)}: {len(found)} shapes, three are the most", _SHOW)
    low, high = found[0], found[-1]
    likely = found[1] if len(found) == 3 else high
    if not len(low) == len(likely) == len(high):
        raise UsageError(f"--shape {short(text)}: the shapes differ in their number of axes", _SHOW)
    if not all(a <= b <= c for a, b, c in zip(low, likely, high, strict=True)):
        raise UsageError(f"--shape {short(text)}: least, best, most do not ascend", _SHOW)
    return name, (low, likely, high)


def _lengths(part: str, text: str) -> Shape:
    pieces = part.strip().split("x")
    if not all(_LENGTH.fullmatch(piece) and int(piece) for piece in pieces):
        raise UsageError(f"--shape {short(text)}: `{short(part)}` is no shape", _SHOW)
    return tuple(map(int, pieces))
