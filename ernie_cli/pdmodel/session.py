"""Runs a Paddle program with Paddle's own Executor. Lives in a child process (child.py), one program per process.

Checking files and inputs, and naming things, is runtime/paddle.py's affair.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import MissingError
from ..need import need

#: Values are fetched this many at a time: each pass runs the program once and holds its values in memory.
STEPS_AT_ONCE = 256


@dataclass
class _Opened:
    program: Any
    executor: Any
    fetched: list[Any]


_open: _Opened | None = None


def open(prefix: str, legacy: bool, cuda: bool) -> tuple[list[str], int]:
    """Load `prefix`.json or .pdmodel with its parameters. Returns the names of the inputs and the number of outputs."""
    global _open
    paddle = need("paddle")
    if cuda and not (paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count()):
        raise MissingError("this Paddle has no CUDA, or there is no such device", "--device cpu")
    paddle.enable_static()
    executor = paddle.static.Executor(paddle.CUDAPlace(0) if cuda else paddle.CPUPlace())
    program, fed, fetched = paddle.static.load_inference_model(prefix, executor)
    _drop_fetches(program)
    _open = _Opened(program, executor, list(fetched))
    return list(fed), len(fetched)


def run(feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs, in the program's order."""
    return _fetch(feeds, _opened().fetched)


def list_steps() -> list[tuple[str, str, tuple[str, ...]]]:
    """(name, operator, names of inputs) of every value, in the order of computation."""
    return [(name, operator, inputs) for name, operator, inputs, _ in _steps()]


def step_values(feeds: dict[str, np.ndarray], begin: int, end: int) -> list[np.ndarray | None]:
    """The values number `begin` to `end` of `list_steps`; None for what is no tensor."""
    wanted = [value for *_, value in _steps()[begin:end]]
    tensors = [value for value in wanted if value is not None]
    fetched = iter(_fetch(feeds, tensors) if tensors else [])
    return [None if value is None else next(fetched) for value in wanted]


def _drop_fetches(program: Any) -> None:
    """The program's own fetches write into the columns of ours: Paddle then reads a tensor where there is none, and crashes."""
    for op in [op for op in program.global_block().ops if not hasattr(op, "type") and op.name() == "pd_op.fetch"]:
        op.erase()


def _opened() -> _Opened:
    assert _open is not None, "open() comes first"
    return _open


def _fetch(feeds: dict[str, np.ndarray], values: list[Any]) -> list[np.ndarray]:
    here = _opened()
    feeds = {name: _stored(array) for name, array in feeds.items()}
    return [_read(value) for value in here.executor.run(here.program, feed=feeds, fetch_list=values, return_numpy=False)]


def _stored(array: np.ndarray) -> np.ndarray:
    """Paddle keeps bfloat16 in arrays of uint16. (np.ascontiguousarray would make [1] of a scalar.)"""
    array = array.view(np.uint16) if array.dtype.name == "bfloat16" else array
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def _read(tensor: Any) -> np.ndarray:
    array = np.array(tensor)
    if array.dtype == np.uint16 and "bfloat16" in str(tensor._dtype()).lower().replace("bf16", "bfloat16"):
        import ml_dtypes

        return array.view(ml_dtypes.bfloat16)
    return array


def _steps() -> list[tuple[str, str, tuple[str, ...], Any]]:
    here = _opened()
    if hasattr(here.program.global_block().ops[0], "results"):
        return _pir_steps(here.program)
    return _legacy_steps(here.program)


def _pir_steps(program: Any) -> list[tuple[str, str, tuple[str, ...], Any]]:
    """Names are the ones paddle2onnx gives ("p2o.pd_op.conv2d.0.0"), or the ones that were written into the
    program's `struct_name` by our own import, which are the ONNX model's: so that the same value has the same name on both sides.
    Second results that nobody takes (the statistics a norm updates in training) are left out."""
    ops = program.global_block().ops
    prefix = "" if any(str(op.attrs().get("struct_name", "")).startswith("onnx:") for op in ops) else "p2o."
    names: dict[int, str] = {}
    found = []
    numbers: Counter[str] = Counter()
    outputs = {value.id for value in _opened().fetched}
    for op in ops:
        operator, number = op.name(), numbers[op.name()]
        numbers[operator] += 1
        inputs = tuple(names[value.id] for value in op.operands_source() if value.initialized() and value.id in names)
        for index, value in enumerate(op.results()):
            given = _given(op, operator)
            names[value.id] = given or f"{prefix}{operator}.{number}.{index}"
            taken = not index or not value.use_empty() or value.id in outputs
            if taken and operator not in ("builtin.parameter", "pd_op.data", "pd_op.fetch"):
                found.append((names[value.id], operator, inputs, value if value.is_dense_tensor_type() else None))
    return found


def _given(op: Any, operator: str) -> str:
    """The name that a value was given in the file, "" where none was."""
    attributes = op.attrs()
    if operator == "builtin.parameter":
        return str(attributes.get("parameter_name", ""))
    if operator in ("pd_op.data", "pd_op.feed"):
        return str(attributes.get("name", ""))
    onnx = re.fullmatch(r"onnx:(.*)", str(attributes.get("struct_name", "")), re.DOTALL)
    return onnx.group(1) if onnx else ""


def _legacy_steps(program: Any) -> list[tuple[str, str, tuple[str, ...], Any]]:
    """Variables have names of their own. One that is written twice has only its last value to show."""
    block = program.global_block()
    ops = [op for op in block.ops if op.type not in ("feed", "fetch")]
    writers = Counter(name for op in ops for name in op.output_arg_names)
    found = []
    for op in ops:
        for name in op.output_arg_names:
            writers[name] -= 1
            variable = block.vars.get(name)
            usable = variable is not None and not variable.persistable and not writers[name] and _is_tensor(variable)
            found.append((name, op.type, tuple(op.input_arg_names), variable if usable else None))
    return found


def _is_tensor(variable: Any) -> bool:
    return "LOD_TENSOR" in str(variable.type) or "DENSE_TENSOR" in str(variable.type)
