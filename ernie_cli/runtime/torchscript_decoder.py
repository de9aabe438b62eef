"""Decoders in TorchScript: rows over the KV cache that ernie_cli/torchscript/decoder.py describes, on the CPU or a CUDA GPU.

Not a backend by itself: torchscript.py is, and hands decoders to `open_decoder`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import host
from ..errors import UnsupportedError, UsageError
from ..model import Model
from ..need import need
from ..torchscript.load import load, translated, where
from . import Session, SessionInfo, count
from .onnxruntime import DEFAULT_CONTEXT, DecoderSession
from .static import SLOTS, runs

if TYPE_CHECKING:
    import torch


def open_decoder(model: Model, device: str = "auto", *, batch: int = 1, context: int | None = None, threads: int | None = None) -> Session:
    """Open what `ernie convert CHECKPOINT --to torchscript` made. Arguments and errors as of onnxruntime.open.

    threads: for the whole process, which is how torch counts them.
    """
    torch = need("torch")
    file, place = model.main_file(), where(device)
    torch.set_num_threads(threads or host.cores())
    module, _ = load(file, place)
    limit = count(model, "max_position_embeddings", DEFAULT_CONTEXT)
    if context is not None and context > limit:
        raise UsageError(f"--context {context} is more than the model's {limit}", f"--context {limit} is the most")
    named = place if place == "cpu" else f"{place} {torch.cuda.get_device_name(place)}"
    info = SessionInfo("torchscript", named, _vocabulary(module, file), context or min(limit, DEFAULT_CONTEXT), batch)
    return DecoderSession(info, TorchRows(module, info, file, place), file)


def _vocabulary(module: Any, file: Path) -> int:
    """The width of the logits. Raises UnsupportedError unless the module has the methods and weights of torchscript/decoder.py."""
    embedding = getattr(getattr(module, "embed_tokens", None), "weight", None)
    wanted = ["input_ids", "positions", "cache"]
    found = [argument.name for argument in module.forward.schema.arguments[1:]] if hasattr(module, "forward") else []
    if found != wanted or not hasattr(module, "new_cache") or embedding is None or embedding.dim() != 2:
        what = f"{file}: not a decoder that `ernie convert` made: it takes {', '.join(found) or 'nothing'}"
        raise UnsupportedError(what, f"convert the checkpoint; `ernie inspect {file}` shows what this is")
    return int(embedding.size(0))


class TorchRows:
    """Keeps key and value [batch, g, T, d] of every layer for all rows; buffers grow by half, as static.py's do."""

    def __init__(self, module: Any, info: SessionInfo, file: Path, device: str) -> None:
        self.module, self.info, self.file, self.device = module, info, file, device
        self.slots = min(SLOTS, info.context)
        self.cache: list[torch.Tensor] = module.new_cache(info.batch, self.slots)

    def step(self, tokens: np.ndarray, rows: list[int], lengths: list[int]) -> np.ndarray:
        """tokens int64 [n, S] → logits float32 [n, V] (or [n, S, V]); each row's tokens go to slots from its length on."""
        torch = need("torch")
        try:
            # torch's optimiser of scripts takes seconds for the first two calls of a decoder, and no step is faster for it.
            with torch.inference_mode(), torch.jit.optimized_execution(False):
                self._make_room(max(lengths) + tokens.shape[1])
                pieces = []
                for first, last in runs(rows):  # views of the cache exist for neighbouring rows only
                    part = slice(rows.index(first), rows.index(last) + 1)
                    pieces.append(self._run(torch, tokens[part], first, last + 1, lengths[part]))
        except RuntimeError as err:
            raise translated(self.file, err) from err
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _run(self, torch: Any, tokens: np.ndarray, first: int, stop: int, lengths: list[int]) -> np.ndarray:
        cache = self.cache if stop - first == self.info.batch else [tensor[first:stop] for tensor in self.cache]
        positions = torch.tensor(lengths, dtype=torch.int64, device=self.device)
        logits = self.module(torch.from_numpy(tokens).to(self.device), positions, cache)
        return logits.cpu().numpy()

    def _make_room(self, needed: int) -> None:
        if needed <= self.slots:
            return
        old = self.slots
        self.slots = min(-(-max(needed, old * 3 // 2) // SLOTS) * SLOTS, self.info.context)
        for index, (new, kept) in enumerate(zip(self.module.new_cache(self.info.batch, self.slots), self.cache, strict=True)):
            new[:, :, :old] = kept
            self.cache[index] = new

    def close(self) -> None:
        del self.module, self.cache
