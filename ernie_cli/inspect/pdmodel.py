"""Describes a Paddle inference program from its files alone: the program is read, the parameters' headers are, nothing is run."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from ..errors import InputError
from ..model import Model
from ..pdmodel import params
from ..pdmodel.files import read_program, with_names
from ..pdmodel.program import WIDTHS
from ..runtime.graphs import TensorSpec

_PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64"}
#: Tensors of these types are indices and masks, not weights.
_NO_WEIGHTS = ("int64", "int32", "int16", "uint8", "bool", "")


def describe(model: Model) -> dict[str, Any]:
    """Kind (pir or legacy), version, inputs and outputs, operators, parameters, bytes by dtype; `tensors` lists each parameter.

    Raises InputError where the program cannot be read; parameters that are missing, truncated or another model's are a `problem`.
    """
    file = model.main_file()
    if file.suffix == ".pdiparams":
        raise InputError(f"{file}: parameters without a program", "name the .json or .pdmodel file that was saved with them")
    program = with_names(read_program(file), model, file)
    weights = file.with_suffix(".pdiparams")
    problem = "missing" if not weights.is_file() else params.problem(weights, program.parameters)
    problems = [f"{weights.name}: {problem}"] if problem and program.parameters else []
    tensors: list[dict[str, Any]] = [
        {"name": spec.name, "dtype": spec.dtype or "unknown", "shape": list(spec.shape or ()), "bytes": _bytes(spec.dtype, spec.shape)}
        for spec in program.parameters
    ]
    sizes = Counter[str]()
    for tensor in tensors:
        sizes[_PRECISIONS.get(tensor["dtype"], tensor["dtype"])] += tensor["bytes"]
    return {
        "kind": program.kind,
        "version": program.version,
        "inputs": [_value(spec) for spec in program.inputs],
        "outputs": [_value(spec) for spec in program.outputs],
        "ops": dict(Counter(op.operator for op in program.walk()).most_common()),
        "parameters": sum(_count(spec.shape) for spec in program.parameters if spec.dtype not in _NO_WEIGHTS),
        "tensor_count": len(tensors),
        "bytes_by_dtype": dict(sizes.most_common()),
        "tensors": tensors,
        "problems": problems,
    }


def _count(shape: Any) -> int:
    return math.prod(length for length in shape or () if isinstance(length, int))


def _bytes(dtype: str, shape: Any) -> int:
    return _count(shape) * WIDTHS.get(dtype, 0)


def _value(spec: TensorSpec) -> dict[str, Any]:
    """name, dtype and shape: numbers, names of dynamic axes, "?"."""
    return {**spec.as_dict(), "shape": None if spec.shape is None else ["?" if length is None else length for length in spec.shape]}
