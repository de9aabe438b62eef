"""An engine beside the graph it was built from: the same inputs through both, with the gates of `ernie convert`.

Where this machine cannot run the engine, `why_not` says so, and the record stays open until `verify` completes it on one that can.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .. import console, parity
from ..errors import ErnieError, MissingError, QualityError, UnsupportedError
from ..model import Model, write_manifest
from ..parity.graphs import ParityError
from ..quant.report.files import is_decoder
from ..quant.scheme import find, schemes
from ..route import Options as Checking
from ..runtime.tensorrt_io import said
from . import admit, library, precision
from .papers import engine_facts

_NAME = "onnx_to_engine"


def why_not(model: Model) -> str:
    """Why this engine cannot run here, in a few words, "" where it can. Loads no native library and does not read the plan."""
    from ..runtime import tensorrt_admission
    from ..runtime.cuda import binding

    capability = tensorrt_admission.capability()
    if capability is None:
        return "no GPU here"
    if tensorrt_admission.stripped(model):
        return "its weights were left out"
    try:
        told = admit.stamp(model)
        found = library.find(told.library, gpu=True)
        if found is None:
            return f"{told.built_by} is not installed here"
        admit.check_library(model, told, found.name, found.version)
        admit.check_system(model, told, admit.this_system())
        admit.check_capability(model, told, capability)
        binding.load()
    except ErnieError as err:
        return err.message.removeprefix(f"{model.path}: ")
    return ""


def check(engine: Model, graph: Model) -> dict[str, Any]:
    """Run `engine` beside `graph`, the ONNX model it was built from. Returns the record for the manifest.

    Raises QualityError (exit 6) where they are not the same model, and what opening them raises.
    """
    console.info("checking the engine against its graph")
    return _decoder(engine, graph) if is_decoder(graph) else _graph(engine, graph)


def verify(path: Any) -> Model:
    """`ernie build --verify PATH`: check an engine on this machine's GPU and write the verdict into its papers.

    Raises MissingError (5) where it cannot run here, InputError (3) where what it was built from is gone or another, QualityError (6)
    where it is not the same model; that, too, is written down.
    """
    from .origin import graph_of

    model = Model.open(path)
    if model.format != "engine":
        raise UnsupportedError(f"{model.path} is {model.format}, no engine", f"ernie build {model.path} makes one")
    admit.check_digest(model, admit.stamp(model))  # damage is worth knowing on any machine
    if why := why_not(model):
        raise MissingError(f"{model.path} cannot be verified here: {why}", "do it on the device that it was built for")
    try:
        with graph_of(model) as graph:
            record = check(model, graph)
    except QualityError as err:
        found = err.record if isinstance(err, ParityError) else {"why": err.message}
        _write(model, {"name": "parity", **found, "passed": False})
        raise
    return _write(model, record)


def _write(model: Model, record: Mapping[str, Any]) -> Model:
    """The manifest with this record in the place of the last one of its name."""
    known = {key: value for key, value in model.manifest.items() if key != "ernie"}
    others = [each for each in known.get("checks") or [] if isinstance(each, dict) and each.get("name") != record["name"]]
    return write_manifest(model.folder, **{**known, "checks": [*others, record]})


# --- decoders ---------------------------------------------------------------------------------------------------------


def _decoder(engine: Model, graph: Model) -> dict[str, Any]:
    """Prefill, a further chunk and single tokens; ONNX Runtime on the CPU says what is right."""
    from ..runtime import onnxruntime, tensorrt

    session = tensorrt.open(engine)
    try:
        reference = onnxruntime.open(graph, "cpu", context=session.info.context, exact=True)
        try:

            def expected(tokens: np.ndarray, ends: list[int]) -> np.ndarray:
                starts = [0, *(end + 1 for end in ends[:-1])]
                return np.concatenate([reference.step(tokens[None, at : end + 1]) for at, end in zip(starts, ends, strict=True)])

            record = parity.check_decoder(session, expected, precision_of(graph), reference="its graph on onnxruntime (cpu)")
        finally:
            reference.close()
    finally:
        session.close()
    return {**record, "edge": _NAME}


def precision_of(graph: Model) -> str:
    """The limits for a decoder: fp32, fp16 or bf16.

    Codes of weights become the same numbers on both sides, so that the rest of the graph decides. Codes of activations may differ by
    one where a number lies half-way, which weighs as much as bfloat16's rounding does.
    """
    kind, floats = precision.own(graph)
    if kind in schemes() and find(kind).needs_data:
        return "bf16"
    return floats if floats in parity.LIMITS else "fp32"


# --- any other model --------------------------------------------------------------------------------------------------


def _graph(engine: Model, graph: Model) -> dict[str, Any]:
    """Several numbers at the best, the least and the largest shapes of every profile."""
    from ..parity import graphs

    records: list[dict[str, Any]] = []
    for shapes in _shapes(engine_facts(engine)["profiles"]):
        typed = _typed(graph, shapes)
        record = graphs.check(graph, engine, Checking(input_specs=typed), name=_NAME)
        records.append({**record, "shapes": {name: said(shape) for name, shape in shapes.items()}})
    first, *others = records
    return {**first, **({"at_other_shapes": others} if others else {})}


def _shapes(profiles: list[dict[str, Any]]) -> Iterator[dict[str, tuple[int, ...]]]:
    """Input → its shape, best first; each combination once. One without any input where all is fixed."""
    seen: list[dict[str, tuple[int, ...]]] = []
    for profile in profiles:
        for turn in (1, 0, 2):
            shapes = {name: tuple(ranges[turn]) for name, ranges in profile["inputs"].items()}
            if shapes not in seen:
                seen.append(shapes)
    yield from seen or [{}]


def _typed(graph: Model, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    """`--input` of each input with its shape, as parity takes sizes."""
    from ..runtime.graphs import TensorSpec, open_graph
    from ..runtime.specs import as_typed

    session = open_graph(graph)
    try:
        specs = [TensorSpec(spec.name, spec.dtype, shapes[spec.name]) for spec in session.inputs if spec.name in shapes]
        return tuple(as_typed(spec).removeprefix("--input ") for spec in specs)
    finally:
        session.close()
