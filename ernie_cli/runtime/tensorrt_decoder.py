"""ERNIE decoders as engines: the KV caches stay on the GPU, written in place; of a step only ids go there and logits come back.

The step of all rows by one token is captured in a CUDA graph after its first run, copies included. Which rows run together is
tensorrt_layout.py's. Choosing a token is done by the host: on the GPU it would need kernels of our own, or other graphs.
"""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np

from .. import console
from ..errors import UnsupportedError, UsageError
from ..model import Model
from . import Session, SessionInfo
from .cuda.errors import CaptureError
from .cuda.graph import CapturedGraph, capture
from .cuda.memory import ALIGNMENT, DeviceMemory, PinnedArray
from .onnxruntime import DecoderSession
from .tensorrt_engine import Context, Engine
from .tensorrt_layout import Layout, Phase, layout, phase_of, rows_of, step, written

_ID = np.dtype(np.int64).itemsize


def open_decoder(model: Model, device: str = "auto", *, batch: int = 1, context: int | None = None) -> Session:
    """Open what `ernie build` made of a decoder. See tensorrt.open."""
    engine = Engine(model, device)
    try:
        made = layout(engine.ports, str(engine.file))
        if context is not None and context > made.slots:
            hint = f"--context {made.slots} is the most, or build it again with --context {context}"
            raise UsageError(f"--context {context}: the engine's caches have {made.slots} slots", hint)
        rows = EngineRows(engine, made, rows_of(made, batch, itemsize(made.cache_dtype), ALIGNMENT))
    except BaseException:
        engine.close()
        raise
    info = SessionInfo("tensorrt", str(engine.gpu), made.vocabulary, context or made.slots, batch, engine.why)
    return DecoderSession(info, rows, engine.file)


def itemsize(dtype: str) -> int:
    """Bytes of one number of a type of numpy's or ml_dtypes'."""
    return array_type(dtype).itemsize


def array_type(dtype: str) -> np.dtype:
    """numpy's type of this name, with those of ml_dtypes."""
    return np.dtype(getattr(ml_dtypes, dtype, dtype))


