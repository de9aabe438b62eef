"""Checks a decoder graph one block at a time: for models that memory will not hold, and to name the first block that differs.

The saved graph is cut at its seams (`layers.<i>.input`, see dense.py). Every piece gets the reference's input, runs a
prefill and one cached step, and is compared with the reference's output, so an error does not travel.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from .. import console, parity, reference
from ..checkpoint import Checkpoint
from ..errors import QualityError
from ..model import Model
from ..runtime.onnxruntime import create_session
from ..runtime.widen import widen

PREFILL = 24
_NUMPY = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}


def check(checkpoint: Checkpoint, made: Model, precision: str, *, seed: int = 0) -> dict[str, Any]:
    """Compare every piece of `made` with the reference. Returns the record; raises QualityError naming the first that differs."""
    start = time.perf_counter()
    limits = parity.LIMITS[precision]
    worst: parity.Metrics | None = None
    tokens = np.random.default_rng(seed).integers(0, checkpoint.config.vocab_size, PREFILL + 1)
    with console.progress("checking layers", checkpoint.config.num_layers + 2) as meter:
        for name, want, got in _pieces(checkpoint, made.main_file(), tokens):
            metrics = parity.compare(want, got)
            if not (metrics.max_rel <= limits.max_rel and metrics.cosine >= limits.cosine):
                what = f"{name} is the first part that differs: max_rel {metrics.max_rel:.3g}, cosine {metrics.cosine:.6f}"
                raise QualityError(
                    f"the converted model is not the same model: {what}", "nothing was kept; please report the model and this line"
                )
            worst = metrics if worst is None or metrics.max_rel > worst.max_rel else worst
            meter.advance(1, name)
    assert worst is not None
    return {
        "name": "parity",
        "passed": True,
        "how": "layer by layer",
        "reference": "numpy, float32",
        "against": "onnxruntime (cpu)",
        "tokens": len(tokens),
        "limits": asdict(limits),
        "worst layer": asdict(worst),
        "seconds": round(time.perf_counter() - start, 3),
    }


def _pieces(checkpoint: Checkpoint, file: Path, tokens: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(name, reference's output, the graph's output), float32 [S, …], for embedding, blocks and head in order."""
    count = checkpoint.config.num_layers
    hidden = reference.embed(checkpoint, tokens)
    yield "the embedding", hidden, _Piece(file, None, "layers.0.input").run(tokens, None)
    for layer in range(count):
        after = reference.block(checkpoint, layer, hidden)
        got = _Piece(file, f"layers.{layer}.input", f"layers.{layer + 1}.input").run(tokens, hidden)
        yield f"layer {layer}", after[_given(got, tokens)], got
        hidden = after
    got = _Piece(file, f"layers.{count}.input", "logits").run(tokens, hidden)
    yield "the head", reference.head(checkpoint, hidden[_given(got, tokens)]), got


def _given(got: np.ndarray, tokens: np.ndarray) -> list[int]:
    """Which tokens' rows a piece gave: all, or the last one of each of the two steps."""
    return list(range(len(tokens))) if len(got) == len(tokens) else [PREFILL - 1, PREFILL]


class _Piece:
    """The part of a graph between two seams, as a session."""

    def __init__(self, file: Path, begin: str | None, end: str) -> None:
        self.begin, self.end = begin, end
        model = ir.load(file)
        self.layer = begin.split(".")[1] if begin and end != "logits" else ""
        caches = [name for name in map(str, (value.name for value in model.graph.inputs)) if name.split(".")[1:2] == [self.layer]]
        kept = [name for name in map(str, (value.name for value in model.graph.outputs)) if name.split(".")[1:2] == [self.layer]]
        # Positions and masks are made from the first cache's shape, so every block has it as an input too. What a piece does
        # not use is declared all the same: one way to feed them all.
        shared = [str(value.name) for value in model.graph.inputs if value.name in ("input_ids", "positions", "cache.0.key", "past.0.key")]
        inputs = list(dict.fromkeys([*shared, *caches, *([begin] if begin else [])]))
        part = ir.convenience.extract(model.graph, inputs=inputs, outputs=[end, *kept])
        piece = ir.Model(part, ir_version=model.ir_version)
        widen(piece)
        cut = file.with_name(f".{file.stem}.piece.onnx")  # beside the data file it points into
        try:
            ir.save(piece, cut)
            self.session = create_session(cut, "cpu")[0]
        finally:
            cut.unlink(missing_ok=True)

    def run(self, tokens: np.ndarray, hidden: np.ndarray | None) -> np.ndarray:
        """Prefill of all tokens but one, then one cached step → the outputs joined along the tokens, float32."""
        feeds: dict[str, np.ndarray] = {}
        outputs: list[np.ndarray] = []
        for begin, stop in ((0, PREFILL), (PREFILL, PREFILL + 1)):
            feeds = self._feeds(feeds, tokens[begin:stop], None if hidden is None else hidden[begin:stop], begin)
            result, *caches = self.session.run(None, feeds)
            outputs.append(result.reshape(-1, result.shape[-1]).astype(np.float32))
            names = [value.name for value in self.session.get_outputs()][1:]
            feeds = {
                name.replace("cache_out.", "cache.").replace("present.", "past."): kept for name, kept in zip(names, caches, strict=True)
            }
        return np.concatenate(outputs)

    def _feeds(self, caches: dict[str, np.ndarray], tokens: np.ndarray, hidden: np.ndarray | None, position: int) -> dict[str, np.ndarray]:
        feeds = dict(caches)
        for value in self.session.get_inputs():
            if value.name == "input_ids":
                feeds[value.name] = tokens[None]
            elif value.name == "positions":
                feeds[value.name] = np.array([position], np.int64)
            elif value.name == self.begin:
                assert hidden is not None
                wanted = hidden[-1:] if value.shape[1] == 1 else hidden  # the head of a graph that gives the last token's logits
                feeds[value.name] = wanted[None].astype(_NUMPY[value.type])
            elif value.name not in feeds:  # room for all tokens where static; what came before where growing
                slots = PREFILL + 1 if value.name.startswith("cache.") else position
                feeds[value.name] = np.zeros((1, value.shape[1], slots, value.shape[3]), _NUMPY[value.type])
        return feeds
