"""The lengths that a model's dynamic axes are tried at. Knows shapes; what is put in the arrays is feeds.py's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import UsageError
from ..runtime.graphs import TensorSpec

#: Lengths by kind of axis, tried in turn until the source takes one. Some networks shrink 32 times, some have a classifier
#: made for one size of picture (224; Inception 299), some encoders want whole windows.
TYPICAL: Mapping[str, tuple[int, ...]] = {
    "batch": (2, 1, 2, 1, 1, 1, 1, 1),
    "length": (6, 6, 8, 16, 32, 64, 128, 128),
    "space": (64, 64, 96, 96, 128, 224, 299, 320),
}
#: One more length per axis: odd, and where the source refuses that, another one of the kind that it takes.
ODD: Mapping[str, tuple[int, ...]] = {"batch": (3,), "length": (11, 5, 12, 24, 48), "space": (97, 96, 160, 256)}
#: The least length tried. Pictures of one pixel are beyond what any network with pools is made for: most shrink 32 times.
LEAST: Mapping[str, int] = {"batch": 1, "length": 1, "space": 32}
#: More dynamic axes than this are not each tried alone.
MOST_AXES = 16


@dataclass(frozen=True)
class Axis:
    """A dynamic axis: where it occurs, as (input, axis). Axes with one name are one; nameless ones are each their own."""

    name: str
    kind: str
    places: tuple[tuple[str, int], ...]
    named: bool


Sizes = Mapping[str, int]


def dynamic_axes(specs: Sequence[TensorSpec]) -> tuple[Axis, ...]:
    """The axes without a fixed length, in order. Raises UsageError where not even the number of axes is known."""
    places: dict[str, list[tuple[str, int]]] = {}
    kinds: dict[str, str] = {}
    for spec in specs:
        if spec.shape is None:
            raise UsageError(f"the model does not tell the shape of its input `{spec.name}`", f"--input {spec.name}:float32:Nx3x224x224")
        for axis, length in enumerate(spec.shape):
            if not isinstance(length, int):
                name = length or f"{spec.name}[{axis}]"
                places.setdefault(name, []).append((spec.name, axis))
                kinds.setdefault(name, _kind(name if length else "", spec.shape, axis))
    named = {length for spec in specs for length in spec.shape or () if isinstance(length, str)}
    return tuple(Axis(name, kinds[name], tuple(where), name in named) for name, where in places.items())


def _kind(name: str, shape: Sequence[int | str | None], axis: int) -> str:
    if "batch" in name.lower() or name in ("N", "B", "bs"):
        return "batch"
    if axis == 0 and not re.search("seq|len|time|token", name.lower()):
        return "batch"
    channels_last = len(shape) == 4 and shape[-1] in (1, 3, 4) and shape[1] not in (1, 3, 4)
    picture = len(shape) == 4 and (shape[1] in (1, 3, 4) or channels_last or not any(isinstance(size, int) for size in shape[2:]))
    inner = (1, 2) if channels_last else (2, 3)
    return "space" if picture and axis in inner else "length"


def typical(axes: Sequence[Axis]) -> Iterator[Sizes]:
    """Lengths for all axes at once, likeliest first. Those with names of their own differ at first, so that mix-ups show."""
    for step in range(len(TYPICAL["batch"])):
        equal = {axis.name: TYPICAL[axis.kind][step] for axis in axes}
        lengths = [axis.name for axis in axes if axis.named and axis.kind == "length"]
        if len(lengths) > 1 and step < 3:
            yield {**equal, **{name: equal[name] + 3 * number for number, name in enumerate(lengths)}}
        yield equal


def minimum(axes: Sequence[Axis], base: Sizes) -> Iterator[Sizes]:
    """All axes at their least; where that is too small, all but the picture's, then the batch alone."""
    for kinds in (("batch", "length", "space"), ("batch", "length"), ("batch",)):
        sizes = {axis.name: min(LEAST[axis.kind], base[axis.name]) if axis.kind in kinds else base[axis.name] for axis in axes}
        if sizes != base:
            yield sizes


def odd(axis: Axis, axes: Sequence[Axis], base: Sizes) -> Iterator[Sizes]:
    """One axis at another length. A nameless one alone, then with the nameless ones in the same place of the other inputs."""
    for length in ODD[axis.kind]:
        if length != base[axis.name]:
            yield {**base, axis.name: length}
    together = [other.name for other in axes if not other.named and other.places[0][1] == axis.places[0][1]]
    if not axis.named and len(together) > 1:
        for length in ODD[axis.kind]:
            yield {**base, **dict.fromkeys(together, length)}


def shape_of(spec: TensorSpec, sizes: Sizes) -> tuple[int, ...]:
    """The shape of an input with its dynamic axes at `sizes`."""
    return tuple(
        length if isinstance(length, int) else sizes[length or f"{spec.name}[{axis}]"] for axis, length in enumerate(spec.shape or ())
    )


def said(sizes: Sizes) -> str:
    """For people: "batch=2, sequence=6"."""
    return ", ".join(f"{name}={length}" for name, length in sizes.items()) or "as given"
