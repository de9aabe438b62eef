"""One step of a decoder in ONNX Runtime with everything at addresses of its own, and the CUDA graphs that such steps become.

Tokens, positions and logits of single-token steps stay where they are from step to step, as the caches do: only their content is
copied. On a GPU that is what a CUDA graph wants. onnxruntime captures one per `gpu_graph_id` in one session; -1 runs without. So
prompts, whose lengths differ, run plain in the same session, over the same weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..need import need
from .cache_types import element
from .place import Place

#: A step is captured when it runs for this time: rows that leave and join a batch make steps that run a few times only.
CAPTURE_AT = 3
#: onnxruntime's number for a run that is neither captured nor replayed.
PLAIN = -1


class Captures:
    """The CUDA graphs of one session: gives numbers out, and forgets them where their buffers are no more."""

    def __init__(self, session: Any, on: bool) -> None:
        self.session, self.on = session, on
        self.numbers: list[int] = []
        self._next = 1

    def number(self) -> int:
        """One that no graph of this session had: an old graph would run on old addresses."""
        self.numbers.append(self._next)
        self._next += 1
        return self.numbers[-1]

    def forget(self) -> None:
        """Give back what the graphs take, where this onnxruntime can (1.31)."""
        for number in self.numbers if hasattr(self.session, "release_captured_graph") else ():
            self.session.release_captured_graph(number)
        self.numbers.clear()

    def options(self, number: int) -> Any:
        """RunOptions for a graph, None where the session captures none."""
        if not self.on:
            return None
        options = need("onnxruntime").RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(number))
        return options


class Step:
    """A step of `rows` neighbouring rows with `length` tokens each. Bind the caches, then run it as often as wanted."""

    def __init__(self, session: Any, place: Place, captures: Captures, *, rows: int, length: int) -> None:
        self.session, self.place, self.captures, self.rows = session, place, captures, rows
        self.tokens = place.array(np.zeros((rows, length), np.int64))
        self.positions = place.array(np.zeros(rows, np.int64))
        self.binding = session.io_binding()
        self.binding.bind_ortvalue_input("input_ids", self.tokens)
        self.binding.bind_ortvalue_input("positions", self.positions)
        self.logits = self._logits() if length == 1 else None
        self.options = captures.options(PLAIN)
        self.times = 0
        self.steady = length == 1

    def _logits(self) -> Any:
        """Room for float32 [rows, V], or [rows, 1, V] where the graph gives every token's; bound first among the outputs."""
        (spec,) = (value for value in self.session.get_outputs() if value.name == "logits")
        middle = (1,) * (len(spec.shape) - 2)
        value = self.place.array(np.zeros((self.rows, *middle, int(spec.shape[-1])), np.float32))
        self.binding.bind_ortvalue_output("logits", value)
        return value

    def bind_cache(self, name: str, out: str, buffer: Any, kind: str, first: int) -> None:
        """The part of a buffer [batch, g, T, d] that belongs to these rows, from row `first` on, as input and as output."""
        batch, *rest = buffer.shape()
        address = buffer.data_ptr() + first * (buffer.tensor_size_in_bytes() // batch)
        at = (self.place.kind, self.place.number, element(kind), [self.rows, *rest], address)
        self.binding.bind_input(name, *at)
        self.binding.bind_output(out, *at)

    def run(self, tokens: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """tokens int64 [rows, length], positions int64 [rows] → logits float32, the caller's own."""
        self.tokens.update_inplace(np.ascontiguousarray(tokens))
        self.positions.update_inplace(positions)
        self.times += 1
        if self.steady and self.captures.on and self.times == CAPTURE_AT:
            self.options = self.captures.options(self.captures.number())
        if self.logits is None:
            self.binding.bind_output("logits", "cpu")  # its first axis depends on the graph: onnxruntime makes the room
        self.session.run_with_iobinding(self.binding, self.options)
        return np.array(self.logits.numpy() if self.logits is not None else self.binding.get_outputs()[-1].numpy())
