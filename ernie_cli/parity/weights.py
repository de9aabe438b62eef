"""What became of a step's weights in the other model: swapped, transposed, dropped. Compares values; names only help."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ..model import Model
from ..need import need
from .sketch import Sketch, distance, sketch

#: Weights are copied, or rounded to 16 bits (2^-9); what is farther apart is another weight.
_EQUAL = 4e-3


def verdicts(source: Model, made: Model, mine: Sequence[str], theirs: Sequence[str] | None) -> list[str]:
    """In words, what is wrong with the weights `mine` of a source step; `theirs`: those of the target's step, None where unknown.

    Empty where nothing is, or where the formats do not tell their weights.
    """
    own = {name: (sketch(array), _turned(array)) for name, array in weights_of(source) if array.size > 1 and array.dtype.kind in "fV"}
    held = {name: sketch(array) for name, array in weights_of(made) if array.size > 1 and array.dtype.kind in "fV"}
    if not own or not held:
        return []
    used = None if theirs is None else [held[name] for name in theirs if name in held]
    names = [name for name in mine if name in own]
    in_order: Sequence[Sketch | None] = used if used and len(used) == len(names) else [None] * len(names)
    said = [_verdict(name, own, held, at, used) for name, at in zip(names, in_order, strict=True)]
    return [each for each in said if each]


def _verdict(
    name: str, own: Mapping[str, tuple[Sketch, Sketch | None]], held: Mapping[str, Sketch], at: Sketch | None, used: Sequence[Sketch] | None
) -> str:
    """at: the weight that the target's step has in this one's place; used: all that it has."""
    weight, turned = own[name]
    there = held.get(name, at)
    if there is not None and not _equal(weight, there) and there.size == weight.size:
        if turned is not None and _equal(turned, there):
            return f"`{name}` is transposed in the target"
        if stranger := _who(there, name, own):
            return f"the target has the values of `{stranger}` in the place of `{name}`"
        return f"`{name}` has other values in the target"
    if any(_equal(weight, each) for each in (held.values() if used is None else used)):
        return ""
    if any(_equal(weight, each) for each in held.values()):
        return f"the target has `{name}` but does not use it here"
    if turned is not None and any(_equal(turned, each) for each in held.values()):
        return f"`{name}` is transposed in the target"
    return f"`{name}` is nowhere in the target"


def _who(there: Sketch, name: str, own: Mapping[str, tuple[Sketch, Sketch | None]]) -> str:
    return next((other for other, (each, _) in own.items() if other != name and _equal(each, there)), "")


def _equal(a: Sketch, b: Sketch) -> bool:
    return distance(a, b) <= _EQUAL


def _turned(array: np.ndarray) -> Sketch | None:
    """The sketch of the transposed of a square matrix: for others a transposition is a matter of layout."""
    return sketch(array.T) if array.ndim == 2 and array.shape[0] == array.shape[1] else None


def weights_of(model: Model) -> Iterator[tuple[str, np.ndarray]]:
    """Every weight by the name that the format's steps call it, one in memory at a time. Nothing for formats not read here."""
    if model.format == "onnx":
        from ..onnxgraph.load import load

        graph = load(model, known_operators=False).graph
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield str(value.name), value.const_value.numpy()
        for node in graph:
            if node.op_type == "Constant" and "value" in node.attributes:
                yield str(node.outputs[0].name), node.attributes["value"].as_tensor().numpy()
    elif model.format == "torchscript":
        from ..torchscript.types import array_of

        module = need("torch").jit.load(str(model.main_file()), map_location="cpu")
        for name, tensor in module.state_dict().items():
            yield name, array_of(tensor)
