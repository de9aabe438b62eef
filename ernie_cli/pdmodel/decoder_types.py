"""One float type for another in a saved decoder program. Paddle's CPU kernels know fp16 and bf16 for little more than casts.

So 16-bit programs are built in a type that every kernel knows and renamed in the file, and run on the CPU as float32: same
operators, same weights.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from . import params, pir

#: What a PIR file calls types: of tensors, and in attributes of operators.
_NAMES = {
    "float16": ('t_f16"', '"float16"'),
    "bfloat16": ('t_bf16"', '"bfloat16"'),
    "float32": ('t_f32"', '"float32"'),
    "float64": ('t_f64"', '"float64"'),
}


def retype(file: Path, old: str, new: str) -> None:
    """Write the program in `file` anew with every tensor of type `old` being `new`."""
    text = file.read_text(encoding="utf-8")
    for before, after in zip(_NAMES[old], _NAMES[new], strict=True):
        text = text.replace(before, after)
    file.write_text(text, encoding="utf-8")


def load_wide(paddle: Any, prefix: str, dtype: str) -> tuple[Any, list[str], list[Any]]:
    """(program, names of inputs, output values) of a program of type `dtype` as float32, its parameters in the global scope."""
    file = Path(f"{prefix}.json")
    program = paddle.static.Program()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, file.name)
        shutil.copyfile(file, copy)
        retype(copy, dtype, "float32")
        paddle.base.core.deserialize_pir_program(str(copy), program)
    _read(paddle, file)
    ops = program.global_block().ops
    names = [op.attrs()["name"] for op in ops if op.name() == "pd_op.data"]
    fetches = sorted((op.attrs()["col"], index) for index, op in enumerate(ops) if op.name() == "pd_op.fetch")
    return program, names, [ops[index].operand_source(0) for _, index in fetches]


def _read(paddle: Any, program: Path) -> None:
    wanted, weights = pir.read(program).parameters, program.with_suffix(".pdiparams")
    for spec, record in zip(wanted, params.read(weights, len(wanted)), strict=True):
        dtype = np.dtype(getattr(ml_dtypes, record.dtype, record.dtype))
        array = np.memmap(weights, dtype, "r", record.offset, record.shape).astype(np.float32)
        paddle.static.global_scope().var(spec.name).get_tensor().set(array, paddle.CPUPlace())