class EngineRows:
    """Keeps `cache.<i>.key|value` [batch, g, T, d] of all rows on the GPU, and the buffers through which a step goes."""

    def __init__(self, engine: Engine, made: Layout, batch: int) -> None:
        self.engine, self.made, self.batch = engine, made, batch
        self.ends = [0] * batch  # where each row's content ends at most: behind it a row at rest may be written
        self._contexts: dict[str, Context] = {}
        self._bound: dict[str, tuple[int, int, int]] = {}
        self._graph: CapturedGraph | None = None
        self._tried = False
        self._held: list[DeviceMemory | PinnedArray] = []
        try:
            self._allocate()
        except BaseException:
            self._free()
            raise

    def step(self, tokens: np.ndarray, rows: list[int], lengths: list[int]) -> np.ndarray:
        """tokens int64 [n, S] → logits float32 [n, V]; each row's tokens go to slots from its length on."""
        return step(self.made, self.ends, tokens, rows, lengths, self._run)

    @property
    def captured(self) -> bool:
        """Whether steps of all rows by one token run as a CUDA graph."""
        return self._graph is not None

    def close(self) -> None:
        """See runtime.Session.close."""
        self._free()
        self.engine.close()

    def _allocate(self) -> None:
        made, batch = self.made, self.batch
        for cache in made.caches:
            if not self.engine.shares(written(cache), cache):
                what = f"{self.engine.file}: it does not write `{cache}` in place"
                raise UnsupportedError(what, "build it again from a graph with a static KV cache, as `ernie convert` makes them")
        self._cache_bytes = made.row_bytes(itemsize(made.cache_dtype))
        stride = -(-batch * self._cache_bytes // ALIGNMENT) * ALIGNMENT
        room = self._device(stride * len(made.caches))
        # Not only tidy: what attention masks out is multiplied by 0, and 0 × NaN is NaN.
        self.engine.stream.zero(room.address, room.n_bytes)
        self._cache_at = {name: room.address + stride * number for number, name in enumerate(made.caches)}
        tokens = max(phase.tokens * min(phase.batch, batch) for phase in (made.prompt, made.token))
        self._ids, self._ids_at = self._pinned((tokens,), np.int64), self._device(tokens * _ID)
        self._positions, self._positions_at = self._pinned((batch,), np.int64), self._device(batch * _ID)
        kind = array_type(made.logits_dtype)
        lines = max(made.logits_per_row(phase.tokens) * min(phase.batch, batch) for phase in (made.prompt, made.token))
        self._logits = self._pinned((batch, made.vocabulary), kind)
        self._logits_at = self._device(lines * made.vocabulary * kind.itemsize)

    def _device(self, n_bytes: int) -> DeviceMemory:
        made = DeviceMemory(n_bytes)
        self._held.append(made)
        return made

    def _pinned(self, shape: Sequence[int], dtype: np.dtype | type) -> PinnedArray:
        made = PinnedArray(shape, dtype)
        self._held.append(made)
        return made

    def _free(self) -> None:
        if self._graph is not None:
            self._graph.free()
        for held in self._held:
            held.free()
        self._held.clear()
        self._contexts.clear()

    def _run(self, first: int, ids: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """See tensorrt_layout.Run. What it returns holds until the next run."""
        count, tokens = ids.shape
        self._ids.array[: ids.size] = ids.reshape(-1)
        self._positions.array[:count] = positions
        if tokens == 1 and count == self.batch:
            self._step_all()
        else:
            phase = phase_of(tokens, self.made)
            name = "some rows" if phase == self.made.token else "prompt"
            self._work(self._ready(name, phase, first, count, tokens), count, tokens)
        self.engine.stream.wait()
        return self._logits.array[:count]

    def _step_all(self) -> None:
        """All rows by one token: run as it is the first time, which chooses and loads kernels, then captured for all further ones."""
        if self._graph is not None:
            self._graph.launch()
            return
        context = self._ready("all rows", self.made.token, 0, self.batch, 1)
        self._work(context, self.batch, 1)
        if not self._tried:
            self._tried = True
            self.engine.stream.wait()
            self._graph = self._captured(context)

    def _captured(self, context: Context) -> CapturedGraph | None:
        why = context.not_capturable()
        try:
            if not why:
                return capture(self.engine.stream, lambda: self._work(context, self.batch, 1))
        except CaptureError as err:
            why = err.message
        console.detail(f"no CUDA graph for the decode step: {why}")
        return None

    def _ready(self, name: str, phase: Phase, first: int, count: int, tokens: int) -> Context:
        """The context of this name with shapes and addresses set. A captured one is never set to anything else."""
        context = self._contexts.get(name)
        if context is None:
            context = self._contexts[name] = self.engine.context(phase.profile, specialise=name == "all rows")
            context.bind("input_ids", self._ids_at.address)
            context.bind("positions", self._positions_at.address)
            context.bind("logits", self._logits_at.address)
        if self._bound.get(name) != (first, count, tokens):
            made = self.made
            context.shape("input_ids", (count, tokens))
            context.shape("positions", (count,))
            for cache in made.caches:
                context.shape(cache, (count, made.heads, made.slots, made.head_dim))
                at = self._cache_at[cache] + first * self._cache_bytes
                context.bind(cache, at)
                context.bind(written(cache), at)
            self._bound[name] = (first, count, tokens)
        return context

    def _work(self, context: Context, count: int, tokens: int) -> None:
        """Ids and positions to the GPU, a run, the last token's logits of each row back."""
        stream, made = self.engine.stream, self.made
        stream.upload(self._ids_at.address, self._ids.address, count * tokens * _ID)
        stream.upload(self._positions_at.address, self._positions.address, count * _ID)
        context.run()
        line, lines = made.vocabulary * self._logits.array.itemsize, made.logits_per_row(tokens)
        if lines == 1:
            stream.download(self._logits.address, self._logits_at.address, count * line)
            return
        for row in range(count):
            last = (row + 1) * lines - 1
            stream.download(self._logits.address + row * line, self._logits_at.address + last * line, line)
