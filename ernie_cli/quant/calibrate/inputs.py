"""What a model wants to be fed: its inputs, whether it is an ERNIE decoder, how many rows the tables have that ids index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...model import Model
from ...runtime.graphs import TensorSpec, open_graph

_CHECKPOINTS = ("hf", "paddle")


@dataclass(frozen=True)
class Inputs:
    """specs: all inputs; of decoders `input_ids` alone, for positions and caches are no data. rows: input → rows of its table."""

    specs: tuple[TensorSpec, ...]
    decoder: bool = False
    rows: Mapping[str, int] = field(default_factory=dict)

    @property
    def names(self) -> str:
        """For people: "`x` float32 [N, 3, 224, 224]"."""
        return ", ".join(f"`{spec.name}` {spec.dtype} {shown(spec)}" for spec in self.specs)


_IDS = TensorSpec("input_ids", "int64", ("batch", "sequence"))


def inputs_of(model: Model) -> Inputs:
    """Read a graph's or a checkpoint's inputs. Raises what loading raises."""
    if model.format in _CHECKPOINTS:
        vocabulary = model.config().get("vocab_size")
        return Inputs((_IDS,), True, {_IDS.name: vocabulary} if isinstance(vocabulary, int) else {})
    if model.format != "onnx":
        session = open_graph(model)
        try:
            return Inputs(session.inputs, rows=dict(getattr(session, "rows", {})))
        finally:
            session.close()
    from ...onnxgraph.load import load
    from ...parity.hints import facts_of
    from ...runtime.onnxruntime_graph import _spec

    graph = load(model, known_operators=False).graph
    names = {str(value.name) for value in graph.inputs}
    rows = facts_of(model).rows
    if "input_ids" in names and not names.isdisjoint(("cache.0.key", "past.0.key")):
        return Inputs((_IDS,), True, rows)
    return Inputs(tuple(_spec(value, model.main_file()) for value in graph.inputs if value.name not in graph.initializers), False, rows)


def shown(spec: TensorSpec) -> str:
    """A spec's shape for people: [N, 3, ?]."""
    return "of any shape" if spec.shape is None else f"[{', '.join('?' if axis is None else str(axis) for axis in spec.shape)}]"
