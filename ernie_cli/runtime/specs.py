"""Reads what people type of inputs: `--input name:dtype:2x3xN`. Which inputs a model has is its backend's knowledge."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from ..checkpoint.quote import short
from ..errors import UsageError
from .graphs import GraphSession, TensorSpec

#: What people write → numpy's (and ml_dtypes') name.
DTYPES = {
    **{name: name for name in ("float64", "float32", "float16", "bfloat16", "bool", "complex64", "complex128")},
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "double": "float64",
    "float": "float32",
    "half": "float16",
    "long": "int64",
    "int": "int32",
    "byte": "uint8",
    "fp64": "float64",
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
}
_AXIS = re.compile(r"(?P<number>\d{1,18})|(?P<unknown>\?)|(?P<symbol>[^\W\d]\w*)")
_SHOW = "as in --input pixels:float32:Nx3x224x224 (letters are axes of any length)"


def parse(text: str) -> TensorSpec:
    """`pixels:float32:Nx3x224x224` → its TensorSpec.

    Axes are parted by `x`, or by commas where a name has an x in it; numbers are fixed lengths, names are symbols, `?` is
    any length. Nothing behind the last colon is a scalar. The name may have colons. Raises UsageError.
    """
    parts = text.rsplit(":", 2)
    if len(parts) != 3 or not parts[0]:
        raise UsageError(f"--input {short(text)}: a name, a dtype and a shape expected, parted by colons", _SHOW)
    name, dtype, shape = parts
    if dtype not in DTYPES:
        near = difflib.get_close_matches(dtype, DTYPES, 1) or ["float32"]
        raise UsageError(f"--input {short(text)}: no dtype named `{short(dtype)}`", f"did you mean --input {name}:{near[0]}:{shape}")
    return TensorSpec(name, DTYPES[dtype], tuple(_axis(part, text) for part in _parts(shape)))


def _parts(shape: str) -> list[str]:
    shape = shape.strip("[]() ")
    return [part.strip() for part in shape.split("," if "," in shape else "x") if part.strip() or "x" in shape] if shape else []


def _axis(part: str, text: str) -> int | str | None:
    found = _AXIS.fullmatch(part)
    if not found:
        raise UsageError(f"--input {short(text)}: `{short(part)}` is no length of an axis", _SHOW)
    return int(part) if found["number"] else None if found["unknown"] else part


def asked(session: GraphSession, given: Iterable[str]) -> tuple[TensorSpec, ...]:
    """A session's inputs, and those of its optional ones that are named in `given`."""
    names = {parse(text).name for text in given}
    return (*session.inputs, *(spec for spec in getattr(session, "optional", ()) if spec.name in names))


def merge(specs: Sequence[TensorSpec], given: Iterable[str]) -> tuple[TensorSpec, ...]:
    """The model's inputs, each as `given` on the command line where it is named there.

    Raises UsageError for an input that the model does not have, or one given twice.
    """
    told: dict[str, TensorSpec] = {}
    for spec in map(parse, given):
        if spec.name in told:
            raise UsageError(f"--input tells `{short(spec.name)}` twice", "leave one of them out")
        told[spec.name] = spec
    names = [spec.name for spec in specs]
    for name in told:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean `{near[0]}`?" if near else f"the inputs are {', '.join(map(short, names)) or 'none'}"
            raise UsageError(f"--input {short(name)}: the model has no such input", hint)
    return tuple(told.get(spec.name, spec) for spec in specs)


def as_typed(spec: TensorSpec) -> str:
    """A spec as `--input` takes it; what is unknown becomes a guess to be corrected: float32, N."""
    axes = ["N" if spec.shape is None else "", *("?" if axis is None else str(axis) for axis in spec.shape or ())]
    shape = [axis for axis in axes if axis]
    return f"--input {spec.name}:{spec.dtype or 'float32'}:{(',' if any('x' in axis for axis in shape) else 'x').join(shape)}"
