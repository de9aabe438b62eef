"""Puts a checkpoint's tensors into the scripted decoder, one at a time, and saves it. What it computes stands in decoder.py.

Peak memory: one copy of the weights in the type asked for, plus the largest tensor where the source must be transposed.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from .. import console
from ..checkpoint import Checkpoint
from ..digest import facts_of
from ..errors import ResourceError
from ..need import need
from ..staging import fsync

if TYPE_CHECKING:
    import torch

FILE = "model.pt"
#: dtype of the command line → torch's name, bytes per weight.
DTYPES = {"fp32": ("float32", 4), "fp16": ("float16", 2), "bf16": ("bfloat16", 2)}


def weight_bytes(checkpoint: Checkpoint, dtype: str) -> int:
    """How many bytes the weights will take in `dtype`."""
    return sum(math.prod(checkpoint.info(name)[1]) for name in checkpoint.names()) * DTYPES[dtype][1]


def save(checkpoint: Checkpoint, out: Path, *, dtype: str, all_logits: bool) -> dict[str, dict[str, Any]]:
    """Write `out`/model.pt. Returns the manifest's entry: {name: {size, sha256}}.

    Raises InputError for broken tensors, ResourceError where memory or disk will not do.
    """
    torch = need("torch")
    from .decoder import Decoder

    file = out / FILE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch prefers its newer exporters, which C++ programs cannot load
            module = Decoder(checkpoint.config, getattr(torch, DTYPES[dtype][0]), all_logits=all_logits).eval()
            fill(module, checkpoint)
            torch.jit.save(torch.jit.script(module), str(file))
    except RuntimeError as err:  # torch has no classes of its own for these
        raise _translated(err, file) from err
    fsync(file)
    return {FILE: facts_of(file)}


def fill(module: torch.nn.Module, checkpoint: Checkpoint) -> None:
    """Copy every tensor of the checkpoint to its place in `module` (a Decoder), cast to the module's type."""
    parameters = dict(module.named_parameters())
    with console.progress("reading weights", sum(weight.nbytes for weight in parameters.values()), unit="bytes") as meter:
        for name, weight in parameters.items():
            weight.copy_(as_torch(checkpoint.read(source(name))))
            meter.advance(weight.nbytes)


def source(name: str) -> str:
    """The checkpoint's name of the module's parameter `name`."""
    return name if name.startswith("lm_head.") else f"model.{name}"


def as_torch(array: np.ndarray) -> torch.Tensor:
    """The same memory as a torch tensor, bfloat16 included. To be read only: it may be a map of the source."""
    torch = need("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "the array is not writable": nobody writes
        if array.dtype == ml_dtypes.bfloat16:
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)


def _translated(err: RuntimeError, file: Path) -> Exception:
    said = str(err).strip().splitlines()[0]
    if "alloc" in said or "memory" in said:
        return ResourceError(f"{file}: not enough memory for the weights: {said:.200}", "close other programs, or use --dtype fp16")
    if "write" in said or "No space" in said or "file" in said:
        return ResourceError(f"{file}: torch cannot write it: {said:.200}", "free some space, or choose another disk with -o")
    return err
