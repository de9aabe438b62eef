"""Checkpoint, either layout → a folder with `model.pt`, proven. How it computes stands in decoder.py."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import console, host
from ..checkpoint import Checkpoint
from ..errors import ResourceError
from ..model import Model
from ..parity.checkpoints import finish
from ..runtime import torchscript_decoder
from ..runtime.graphs import TensorSpec
from .decoder_weights import DTYPES, FILE, save, weight_bytes

if TYPE_CHECKING:
    from ..route import Options

#: One copy of the weights, what torch itself holds, and the largest tensor.
MEMORY_FACTOR = 1.2


def convert_checkpoint(model: Model, out: Path, options: Options) -> Model:
    """Fill the folder `out` with `model.pt`, config.json, tokenizer, and a manifest with the parity record.

    Raises QualityError (exit 6) where the module does not compute what the checkpoint does, ResourceError where memory is short.
    """
    checkpoint = Checkpoint.open(model.path)
    weights = weight_bytes(checkpoint, options.dtype)
    free = host.memory().available
    if weights * MEMORY_FACTOR > free:
        needed = f"{console.size(int(weights * MEMORY_FACTOR))} are needed, {console.size(free)} are free"
        what = f"{model.path}: torch holds the weights in memory: {needed}"
        raise ResourceError(what, "close other programs, use --dtype bf16, or take --to onnx, which streams")
    start = time.perf_counter()
    files = save(checkpoint, out, dtype=options.dtype, all_logits=options.all_logits)
    inputs, outputs = interface(checkpoint, options)
    return finish(
        model,
        checkpoint,
        out,
        format="torchscript",
        files=files,
        precision=options.dtype,
        open_session=(lambda made: torchscript_decoder.open_decoder(made, "cpu")) if options.verify else None,
        seconds=time.perf_counter() - start,
        main=FILE,
        kv_cache="static",
        weight_bytes=weights,
        inputs=[spec.as_dict() for spec in inputs],
        outputs=[spec.as_dict() for spec in outputs],
    )


def interface(checkpoint: Checkpoint, options: Options) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """(inputs, outputs) of `forward`; the tensors named cache.… are its one argument `cache`, in this order."""
    config, dtype = checkpoint.config, DTYPES[options.dtype][0]
    shape: Any = ("batch", config.num_kv_heads, "slots", config.head_dim)
    names = [f"cache.{layer}.{kind}" for layer in range(config.num_layers) for kind in ("key", "value")]
    inputs = [TensorSpec("input_ids", "int64", ("batch", "sequence")), TensorSpec("positions", "int64", ("batch",))]
    tokens = ("batch", "sequence") if options.all_logits else ("batch",)
    return [*inputs, *(TensorSpec(name, dtype, shape) for name in names)], [TensorSpec("logits", "float32", (*tokens, config.vocab_size))]
