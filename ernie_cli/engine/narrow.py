"""A float32 ONNX model as a folder in 16 bits, with its papers and its checks. The rounding itself is onnxgraph/lower_precision.py's.

ONNX Runtime computes float16 graphs on a CPU in float32, so parity sees rounded weights and a changed graph, but no activation that
leaves float16's range: those are looked for in the source, and what makes and reads them stays wide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import console
from ..errors import QualityError
from ..model import Model, write_manifest
from ..onnxgraph.lower_precision_rules import MASK

if TYPE_CHECKING:
    from ..runtime.graphs import GraphSession, TensorSpec

FILE = "model.onnx"
#: What a decoder keeps between steps becomes narrow, though inputs and outputs otherwise keep their types.
_CACHE = ("cache.", "cache_out.")
#: Numbers that come within this factor of the type's end are taken for beyond it: other inputs make larger ones.
_MARGIN = 4
#: The first opset whose convolutions and pools take bfloat16.
_BF16_OPSET = 22


def narrow(source: Model, dtype: str, out: Path, *, decoder: bool, verify: bool, inputs: Sequence[str]) -> Model:
    """Fill the new folder `out`. dtype: fp16 or bf16. inputs: "name:dtype:shape" of those that it is checked with, where typical ones
    will not do.

    Raises UnsupportedError where nothing can be narrow, QualityError (6) where the result is not the same model.
    """
    import onnx_ir as ir

    from ..onnxgraph.load import load
    from ..onnxgraph.lower_precision import lower_precision
    from ..onnxgraph.simplify import simplify
    from ..onnxgraph.write import save
    from ..quant.opset import raise_opset

    console.info(f"making {source.path} {dtype}")
    model = simplify(load(source, known_operators=False))
    if dtype == "bf16":
        raise_opset(model, _BF16_OPSET, said=str(source.path))
    ends = [str(value.name) for value in (*model.graph.inputs, *model.graph.outputs) if decoder and str(value.name).startswith(_CACHE)]
    wide = _beyond(source, decoder, inputs) if verify and dtype == "fp16" else []
    kept = lower_precision(model, {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}[dtype], ends, wide)
    for why, names in kept.items():
        console.detail(f"{len(names)} nodes stay in float32: {why}: {', '.join(names[:5])}{' …' if len(names) > 5 else ''}")
    out.mkdir()
    papers = _papers(source, dtype, save(model, out, FILE), out)
    papers |= {"opset": model.graph.opset_imports.get("", 0), "kept_fp32": {why: len(names) for why, names in kept.items()}}
    made = write_manifest(out, format="onnx", **papers)
    check = _check(source, made, dtype, decoder, inputs) if verify else {"name": "parity", "passed": None, "why": "--no-verify"}
    return write_manifest(out, format="onnx", checks=[check], **papers)


def _papers(source: Model, dtype: str, files: Mapping[str, Any], out: Path) -> dict[str, Any]:
    from ..checkpoint.carry import carry

    carried, _ = carry(source.path, out, rewritten=(FILE, f"{FILE}.data"))
    known = {name: source.manifest[name] for name in ("kv_cache",) if name in source.manifest}
    return {"architecture": source.architecture, "precision": dtype, "main": FILE, "files": {**files, **carried}, **known}


def _beyond(source: Model, decoder: bool, inputs: Sequence[str]) -> list[str]:
    """Names of values that come near float16's end on drawn inputs."""
    import onnx_ir as ir

    from ..onnxgraph.narrowed import limits
    from ..runtime.graphs import open_graph

    most = limits(ir.DataType.FLOAT16)[0] / _MARGIN
    session = open_graph(source)
    found = []
    try:
        for step in session.steps(_prompt(session.inputs) if decoder else _drawn(source, session, inputs)):
            if step.value is not None and step.value.dtype == np.float32 and _largest(step.value) > most:
                found.append(step.name)
    finally:
        session.close()
    return found


def _largest(array: np.ndarray) -> float:
    """The largest magnitude among numbers that somebody computes with: masks are far below them."""
    seen = array[np.isfinite(array) & (array > MASK)]
    return float(np.abs(seen).max(initial=0.0))


def _drawn(source: Model, session: GraphSession, inputs: Sequence[str]) -> Mapping[str, np.ndarray]:
    """Inputs that the model takes. Raises UsageError where it takes none of those that are tried."""
    from ..parity import cases
    from ..parity.hints import facts_of
    from ..runtime.specs import merge

    with console.progress("looking at the range of activations", None) as meter:
        found, _ = cases.several(session, merge(session.inputs, inputs), facts_of(source).rows, [], meter)
    return found[0].feeds


def _prompt(specs: Sequence[TensorSpec]) -> dict[str, np.ndarray]:
    """A prompt for a decoder of graph/cache.py with an empty cache."""
    tokens = 24
    lengths = {"batch": 1, "sequence": tokens, "slots": 64}
    feeds = {}
    for spec in specs:
        shape = [axis if isinstance(axis, int) else lengths.get(str(axis), 0) for axis in spec.shape or ()]
        feeds[spec.name] = np.zeros(shape, np.int64 if spec.dtype == "int64" else np.float32)
    feeds["input_ids"][:] = np.arange(1, tokens + 1)
    return feeds


def _check(source: Model, made: Model, dtype: str, decoder: bool, inputs: Sequence[str]) -> dict[str, Any]:
    """The same inputs through both. Raises QualityError (6) where they are not the same model."""
    try:
        return _compared_decoders(source, made, dtype) if decoder else _compared(source, made, dtype, inputs)
    except QualityError as err:
        other = "--precision fp32 loses nothing" if not decoder else "--precision bf16 holds larger numbers" if dtype == "fp16" else ""
        hint = f"{other or '--precision fp16 holds more digits'}; --no-verify builds it all the same"
        raise QualityError(f"{source.path} loses too much in {dtype}: {err.message}", hint) from err


def _compared(source: Model, made: Model, dtype: str, inputs: Sequence[str]) -> dict[str, Any]:
    from .. import route
    from ..parity import graphs

    return graphs.check(source, made, route.Options(input_specs=tuple(inputs)), name=f"fp32 → {dtype}")


def _compared_decoders(source: Model, made: Model, dtype: str) -> dict[str, Any]:
    from ..parity import check_decoder
    from ..runtime import onnxruntime

    before, after = (onnxruntime.open(model, "cpu", exact=True) for model in (source, made))

    def expected(tokens: np.ndarray, ends: list[int]) -> np.ndarray:
        starts = [0, *(end + 1 for end in ends[:-1])]
        return np.concatenate([before.step(tokens[None, start : end + 1]) for start, end in zip(starts, ends, strict=True)])

    try:
        return check_decoder(after, expected, dtype, reference=f"{source.path}, float32")
    finally:
        before.close()
        after.close()
