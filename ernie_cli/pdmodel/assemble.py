"""Makes a Paddle program on disk of an ONNX file. Lives in a child process (child.py); the operations are builder.py's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..need import need
from .builder import Builder


def build(source: str, prefix: str) -> list[str]:
    """Write the ONNX file `source` as the Paddle program `prefix`.json and `prefix`.pdiparams, inputs and outputs in its order.

    Returns the names of the inputs that the program has: one on which no output depends cannot be kept.
    """
    onnx, paddle = need("onnx"), need("paddle")
    proto = onnx.load(source)
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 1)
    paddle.enable_static()
    program, start = paddle.static.Program(), paddle.static.Program()
    with paddle.static.program_guard(program, start):
        builder = Builder(opset)
        known = {tensor.name for tensor in proto.graph.initializer}
        given = [value for value in proto.graph.input if value.name not in known]
        fed = {value.name: _placeholder(builder, value) for value in given}
        builder.values.update({name: builder.p.cast(value, builder.computed(builder.dtype(value))) for name, value in fed.items()})
        builder.graph(proto.graph)
        fetched = [_output(builder, builder.values[value.name], value) for value in proto.graph.output]
    used = _involved(paddle, fetched)
    kept = {name: value for name, value in fed.items() if value.id in used}
    _save(paddle, builder, (program, start), list(kept.values()), fetched, prefix)
    return list(kept)


def _involved(paddle: Any, values: list[Any]) -> set[int]:
    """The ids of all values that these are computed from."""
    seen: set[int] = set()
    pending = list(values)
    while pending:
        value = pending.pop()
        if not value.initialized() or value.id in seen:
            continue
        seen.add(value.id)
        operation = value.get_defining_op()
        if operation is not None:
            pending += operation.operands_source()
            if operation.num_regions():
                pending += paddle.base.libpaddle.pir.get_used_external_value(operation)
    return seen


def _placeholder(builder: Builder, value: Any) -> Any:
    return builder.p.static.data(value.name, [d.dim_value if d.HasField("dim_value") else -1 for d in _dims(value)], _declared(value))


def _dims(value: Any) -> Any:
    return value.type.tensor_type.shape.dim


def _declared(value: Any) -> str:
    """The element type that the graph says its input or output has."""
    onnx = need("onnx")
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)).name


def _output(builder: Builder, value: Any, declared: Any) -> Any:
    """A value of its own (the same one twice, an input or a parameter cannot be fetched), of the type the graph declares."""
    value = builder.t(value)
    same = builder.dtype(value) == _declared(declared)
    return builder.p.assign(value) if same else builder.p.cast(value, _declared(declared))


def _save(paddle: Any, builder: Builder, programs: tuple[Any, Any], fed: list[Any], fetched: list[Any], prefix: str) -> None:
    executor = paddle.static.Executor(paddle.CPUPlace())
    executor.run(programs[1])
    scope = paddle.static.global_scope()
    for name, array in builder.weights.items():
        stored = array.view(np.uint16) if array.dtype.name == "bfloat16" else array
        scope.find_var(name).get_tensor().set(stored, paddle.CPUPlace())
    Path(prefix).parent.mkdir(parents=True, exist_ok=True)
    paddle.static.save_inference_model(prefix, fed, fetched, executor, program=programs[0])
