"""Finds which open axes of a module are really open, by running it at one more length of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..runtime.graphs import TensorSpec
from .load import said
from .sizes import examples, symbols

Shapes = Sequence[tuple[int, ...]]


@dataclass(frozen=True)
class Moved:
    """One axis at another length: all sizes, and the outputs' shapes there."""

    sizes: Mapping[str, int]
    shapes: Shapes


@dataclass(frozen=True)
class Free:
    """specs: inputs with a number on every axis that does not move. sizes: of every symbol, where the module runs.
    shapes: of the outputs there. other: symbol → the same with that axis moved. pinned: symbol → why it does not move."""

    specs: tuple[TensorSpec, ...]
    sizes: Mapping[str, int]
    shapes: Shapes
    other: Mapping[str, Moved]
    pinned: Mapping[str, str]


def free_axes(
    run: Callable[[list[Any]], Shapes], specs: Sequence[TensorSpec], sizes: Mapping[str, int], rows: Mapping[str, int], shapes: Shapes
) -> Free:
    """Try each symbol at another length. run: arrays in, shapes of the outputs out. shapes: those at `sizes`."""
    other: dict[str, Moved] = {}
    pinned: dict[str, str] = {}
    for name in symbols(specs):
        for length in (sizes[name] + 1, 2 * sizes[name] + (sizes[name] == 0)):
            moved = {**sizes, name: length}
            try:
                other[name] = Moved(moved, run(examples(specs, moved, rows)))
                break
            except Exception as err:  # noqa: BLE001 whatever torch raises where shapes do not fit
                pinned.setdefault(name, f"the module does not run at {length}: {said(err)}")
    pinned = {name: why for name, why in pinned.items() if name not in other}
    start = Free(tuple(specs), dict(sizes), shapes, other, pinned)
    return rigid(start, tuple(pinned))


def rigid(axes: Free, names: Sequence[str]) -> Free:
    """The same with some symbols fixed at their size."""
    fixed = {name: axes.sizes[name] for name in names}
    specs = tuple(replace(spec, shape=tuple(fixed.get(str(axis), axis) for axis in spec.shape or ())) for spec in axes.specs)
    return replace(axes, specs=specs, other={name: moved for name, moved in axes.other.items() if name not in fixed})


def output_axes(names: Sequence[str], shapes: Shapes, axes: Free) -> list[tuple[int | str | None, ...]]:
    """The outputs' shapes with a symbol on every axis that moves with an input's: its name where the lengths are the same."""
    found: list[list[int | str | None]] = [list(shape) for shape in shapes]
    for name, moved in axes.other.items():
        for place, (before, after) in enumerate(zip(shapes, moved.shapes, strict=True)):
            for at, (old, new) in enumerate(zip(before, after, strict=False)):
                if old != new:
                    same = old == axes.sizes[name] and new == moved.sizes[name] and isinstance(found[place][at], int)
                    found[place][at] = name if same else f"{names[place]}_axis{at}"
    return [tuple(shape) for shape in found]
