"""Example inputs for a module, and lengths of its open axes at which it runs. Knows no format but torch's tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from ..errors import UsageError
from ..runtime.graphs import TensorSpec
from ..runtime.specs import as_typed
from .load import said

T = TypeVar("T")
#: Tried in this order for axes of unknown length: small ones first, then what image models are made for.
_TRIED = (32, 64, 8, 224, 28, 96, 128, 16, 256, 299, 1)
_SEED = 20


def named(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The specs with a symbol of its own for each axis of which nothing is known."""
    return tuple(replace(spec, shape=tuple(_symbol(spec, at) for at in range(len(spec.shape or ())))) for spec in specs)


def _symbol(spec: TensorSpec, at: int) -> int | str:
    known = (spec.shape or ())[at]
    return f"{spec.name}_axis{at}" if known is None else known


def symbols(specs: Sequence[TensorSpec]) -> list[str]:
    """The names of the open axes, in order."""
    return list(dict.fromkeys(axis for spec in specs for axis in spec.shape or () if isinstance(axis, str)))


def examples(specs: Sequence[TensorSpec], sizes: Mapping[str, int], rows: Mapping[str, int]) -> list[np.ndarray]:
    """Seeded inputs: normally distributed floats; ids below the embedding's `rows`, else 0 and 1; booleans of both kinds."""
    generator = np.random.default_rng(_SEED)
    return [_example(spec, sizes, rows.get(spec.name, 2), generator) for spec in specs]


def _example(spec: TensorSpec, sizes: Mapping[str, int], below: int, generator: np.random.Generator) -> np.ndarray:
    shape = [axis if isinstance(axis, int) else sizes[str(axis)] for axis in spec.shape or ()]
    dtype = np.dtype(spec.dtype) if spec.dtype != "bfloat16" else _bfloat16()
    if dtype.kind in "iub":
        return np.asarray(generator.integers(0, 2 if dtype.kind == "b" else min(below, np.iinfo(dtype).max), shape)).astype(dtype)
    return np.asarray(generator.standard_normal(shape)).astype(dtype)


def _bfloat16() -> Any:
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


def settle(
    run: Callable[[list[np.ndarray]], T], specs: Sequence[TensorSpec], known: Mapping[str, int], rows: Mapping[str, int], where: str
) -> tuple[dict[str, int], T]:
    """A length for every symbol with which the module runs, and what it gives there.

    known: lengths that are not to be changed. batch axes are 2. Raises UsageError where it runs at none that were tried.
    """
    free = [name for name in symbols(specs) if name not in known]
    last: Exception | None = None
    for size in _TRIED if free else (0,):
        sizes = {**{name: 2 if "batch" in name.lower() or name == "N" else size for name in free}, **known}
        try:
            return sizes, run(examples(specs, sizes, rows))
        except Exception as err:  # noqa: BLE001 whatever torch raises where shapes do not fit
            last = err
    typed = " ".join(as_typed(spec) for spec in specs)
    tried = f" at none of the lengths {', '.join(map(str, _TRIED))} of {', '.join(free)}" if free else ""
    what = f"{where}: the module does not run{tried} with {typed.replace('--input ', '')}: {said(last) if last else ''}"
    raise UsageError(what, f"give the right dtypes and lengths: {typed}") from last
