"""Which input and output of one model is which of the other, and what is known of their shapes. Runs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..model import Model
from ..runtime import specs as typed
from ..runtime.graphs import TensorSpec


def completed(own: Sequence[TensorSpec], given: Sequence[str], declared: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The source's inputs; what the format does not tell comes from --input, else from what the converter wrote down.

    Raises UsageError for an --input that is none.
    """
    told = typed.merge(own, given)
    by_name = {spec.name: spec for spec in declared}
    in_order = dict(zip((spec.name for spec in own), declared, strict=False)) if len(own) == len(declared) else {}
    return tuple(_filled(spec, by_name.get(spec.name) or in_order.get(spec.name)) for spec in told)


def _filled(spec: TensorSpec, other: TensorSpec | None) -> TensorSpec:
    if other is None:
        return spec
    return replace(spec, dtype=spec.dtype or other.dtype, shape=other.shape if spec.shape is None else spec.shape)


def renamed(rows: Mapping[str, int], made: Model, specs: Sequence[TensorSpec]) -> dict[str, int]:
    """`rows` of the target's inputs under the source's names."""
    names = [str(entry["name"]) for entry in made.manifest.get("inputs") or []] or list(rows)
    pairs = pair("input", [spec.name for spec in specs], names, [])
    return {mine: rows[theirs] for mine, theirs in (pairs or {}).items() if theirs in rows}


def pair(what: str, mine: Sequence[str], theirs: Sequence[str], notes: list[str]) -> dict[str, str] | None:
    """The source's name → the target's: by name where the names are the same, else by order where the counts are.

    An input that the target does without is left out, with a note. None where they cannot be paired.
    """
    if set(mine) == set(theirs):
        return {name: name for name in mine}
    if len(mine) == len(theirs):
        notes.append(f"{what}s are paired by their order: {', '.join(f'{a} = {b}' for a, b in zip(mine, theirs, strict=True))}")
        return dict(zip(mine, theirs, strict=True))
    if what == "input" and set(theirs) < set(mine):
        notes.append(f"the target does without the inputs {', '.join(name for name in mine if name not in theirs)}")
        return {name: name for name in mine if name in theirs}
    return None


def translated(
    feeds: Mapping[str, np.ndarray], inputs: Mapping[str, str], specs: Sequence[TensorSpec], notes: list[str]
) -> dict[str, np.ndarray]:
    """The source's feeds under the target's names, in the target's types."""
    import ml_dtypes

    types = {spec.name: spec.dtype for spec in specs}
    found = {}
    for mine, theirs in inputs.items():
        array, wanted = feeds[mine], types[theirs]
        if wanted and wanted != array.dtype.name:
            note = f"input `{theirs}` is {wanted} where the source's is {array.dtype.name}"
            notes += [note] if note not in notes else []
            array = array.astype(ml_dtypes.bfloat16 if wanted == "bfloat16" else wanted)
        found[theirs] = array
    return found
