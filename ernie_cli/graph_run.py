"""`ernie run MODEL --inputs x.npz`: a graph model on named arrays, and how far its outputs are from reference ones."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import console, npz
from .errors import UsageError
from .model import Model
from .parity.arrays import feeds_from
from .runtime.graphs import open_graph

if TYPE_CHECKING:
    from rich.console import RenderableType


def run(
    path: Path,
    inputs: str,
    *,
    out: Path | None = None,
    reference: str | None = None,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
) -> None:
    """Run once and print a table of the outputs, or of their differences from `reference`; all of them go into `out`.

    The comparison informs; a gate is what `ernie convert` has.

    inputs, reference: .npz files, arrays by name. Raises UsageError for arrays that the model does not take, and what the backend raises.
    """
    if out is not None:
        npz.check_out(out)
    wanted = npz.read(reference) if reference else None
    session = open_graph(Model.open(path), backend, device, threads=threads, exact=False)
    try:
        feeds = feeds_from(inputs, session.inputs)
        start = time.perf_counter()
        outputs = session.run(feeds)
        seconds = time.perf_counter() - start
    finally:
        session.close()
    if out is not None:
        npz.write(out, outputs)
    facts: dict[str, Any] = {"backend": session.backend, "device": session.device, "seconds": round(seconds, 6)}
    facts |= {"out": str(out) if out else None, "outputs": {name: _facts(array) for name, array in outputs.items()}}
    if wanted is not None:
        facts["reference"] = _compare(wanted, outputs)
    console.info(f"ran on {session.backend} ({session.device}) in {seconds * 1e3:.1f} ms{f'; written to {out}' if out else ''}")
    console.result(_text(facts), data=facts)


def check_flags(inputs: str | None, others: Mapping[str, Any]) -> None:
    """Raise UsageError where --inputs is missing, or stands beside another way to ask."""
    if inputs is None:
        raise UsageError("--reference compares what --inputs gives", "ernie run MODEL --inputs x.npz --reference y0.npz")
    given = [name for name, value in others.items() if value is not None]
    if given:
        raise UsageError(
            f"--inputs and {' and '.join(given)} exclude each other", "a graph model takes arrays, a language model takes text"
        )


def _facts(array: np.ndarray) -> dict[str, Any]:
    """dtype, shape and, of finite numbers, the least, mean and greatest."""
    facts: dict[str, Any] = {"dtype": array.dtype.name, "shape": list(array.shape)}
    if array.dtype.kind not in "fiubV" or not array.size:
        return facts
    wide = array.astype(np.float64)
    finite = wide[np.isfinite(wide)]
    facts["not_finite"] = int(wide.size - finite.size)
    if finite.size:
        facts |= {"min": float(finite.min()), "mean": float(finite.mean()), "max": float(finite.max())}
    return facts


def _compare(wanted: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Output → how far it is from the reference. Raises UsageError where the file holds none of the outputs."""
    from .parity import metrics

    shared = [name for name in outputs if name in wanted]
    if not shared:
        raise UsageError(
            f"the reference holds {', '.join(wanted)}; the outputs are {', '.join(outputs)}", "save it under the outputs' names"
        )
    return {name: metrics.compare(npz.typed(wanted[name], outputs[name].dtype.name), outputs[name]).as_dict() for name in shared}


def _text(facts: Mapping[str, Any]) -> RenderableType:
    from .tables import table

    if "reference" in facts:
        names = ["max_abs", "max_rel", "cosine", "snr_db", "top1", "equal"]
        rows = [(output, *(_number(found.get(name)) for name in names), _verdict(found)) for output, found in facts["reference"].items()]
        return table(("output", *names, "the same?"), rows)
    names = ["dtype", "shape", "min", "mean", "max"]
    return table(
        ("output", *names), [(output, *(_number(known.get(name)) for name in names)) for output, known in facts["outputs"].items()]
    )


def _verdict(found: Mapping[str, Any]) -> str:
    return "; ".join(found["problems"]) or "ok"


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
