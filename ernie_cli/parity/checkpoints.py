"""The end of an edge from a checkpoint to a program: tokenizer and config beside it, parity with the source, the papers.

Knows sessions and the numpy reference; which backend runs the program is the edge's matter.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .. import console
from ..checkpoint import Checkpoint
from ..checkpoint.carry import carry
from ..model import Model, write_manifest
from ..runtime import Session
from . import check_decoder


def finish(
    source: Model,
    checkpoint: Checkpoint,
    out: Path,
    *,
    format: str,
    files: Mapping[str, Mapping[str, Any]],
    precision: str,
    open_session: Callable[[Model], Session] | None,
    seconds: float,
    **more: Any,
) -> Model:
    """Complete the folder `out` that holds a program in `files`: copy what stands beside the weights, check, write the manifest.

    open_session: opens the result for the check; None: --no-verify. seconds: what making the program took.
    Raises QualityError (exit 6) where the program does not compute what the checkpoint does.
    """
    carried, _ = carry(source.path, out, rewritten=())
    manifest: dict[str, Any] = {
        "architecture": checkpoint.config.model_type,
        "precision": precision,
        "skipped_tensors": list(checkpoint.skipped),
        "made_by": {"seconds": round(seconds, 3)},
        "files": {**files, **carried},
        **more,
    }
    if checkpoint.skipped:
        console.info(f"skipped {len(checkpoint.skipped)} tensors that the model has no use for: {', '.join(checkpoint.skipped[:5])} …")
    unchecked = write_manifest(out, format=format, **manifest)
    if open_session is None:
        console.warn("not verified: --no-verify")
        check: dict[str, Any] = {"name": "parity", "passed": None, "why": "--no-verify"}
    else:
        console.info("checking the result against the source")
        check = _verify(checkpoint, open_session(unchecked), precision)
    return write_manifest(out, format=format, checks=[check], **manifest)


def _verify(checkpoint: Checkpoint, session: Session, precision: str) -> dict[str, Any]:
    from .. import reference

    try:
        record = check_decoder(
            session, lambda tokens, ends: reference.logits(checkpoint, tokens, ends), precision, reference="numpy, float32"
        )
    finally:
        session.close()
    return {**record, "peak_memory_mb": peak_memory_mb()}


def peak_memory_mb() -> int:
    """The most memory that this process, or one it ran to its end, ever held, in MB (kernel figures: kB on Linux, bytes on macOS)."""
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6)
