"""A checkpoint → `model.json` and `model.pdiparams`. The weights go from file to file: no step holds more than a few megabytes of them.

The program is built without values, its parameters are written beside it in Paddle's format (see params.py). `write_program` runs
in a process of its own, see child.py; `write_weights` needs no Paddle.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from .. import console
from ..checkpoint import Checkpoint
from ..checkpoint.bands import Bands
from ..checkpoint.finite import all_finite
from ..checkpoint.stream import HashedFile
from ..errors import InputError
from ..runtime.graphs import TensorSpec
from .decoder_types import retype

PROGRAM, WEIGHTS = "model.json", "model.pdiparams"
#: dtype of the command line → Paddle's and numpy's name, its number in Paddle's framework.proto, bytes per weight.
DTYPES = {"fp32": ("float32", 5, 4), "fp16": ("float16", 4, 2), "bf16": ("bfloat16", 22, 2)}
#: What 16-bit programs are built as: a Paddle for the CPU refuses to build operators in types that it has no kernels for.
STAND_IN = "float64"
#: Weights copied at a time.
_PIECE = 1 << 20


def interface(checkpoint: Checkpoint, dtype: str, all_logits: bool) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """(inputs, outputs) of the program, in order and under the names that graphs with a growing cache have."""
    config, kind = checkpoint.config, DTYPES[dtype][0]
    caches = [f"{layer}.{part}" for layer in range(config.num_layers) for part in ("key", "value")]
    past: Any = ("batch", config.num_kv_heads, "past", config.head_dim)
    present: Any = ("batch", config.num_kv_heads, "total", config.head_dim)
    tokens: Any = ("batch", "sequence") if all_logits else ("batch",)
    inputs = [TensorSpec("input_ids", "int64", ("batch", "sequence")), *(TensorSpec(f"past.{name}", kind, past) for name in caches)]
    logits = TensorSpec("logits", "float32", (*tokens, config.vocab_size))
    return inputs, [logits, *(TensorSpec(f"present.{name}", kind, present) for name in caches)]


def write_program(folder: str, file: str, dtype: str, all_logits: bool) -> None:
    """Build the program of the checkpoint in `folder` and write it to `file` (PIR)."""
    from .decoder import Decoder, paddle

    checkpoint = Checkpoint.open(folder)
    inputs, _ = interface(checkpoint, dtype, all_logits)
    paddle.enable_static()
    built = "float32" if dtype == "fp32" else STAND_IN
    paddle.set_default_dtype(built)
    program = paddle.static.Program()
    # Parameters would get their first values from the second program, which nobody runs.
    with paddle.static.program_guard(program, paddle.static.Program()):
        fed = [
            paddle.static.data(
                spec.name,
                [axis if isinstance(axis, int) else -1 for axis in spec.shape or ()],
                built if spec.dtype == DTYPES[dtype][0] else spec.dtype,
            )
            for spec in inputs
        ]
        layer = Decoder(checkpoint.config, all_logits=all_logits)
        layer.eval()
        fetched = layer(fed[0], fed[1:])
        program = paddle.static.normalize_program(program, fed, fetched)
    paddle.base.core.serialize_pir_program(program, file, True, False, True)  # overwrite, not for reading, trainable
    if built == STAND_IN:
        retype(Path(file), STAND_IN, DTYPES[dtype][0])


def write_weights(checkpoint: Checkpoint, file: Path, dtype: str) -> dict[str, dict[str, Any]]:
    """Write the parameters, sorted by name as Paddle does. Returns {name: {size, sha256}}. Raises InputError for broken tensors."""
    bands = Bands(checkpoint, "paddle")
    if checkpoint.layout == "hf":
        bands.specs()  # refuses tensors of several types where Paddle keeps one
    name, number, width = DTYPES[dtype]
    wanted = np.dtype(getattr(ml_dtypes, name, name))
    shapes = {tensor.paddle: tensor.shape for tensor in checkpoint.table}
    with console.progress("writing weights", sum(map(math.prod, shapes.values())) * width, unit="bytes") as meter, HashedFile(file) as out:
        for tensor in sorted(checkpoint.table, key=lambda tensor: tensor.paddle):
            out.write(record(number, tensor.shape))
            sink = _Cast(out, checkpoint.info(tensor.parts[0].name)[0], wanted)
            if checkpoint.layout == "paddle":
                _copy(checkpoint, tensor.paddle, sink)
            else:
                bands.fill(tensor.paddle, sink)  # type: ignore[arg-type]
            meter.advance(math.prod(tensor.shape) * width)
    return {file.name: out.facts}


def _copy(checkpoint: Checkpoint, name: str, sink: _Cast) -> None:
    """A tensor that lies in Paddle's layout already, a piece at a time."""
    flat = checkpoint.map(name).reshape(-1)
    for start in range(0, flat.size, _PIECE):
        piece = flat[start : start + _PIECE]
        if not all_finite(piece):
            what = f"{checkpoint.folder}: tensor `{name}` holds NaN or infinite weights"
            raise InputError(what, "fetch it again: `ernie download --force`")
        sink.write(piece.view(np.uint8))


def record(dtype: int, shape: tuple[int, ...]) -> bytes:
    """What stands before a tensor's values: see params.py. TensorDesc: 1 data_type, 2 dims (framework.proto), as varints."""
    desc = b"\x08" + _varint(dtype) + b"".join(b"\x10" + _varint(length) for length in shape)
    return struct.pack("<IQIi", 0, 0, 0, len(desc)) + desc


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


class _Cast:
    """Takes what Bands writes, in the type it is stored in, and writes it on in another."""

    def __init__(self, file: HashedFile, stored: np.dtype[Any], wanted: np.dtype[Any]) -> None:
        self._file, self._stored, self._wanted = file, stored, wanted

    def buffer(self, n_bytes: int) -> np.ndarray:
        return self._file.buffer(n_bytes)

    def write(self, chunk: np.ndarray) -> None:
        if self._stored != self._wanted:
            chunk = chunk.view(self._stored).astype(self._wanted).view(np.uint8)
        self._file.write(chunk)
