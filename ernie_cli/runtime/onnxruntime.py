"""ONNX Runtime: decoder graphs on CUDA where an NVIDIA GPU and that provider are here, else on the CPU.

Takes both kinds of KV cache by the graph's own inputs (see graph/cache.py). Text and sampling live in generation/.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .. import console
from ..errors import ErnieError, InputError, UnsupportedError, UsageError
from ..model import Model
from . import Session, SessionInfo, count
from .cache_types import ARRAYS
from .growing import GrowingRows
from .onnxruntime_session import create_session as create_session
from .onnxruntime_session import place, translated
from .place import HOST, Place
from .static import StaticRows
from .step import CAPTURE_AT

if TYPE_CHECKING:
    from .graphs import GraphSession

#: What `open` takes as it is; anything else is converted first.
FORMATS = ("onnx",)
#: Where nobody says --context: enough for a chat, small enough for any laptop.
DEFAULT_CONTEXT = 4096
#: Longer prompts go in pieces: attention holds heads × new tokens × all tokens scores at once.
PREFILL_CHUNK = 512


def open(
    model: Model,
    device: str = "auto",
    *,
    batch: int = 1,
    context: int | None = None,
    threads: int | None = None,
    exact: bool = False,
    tensorrt: bool = False,
) -> Session:
    """Open a decoder graph.

    device: auto, cpu, cuda, cuda:N or this machine's profile. context: most tokens per row (default: what the model was made for,
    at most 4096). threads: default one per core this process may use. exact: see create_session; for checks of the file as it stands.
    tensorrt: its provider goes before CUDA's.
    Raises UnsupportedError for graphs that are no decoder, InputError for broken files, MissingError where onnxruntime or the GPU
    that was named is not here.
    """
    file = model.main_file()
    limit = count(model, "max_position_embeddings", DEFAULT_CONTEXT)
    if context is not None and context > limit:
        raise UsageError(f"--context {context} is more than the model's {limit}", f"--context {limit} is the most")
    info = SessionInfo("onnxruntime_tensorrt" if tensorrt else "onnxruntime", "", 0, context or min(limit, DEFAULT_CONTEXT), batch)
    wanted = place(device, tensorrt=tensorrt)
    *tries, last = _tries(wanted, device)
    for each in tries:
        try:
            return _opened(file, each, info, threads, exact)
        except ErnieError as err:
            if isinstance(err, UsageError):
                raise
            if each.capture:
                console.detail(f"without CUDA graphs: {err.message}")
            else:
                console.warn(f"{err.message}; computing on the processor")
    if wanted.kind != last.kind:
        last = replace(last, why=f"{wanted.title} does not run it")
    return _opened(file, last, info, threads, exact)


def _tries(wanted: Place, device: str) -> Iterator[Place]:
    """From the best to what will do: a GPU with CUDA graphs, without, and the CPU where nobody named the GPU."""
    if wanted.kind != "cpu" and not wanted.tensorrt:
        yield replace(wanted, capture=True)
    yield wanted
    if wanted.kind != "cpu" and device == "auto":
        yield HOST


def _opened(file: Path, where: Place, info: SessionInfo, threads: int | None, exact: bool) -> DecoderSession:
    """A session there that has run, if on a GPU: what a GPU cannot do shows at the first steps only."""
    session, found = create_session(file, where, threads, exact=exact)
    vocabulary = _vocabulary(session, file)
    info = replace(info, device=found.title, vocab_size=vocabulary, why=found.why)
    rows = StaticRows if "positions" in [value.name for value in session.get_inputs()] else GrowingRows
    opened = DecoderSession(info, rows(session, info, found), file)
    if found.kind != "cpu":
        for _ in range(min(CAPTURE_AT, info.context)):
            opened.step(np.zeros((info.batch, 1), np.int64))
        for row in range(info.batch):
            opened.truncate(row)
    return opened


def open_graph(
    model: Model, device: str = "auto", *, threads: int | None = None, exact: bool = True, tensorrt: bool = False
) -> GraphSession:
    """Open a graph of any kind. Raises what `create_session` does, UnsupportedError for ends that are no tensors of numbers."""
    from .onnxruntime_graph import OnnxGraph

    return OnnxGraph(model, device, threads, exact=exact, tensorrt=tensorrt)


def _vocabulary(session: Any, file: Path) -> int:
    """The width of the logits. Raises UnsupportedError unless the graph's inputs and outputs are those of graph/cache.py."""
    inputs = {value.name: value for value in session.get_inputs()}
    outputs = {value.name: value for value in session.get_outputs()}
    prefix, back = ("cache.", "cache_out.") if "positions" in inputs else ("past.", "present.")
    caches = {name: value for name, value in inputs.items() if name.startswith(prefix)}
    problems = [f"no input `{name}`" for name in ("input_ids", f"{prefix}0.key") if name not in inputs]
    problems += [f"an input `{name}`" for name in inputs if name not in ("input_ids", "positions", *caches)]
    problems += [f"no output `{name}`" for name in ("logits", *(name.replace(prefix, back, 1) for name in caches)) if name not in outputs]
    wrong = [name for name, value in caches.items() if value.type not in ARRAYS or not _fixed(value.shape, 4, 1, 3)]
    problems += [f"`{name}` of another shape or type" for name in wrong]
    if "logits" in outputs and not _fixed(outputs["logits"].shape, len(outputs["logits"].shape), -1):
        problems.append("logits of unknown width")
    if problems:
        what = f"{file}: not a decoder that `ernie convert` made: {', '.join(problems[:4])}"
        raise UnsupportedError(what, f"convert the checkpoint; `ernie inspect {file}` shows what this is")
    return int(outputs["logits"].shape[-1])


