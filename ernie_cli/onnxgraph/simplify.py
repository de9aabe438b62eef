"""`simplify(model)`: constants folded, equal nodes made one, dead ones dropped; the numbers stay the same bit for bit.

The passes are onnxscript's and onnx-ir's. Here is what keeps them honest: bounds, and a check of what they leave.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import onnx_ir as ir

from .. import console
from ..need import need
from . import inference, lengths
from .write import constant_bytes

#: A folded constant may have this many elements: 1 MB of int64. The larger ones stay computed, so that files do not grow.
MOST_ELEMENTS = 1 << 17
SURE_ELEMENTS = 1 << 10
#: All folded constants together may make the model this much larger.
MOST_GROWTH_BYTES = 1 << 20
#: onnx's reference implementation, which computes what is folded, takes minutes for a large one of these.
SLOW = ("Resize", "GridSample", "Conv", "ConvTranspose", "RoiAlign")


def simplify(model: ir.Model) -> ir.Model:
    """A smaller model that computes the same; `model` itself is not changed, weights are shared and stay where they are.

    Inputs, outputs, dynamic axes and the opset stay. Local functions are kept as they are. A pass that would break anything is
    left out: the model of before goes on.
    """
    whole, problem = _tried(_all, model)
    if not problem:
        return whole
    for name, run in _passes():  # which of them it was: slower, for each one works on a copy of its own
        after, problem = _tried(run, model)
        if problem:
            console.detail(f"simplify: left out {name}: {problem}")
        else:
            model = after
    return model


def _all(model: ir.Model) -> None:
    for _, run in _passes():
        run(model)


def _passes() -> Iterator[tuple[str, Callable[[ir.Model], Any]]]:
    common = need("onnx_ir.passes.common")
    folding = need("onnxscript.optimizer")
    yield "shapes", inference.infer
    yield "identities", common.IdentityEliminationPass()
    yield "lengths", lengths.as_vectors
    for bound in (SURE_ELEMENTS, SURE_ELEMENTS, MOST_ELEMENTS):  # what one round made constant the next can use
        yield (
            "folding",
            partial(folding.fold_constants, onnx_shape_inference=True, output_size_limit=bound, should_fold=partial(_small, bound)),
        )
        yield "dead nodes", common.RemoveUnusedNodesPass()
    yield "lengths", lengths.as_numbers
    yield "dead nodes", common.RemoveUnusedNodesPass()
    yield "constants", common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)
    yield "equal constants", common.DeduplicateInitializersPass()
    yield "equal nodes", common.CommonSubexpressionEliminationPass()
    yield "dead nodes", common.RemoveUnusedNodesPass()


def _tried(run: Callable[[ir.Model], Any], model: ir.Model) -> tuple[ir.Model, str]:
    """`run` on a copy: the copy, and what is wrong with it ("" where it is sound)."""
    copy = model.clone()
    try:
        with _silenced():
            run(copy)
        return copy, _problem(model, copy)
    except Exception as err:  # noqa: BLE001 — a pass may fail in any way; the model is good without it
        return copy, f"{type(err).__name__}: {err}"


def _small(bound: int, node: ir.Node) -> bool | None:
    """False where the result might be large: asked of nodes whose inputs are constants, before they are computed.

    True for a few constants of one value: onnxscript leaves all of those alone, and with them whatever is computed from them.
    """
    if node.op_type in SLOW:
        return False
    elements = 0
    for value in node.outputs:
        shape = value.shape
        if shape is None or not all(isinstance(length, int) for length in shape):
            return False
        elements = math.prod(max(1, int(length)) for length in shape)  # type: ignore[arg-type]
        if elements > bound:
            return False
    return True if node.op_type == "ConstantOfShape" and elements <= SURE_ELEMENTS else None


def _problem(before: ir.Model, after: ir.Model) -> str:
    """What a pass must not have done: other inputs or outputs, or a subgraph that gives out what it does not make."""
    for kind in ("inputs", "outputs"):
        old, new = getattr(before.graph, kind), getattr(after.graph, kind)
        if len(old) != len(new) or not all(map(_same, old, new)):
            return f"other {kind}"
    if constant_bytes(after) > constant_bytes(before) + MOST_GROWTH_BYTES:
        return "the constants would weigh more than a megabyte more"
    for graph in after.graph.subgraphs():
        for value in graph.outputs:
            producer = value.producer()
            if (producer is None and value.graph is not graph) or (producer is not None and producer.graph is not graph):
                return f"a subgraph gives out `{value.name}`, which is not its own"
    return ""


def _same(before: ir.Value, after: ir.Value) -> bool:
    """Whether two inputs or outputs are the same to who uses the model; what was unknown may have become known."""
    named = before.name == after.name and before.dtype in (None, after.dtype)
    return named and (before.shape is None or (after.shape is not None and len(before.shape) == len(after.shape)))


@contextmanager
def _silenced() -> Iterator[None]:
    """The libraries' warnings are about what they leave alone."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
