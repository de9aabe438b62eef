"""Calls paddle2onnx. Lives in a child process (child.py), for it prints, exits and aborts as it pleases.

Naming what comes out, and wording what goes wrong, is converters/pdmodel_to_onnx.py's affair.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..need import need
from .repair import repaired

#: Larger graphs do not fit into one protobuf message: their weights go beside them.
_MOST_INLINE_BYTES = 1_900_000_000


def operators() -> list[str]:
    """What paddle2onnx has mappers for, in its own words (see coverage.py)."""
    need("paddle")
    return sorted(need("paddle2onnx.paddle2onnx_cpp2py_export").get_all_supported_operators_pir())


def export(program: str, weights: str, out: str, opset: int, scratch: str) -> None:
    """Write `program` (a PIR one) with `weights` ("" for none) as the ONNX file `out`. Raises what paddle2onnx raises."""
    need("paddle")
    exporter = need("paddle2onnx.paddle2onnx_cpp2py_export")
    file = repaired(Path(program), Path(scratch))
    large = bool(weights) and Path(weights).stat().st_size > _MOST_INLINE_BYTES
    external = str(Path(out).with_name("model.onnx.data")) if large else ""
    auto_upgrade, verbose, check, experimental, optimize = False, False, not large, True, True
    flags = (auto_upgrade, verbose, check, experimental, optimize)
    data = exporter.export(str(file), weights, opset, *flags, {}, "onnxruntime", "", external, False)
    Path(out).write_bytes(data)


def translate(prefix: str, scratch: str) -> str:
    """Write the legacy program `prefix`.pdmodel as a PIR one into `scratch`; its parameters keep their names. Returns its prefix."""
    paddle = need("paddle")
    theirs = need("paddle2onnx.convert")
    executor = paddle.static.Executor(paddle.CPUPlace())
    paddle.enable_static()
    with paddle.pir_utils.OldIrGuard():
        legacy: Any = paddle.static.load_inference_model(prefix, executor)[0]
    program = paddle.pir.translate_to_pir(legacy.desc)
    theirs.load_parameter(program)
    theirs.save_program(program, str(Path(scratch) / "translated"))
    return str(Path(scratch) / "translated")