def _fixed(shape: Sequence[Any], rank: int, *axes: int) -> bool:
    """Whether a shape has this rank, and a number that memory may hold on these axes."""
    return 0 < rank == len(shape) and all(isinstance(shape[axis], int) and 0 < shape[axis] < 1 << 24 for axis in axes)


class Rows(Protocol):
    """What keeps the caches of a DecoderSession's rows."""

    def step(self, tokens: np.ndarray, rows: list[int], lengths: list[int]) -> np.ndarray:
        """tokens int64 [n, S] → logits float32 [n, V] or [n, S, V]; `lengths` is how much of each row still counts."""
        ...

    def close(self) -> None: ...


class DecoderSession:
    """The Session contract over rows of one kind: checks what comes in, leaves the cache to `rows`."""

    def __init__(self, info: SessionInfo, rows: Rows, file: Path) -> None:
        self.info = info
        self._rows = rows
        self._file = file
        self._lengths = [0] * info.batch

    def step(self, tokens: np.ndarray, rows: Sequence[int] | None = None) -> np.ndarray:
        """See Session.step. Rows run together wherever the cache can, long prompts in chunks."""
        chosen = list(range(self.info.batch)) if rows is None else list(rows)
        tokens = np.asarray(tokens, dtype=np.int64)
        self._check(tokens, chosen)
        for start in range(0, tokens.shape[1], PREFILL_CHUNK):
            chunk = np.ascontiguousarray(tokens[:, start : start + PREFILL_CHUNK])
            try:
                logits = self._rows.step(chunk, chosen, [self._lengths[row] for row in chosen])
            except Exception as err:
                if not type(err).__module__.startswith("onnxruntime"):
                    raise
                raise translated(self._file, err) from err
            for row in chosen:
                self._lengths[row] += chunk.shape[1]
        last = logits[:, -1] if logits.ndim == 3 else logits  # a graph made with --all-logits gives [n, S, V]
        if last.shape != (len(chosen), self.info.vocab_size):
            what = f"{self._file}: its logits are {list(last.shape)}, not [{len(chosen)}, {self.info.vocab_size}] as it says"
            raise InputError(what, "convert the model again")
        return last

    def length(self, row: int = 0) -> int:
        return self._lengths[row]

    def truncate(self, row: int = 0, length: int = 0) -> None:
        if not 0 <= length <= self._lengths[row]:
            raise UsageError(f"row {row} holds {self._lengths[row]} tokens: cannot keep {length}")
        self._lengths[row] = length

    def close(self) -> None:
        self._rows.close()

    def _check(self, tokens: np.ndarray, rows: list[int]) -> None:
        if tokens.ndim != 2 or len(tokens) != len(rows) or tokens.shape[1] < 1:
            raise UsageError(f"tokens of shape {list(tokens.shape)} for {len(rows)} rows: [rows, 1 or more] is needed")
        if tokens.min() < 0 or tokens.max() >= self.info.vocab_size:
            bad = int(tokens.min() if tokens.min() < 0 else tokens.max())
            raise UsageError(f"token id {bad} is outside the vocabulary of {self.info.vocab_size}", "is it the right tokenizer?")
        longest = max(self._lengths[row] for row in rows) + tokens.shape[1]
        if longest > self.info.context:
            raise UsageError(f"{longest} tokens do not fit the context of {self.info.context}", "a larger --context, or a shorter prompt")
