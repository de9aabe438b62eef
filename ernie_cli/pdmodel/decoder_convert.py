"""Checkpoint, either layout → a folder with a Paddle inference program, proven. How it computes stands in decoder.py."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoint import Checkpoint
from ..digest import facts_of
from ..errors import ErnieError
from ..model import Model
from ..parity.checkpoints import finish
from ..runtime import paddle_decoder
from ..staging import fsync
from .child import Child, Failed
from .decoder_export import DTYPES, PROGRAM, WEIGHTS, interface, write_weights

if TYPE_CHECKING:
    from ..route import Options


def weight_bytes(checkpoint: Checkpoint, dtype: str) -> int:
    """How many bytes the weights will take in `dtype`."""
    return sum(math.prod(checkpoint.info(name)[1]) for name in checkpoint.names()) * DTYPES[dtype][2]


def convert_checkpoint(model: Model, out: Path, options: Options) -> Model:
    """Fill the folder `out` with `model.json`, `model.pdiparams`, config.json, tokenizer, and a manifest with the parity record.

    Raises QualityError (exit 6) where the program does not compute what the checkpoint does.
    """
    checkpoint = Checkpoint.open(model.path)
    start = time.perf_counter()
    try:
        with Child() as child:
            arguments = {"dtype": options.dtype, "all_logits": options.all_logits}
            child.call(f"{__package__}.decoder_export:write_program", folder=str(model.path), file=str(out / PROGRAM), **arguments)
    except Failed as err:
        raise ErnieError(f"Paddle could not build the program: {err.text[-300:]}", "please report the model and this line") from err
    fsync(out / PROGRAM)
    files = {PROGRAM: facts_of(out / PROGRAM), **write_weights(checkpoint, out / WEIGHTS, options.dtype)}
    inputs, outputs = interface(checkpoint, options.dtype, options.all_logits)
    return finish(
        model,
        checkpoint,
        out,
        format="pdmodel",
        files=files,
        precision=options.dtype,
        open_session=(lambda made: paddle_decoder.open_decoder(made, "cpu")) if options.verify else None,
        seconds=time.perf_counter() - start,
        main=PROGRAM,
        kv_cache="growing",
        weight_bytes=weight_bytes(checkpoint, options.dtype),
        inputs=[spec.as_dict() for spec in inputs],
        outputs=[spec.as_dict() for spec in outputs],
    )
