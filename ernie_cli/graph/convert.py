"""Checkpoint → checked ONNX folder: export, carry the tokenizer along, compare with the source, write the papers."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import console, host
from ..checkpoint import Checkpoint
from ..checkpoint.carry import carry
from ..errors import QualityError
from ..model import Model, write_manifest
from . import layerwise
from .cache import choose
from .export import GRAPH_FILE, export, weight_bytes

if TYPE_CHECKING:
    from ..route import Options

#: A session holds the weights twice while it packs them for its kernels, and the reference one layer of them.
CHECK_MEMORY_FACTOR = 2.5


def convert_checkpoint(model: Model, out: Path, options: Options) -> Model:
    """Fill the folder `out` with `model.onnx`, its data, config.json and tokenizer, and a manifest with the parity record.

    Raises QualityError (exit 6) where the graph does not compute what the checkpoint does.
    """
    checkpoint = Checkpoint.open(model.path)
    kv_cache, why = choose(options.kv_cache)
    say = console.info if options.kv_cache == "auto" and kv_cache == "growing" else console.detail
    say(f"{kv_cache} KV cache: {why}")
    start = time.perf_counter()
    exported = export(checkpoint, out, dtype=options.dtype, kv_cache=kv_cache, all_logits=options.all_logits)
    seconds = round(time.perf_counter() - start, 3)
    carried, _ = carry(model.path, out, rewritten=())
    files = {**exported.files, **carried}
    manifest: dict[str, Any] = {
        "architecture": checkpoint.config.model_type,
        "precision": options.dtype,
        "main": GRAPH_FILE,
        "opset": exported.opset,
        "kv_cache": kv_cache,
        "weight_bytes": exported.weight_bytes,
        "skipped_tensors": list(checkpoint.skipped),
        "made_by": {"seconds": seconds},
    }
    if checkpoint.skipped:
        console.info(f"skipped {len(checkpoint.skipped)} tensors that the graph has no use for: {', '.join(checkpoint.skipped[:5])} …")
    unchecked = write_manifest(out, format="onnx", files=files, **manifest)
    check = verify(checkpoint, unchecked, options.dtype) if options.verify else not_verified()
    return write_manifest(out, format="onnx", files=files, checks=[check], **manifest)


def not_verified() -> dict[str, Any]:
    """The record of a check nobody wanted."""
    console.warn("not verified: --no-verify")
    return {"name": "parity", "passed": None, "why": "--no-verify"}


def verify(checkpoint: Checkpoint, made: Model, precision: str, *, memory_bytes: int | None = None) -> dict[str, Any]:
    """Compare the graph with the source: as a whole, or layer by layer where memory will not hold it.

    memory_bytes: what may be used (default: what is free). Returns the record; raises QualityError.
    """
    from .. import parity, reference
    from ..runtime import onnxruntime

    free = host.memory().available if memory_bytes is None else memory_bytes
    needed = CHECK_MEMORY_FACTOR * weight_bytes(checkpoint, "fp32")
    if needed > free:
        console.info(f"checking layer by layer: the whole model would take {console.size(needed)}, {console.size(free)} are free")
        record = layerwise.check(checkpoint, made, precision)
    else:
        console.info("checking the graph against the source")
        session = onnxruntime.open(made, "cpu", exact=True)
        try:
            record = parity.check_decoder(
                session, lambda tokens, ends: reference.logits(checkpoint, tokens, ends), precision, reference="numpy, float32"
            )
        except QualityError:
            layerwise.check(checkpoint, made, precision)  # names the first part that differs, where one alone does
            raise
        finally:
            session.close()
    return {**record, "peak_memory_mb": peak_memory_mb()}


def peak_memory_mb() -> int:
    """The most memory this process ever held, in MB (kernel figures: kB on Linux, bytes on macOS)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6)
