"""Runs a decoder program in a child process (child.py) and keeps its caches there: tokens go in, logits come out.

Each row keeps the `present` tensors of its last step as the `past` of its next, as runtime/growing.py does for onnxruntime.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import MissingError
from ..need import need
from . import decoder_types


@dataclass
class _Opened:
    program: Any
    executor: Any
    names: list[str]
    fetched: list[Any]
    empty: list[np.ndarray]
    shared: bool
    past: dict[int, list[Any]] = field(default_factory=dict)


_open: _Opened | None = None


def open(prefix: str, cuda: bool, batch: int, kv_heads: int, head_dim: int, dtype: str) -> None:
    """Load `prefix`.json and .pdiparams. kv_heads, head_dim, dtype: of the cache; 16-bit programs run as float32 on the CPU."""
    global _open
    paddle = need("paddle")
    if cuda and not (paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count()):
        raise MissingError("this Paddle has no CUDA, or there is no such device", "--device cpu")
    paddle.enable_static()
    executor = paddle.static.Executor(paddle.CUDAPlace(0) if cuda else paddle.CPUPlace())
    if dtype == "float32" or cuda:
        program, names, fetched = paddle.static.load_inference_model(prefix, executor)
    else:
        program, names, fetched = decoder_types.load_wide(paddle, prefix, dtype)
        dtype = "float32"
    for op in [op for op in program.global_block().ops if op.name() == "pd_op.fetch"]:
        op.erase()  # they would write into the columns of ours
    empty = np.zeros((1, kv_heads, 0, head_dim), "uint16" if dtype == "bfloat16" else dtype)  # Paddle's arrays of bfloat16 are uint16
    # What is fetched lies in the executor's own memory until a run writes as much or less there again. One row only grows
    # (what is left after forgetting tokens is copied), but a shorter row would overwrite a longer one's: those are copied.
    _open = _Opened(program, executor, list(names), list(fetched), [empty] * (len(names) - 1), shared=batch == 1)


def step(tokens: np.ndarray, rows: list[int], lengths: list[int]) -> np.ndarray:
    """tokens int64 [n, S] → logits float32 [n, V]; `lengths` is how much of each row's past still counts."""
    here = _open
    assert here is not None, "open() comes first"
    logits = []
    for row, length, ids in zip(rows, lengths, tokens, strict=True):
        past = [_first(tensor, length) for tensor in here.past.get(row, here.empty)]
        feed = dict(zip(here.names, [ids[None], *past], strict=True))
        result, *present = here.executor.run(here.program, feed=feed, fetch_list=here.fetched, return_numpy=False)
        here.past[row] = present if here.shared else [np.array(tensor) for tensor in present]
        array = np.array(result)
        logits.append(array[:, -1] if array.ndim == 3 else array)  # made with --all-logits: [1, S, V]
    return np.concatenate(logits)


def _first(tensor: Any, length: int) -> Any:
    """The first `length` tokens of a cache [1, g, P, d]: as it is, unless tokens were forgotten."""
    shape = tensor.shape() if callable(tensor.shape) else tensor.shape
    return tensor if shape[2] == length else np.ascontiguousarray(np.array(tensor)[:, :, :length])
