"""Decoders as Paddle inference programs, with the growing cache that ernie_cli/pdmodel/decoder.py describes.

Not a backend by itself: paddle.py is, and hands decoders to `open_decoder`. Paddle runs in a process of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .. import console, host
from ..errors import ErnieError, InputError, ResourceError, UnsupportedError, UsageError
from ..model import Model
from ..pdmodel.child import Child, Failed, installed
from ..pdmodel.files import Pair, open_pair
from . import Session, SessionInfo, count
from .onnxruntime import DEFAULT_CONTEXT, DecoderSession

_SESSION = "ernie_cli.pdmodel.decoder_session"
_CACHE_TYPES = ("float32", "float16", "bfloat16")


def open_decoder(model: Model, device: str = "auto", *, batch: int = 1, context: int | None = None, threads: int | None = None) -> Session:
    """Open what `ernie convert CHECKPOINT --to pdmodel` made. Arguments and errors as of onnxruntime.open."""
    kind = device.split(":")[0]
    if kind not in ("auto", "cpu", "cuda"):
        raise UsageError(f"the paddle backend runs on cpu or cuda, not `{device}`", "--device cpu")
    installed("paddle")
    pair = open_pair(model)
    vocab = _vocabulary(pair)
    limit = count(model, "max_position_embeddings", DEFAULT_CONTEXT)
    if context is not None and context > limit:
        raise UsageError(f"--context {context} is more than the model's {limit}", f"--context {limit} is the most")
    where = "cuda" if kind == "cuda" else "cpu"
    info = SessionInfo("paddle", where, vocab, context or min(limit, DEFAULT_CONTEXT), batch)
    return DecoderSession(info, PaddleRows(pair, where, batch, threads or host.cores()), pair.file)


def _vocabulary(pair: Pair) -> int:
    """The width of the logits. Raises UnsupportedError unless inputs and outputs are those of pdmodel/decoder.py."""
    first, *caches = pair.program.inputs or (None,)
    names = [f"past.{layer}.{kind}" for layer in range(len(caches) // 2) for kind in ("key", "value")]
    logits = pair.program.outputs[0].shape or ()
    fits = first is not None and first.name == "input_ids" and caches and [spec.name for spec in caches] == names
    fits = fits and len(pair.program.outputs) == len(pair.program.inputs) and len(logits) in (2, 3)
    fits = fits and all(spec.dtype in _CACHE_TYPES and spec.shape is not None and len(spec.shape) == 4 for spec in caches)
    fits = fits and all(isinstance(axis, int) for axis in (*logits[-1:], *(caches[0].shape or ())[1::2]))
    if not fits:
        what = f"{pair.file}: not a decoder that `ernie convert` made: it takes {', '.join(spec.name for spec in pair.program.inputs[:6])}"
        raise UnsupportedError(what, f"convert the checkpoint; `ernie inspect {pair.file}` shows what this is")
    return int(logits[-1] or 0)


class PaddleRows:
    """The rows' caches are in the child; this hands tokens over and brings logits back."""

    def __init__(self, pair: Pair, device: str, batch: int, threads: int) -> None:
        self._file = pair.file
        cache = pair.program.inputs[1]
        shape: Any = cache.shape
        if device == "cpu" and cache.dtype != "float32":
            console.detail(f"computing {cache.dtype} in float32: Paddle has hardly any {cache.dtype} kernels for the CPU")
        self._child = Child({"FLAGS_enable_pir_api": "1"}, threads)
        try:
            prefix = str(pair.file.with_suffix("").absolute())
            cached = {"batch": batch, "kv_heads": shape[1], "head_dim": shape[3], "dtype": cache.dtype}
            self._call("open", prefix=prefix, cuda=device == "cuda", **cached)
        except BaseException:
            self.close()
            raise

    def step(self, tokens: np.ndarray, rows: list[int], lengths: list[int]) -> np.ndarray:
        """tokens int64 [n, S] → logits float32 [n, V]; `lengths` is how much of each row's past still counts."""
        logits: np.ndarray = self._call("step", tokens=tokens, rows=rows, lengths=lengths)
        return logits

    def close(self) -> None:
        self._child.close()

    def _call(self, function: str, **arguments: Any) -> Any:
        try:
            return self._child.call(f"{_SESSION}:{function}", **arguments)
        except Failed as err:
            raise _translated(err, self._file) from err


def _translated(err: Failed, file: Path) -> ErnieError:
    from .paddle import words

    said = words(err.text)
    if err.kind == "MemoryError" or "ResourceExhausted" in err.text:
        return ResourceError(f"{file}: Paddle ran out of memory: {said}", "a smaller --context, or a machine with more")
    return InputError(f"{file}: Paddle could not run it: {said}", "convert the model again; `ernie inspect` shows what the file is")
