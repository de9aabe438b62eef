"""Keys and values of earlier tokens as int8 or 8-bit floats, in decoders of graph/cache.py. Scales come from whoever calibrates.

One scale per layer for keys and one for values. Attention computes in the graph's own type, on dequantised values; new tokens
meet their own keys and values rounded, too, so that it does not matter in what pieces a prompt comes. Inputs and outputs keep
their names, and both kinds of cache compute the same.

static, int8   codes are written into the cache with ScatterND. (TensorRT takes TensorScatter for floats only.)
static, fp8    ONNX scatters no 8-bit floats: the cache is widened, written into and narrowed again. What was not written comes
               back as the same codes. (TensorRT takes TensorScatter on its inputs only, so this is ScatterND, too.)
growing        likewise, around the Attention that appends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from ..errors import UnsupportedError
from ..onnxgraph.names import fresh
from .edit import IR_TYPES

_SET = ("cache.", "past.")


@dataclass(frozen=True)
class Slot:
    """One tensor of a cache. node writes `new` to `cache` (TensorScatter, or an Attention with past), which gives `out`."""

    node: ir.Node
    new: ir.Value
    cache: ir.Value
    out: ir.Value


def cache_values(graph: ir.Model) -> list[str]:
    """Names of the values whose scales `quantize_cache` needs: new keys and values, in the order of layers.

    Raises UnsupportedError for a graph without a cache, or one that is narrow already.
    """
    return [str(slot.new.name) for slot in _slots(graph.graph)]


def quantize_cache(graph: ir.Model, kind: str, scales: Mapping[str, float]) -> list[str]:
    """Keep the cache in `kind` ("int8" or "fp8"): its inputs and outputs become that type. Returns the inputs' names.

    scales: one for each of `cache_values`. Raises UnsupportedError as that does.
    """
    found = _slots(graph.graph)
    static = [slot for slot in found if slot.node.op_type == "TensorScatter"]
    places = _places(graph.graph, static[0]) if static else None
    for slot in found:
        edit = _Edit(graph.graph, slot, kind, scales[str(slot.new.name)])
        edit.static(places) if places else edit.growing()
    return [str(slot.cache.name) for slot in found]


def bytes_per_token(graph: ir.Model) -> int:
    """What the cache of one row holds for each token; 0 where there is none."""
    caches = [value for value in graph.graph.inputs if str(value.name).startswith(_SET)]
    return round(sum(_count(value, 1) * _count(value, 3) * value.dtype.itemsize for value in caches if value.dtype))


def _count(value: ir.Value, axis: int) -> int:
    """A length that the graph fixes: a decoder's caches name their heads and widths."""
    assert value.shape is not None
    return int(value.shape[axis])  # type: ignore[arg-type]


def _slots(graph: ir.Graph) -> list[Slot]:
    """Every tensor of a decoder's cache, layer by layer, keys before values."""
    found = [slot for node in graph for slot in _slots_of(node) if slot.cache in graph.inputs and slot.out.is_graph_output()]
    for value in graph.inputs:
        if value.dtype in IR_TYPES.values() and str(value.name).startswith(_SET):
            raise UnsupportedError(f"its cache is {value.dtype.name.lower()} already", "quantise the model that it was made from")  # type: ignore[union-attr]
    if not found:
        raise UnsupportedError(
            "it keeps no keys and values of earlier tokens", "`ernie convert CHECKPOINT --to onnx` makes decoders that do"
        )
    return found


def _slots_of(node: ir.Node) -> list[Slot]:
    given, made = [*node.inputs, *[None] * 6], node.outputs
    ways: list[tuple[Any, Any, ir.Value]] = []
    if node.op_type == "TensorScatter" and node.attributes.get_int("axis", -2) in (2, -2):
        ways = [(given[1], given[0], made[0])]
    elif node.op_type == "Attention" and len(made) > 2:
        ways = [(given[1], given[4], made[1]), (given[2], given[5], made[2])]
    return [Slot(node, new, cache, out) for new, cache, out in ways if new is not None and cache is not None]


class _Edit:
    """The change of one slot."""

    def __init__(self, graph: ir.Graph, slot: Slot, kind: str, scale: float) -> None:
        assert slot.cache.dtype is not None
        self.graph, self.slot, self.kind = graph, slot, kind
        self.wide, self.narrow = slot.cache.dtype, IR_TYPES[kind]
        self.pair = [self._constant("scale", np.array(scale, self.wide.numpy())), self._constant("zero", np.zeros((), self.narrow.numpy()))]
        slot.cache.type = ir.TensorType(self.narrow)

    def static(self, places: ir.Value) -> None:
        slot = self.slot
        codes = self._narrowed("new", slot.new)
        if self.kind == "int8":
            written = self._op("ScatterND", "written", [slot.cache, places, codes], self.narrow, slot.out)
            seen = self._widened("seen", written)
        else:
            seen = self._op(
                "ScatterND", "seen", [self._widened("float", slot.cache), places, self._widened("rounded", codes)], self.wide, slot.out
            )
            written = self._narrowed("written", seen)
        for use in list(slot.out.uses()):
            use.node.replace_input_with(use.idx, seen)
        self._give(written)
        self.graph.remove(slot.node, safe=True)

    def growing(self) -> None:
        slot = self.slot
        slot.node.replace_input_with(slot.node.inputs.index(slot.new), self._widened("rounded", self._narrowed("new", slot.new)))
        slot.node.replace_input_with(slot.node.inputs.index(slot.cache), self._widened("float", slot.cache))
        self._give(self._narrowed("written", slot.out, after=True))

    def _give(self, written: ir.Value) -> None:
        """Make `written` the graph's output in the place of `out`, under its name."""
        name, old = self.slot.out.name, self.slot.out
        old.name = fresh(self.graph, f"{name}_float")
        written.name = name
        self.graph.outputs[self.graph.outputs.index(old)] = written

    def _narrowed(self, name: str, value: ir.Value, *, after: bool = False) -> ir.Value:
        return self._op("QuantizeLinear", name, [value, *self.pair], self.narrow, value, after=after)

    def _widened(self, name: str, value: ir.Value) -> ir.Value:
        return self._op("DequantizeLinear", name, [value, *self.pair], self.wide, value)

    def _op(self, op_type: str, name: str, inputs: list[ir.Value], dtype: ir.DataType, like: ir.Value, *, after: bool = False) -> ir.Value:
        out = ir.Value(name=fresh(self.graph, f"{self.slot.cache.name}.{name}"), type=ir.TensorType(dtype), shape=like.shape)
        node = ir.node(op_type, inputs, outputs=[out], name=out.name)
        (self.graph.insert_after if after else self.graph.insert_before)(self.slot.node, node)
        return out

    def _constant(self, name: str, array: np.ndarray) -> ir.Value:
        return _constant(self.graph, f"{self.slot.cache.name}.{name}", array)


def _places(graph: ir.Graph, slot: Slot) -> ir.Value:
    """Where new keys and values of a step go in every static cache: indices int64 [B, g, S, 3] for ScatterND into [B, g, T, d]."""
    assert slot.cache.shape is not None
    heads = int(slot.cache.shape[1])  # type: ignore[arg-type]
    zero, one = _constant(graph, "places.zero", np.array(0)), _constant(graph, "places.one", np.array(1))
    single = _constant(graph, "places.single", np.array([1]))
    starts = slot.node.inputs[2]
    assert starts is not None

    def op(op_type: str, *inputs: ir.Value, name: str, **attributes: Any) -> ir.Value:
        out = ir.Value(name=fresh(graph, f"places.{name}"), type=ir.TensorType(ir.DataType.INT64))
        graph.insert_before(slot.node, ir.node(op_type, inputs, attributes, outputs=[out], name=out.name))
        return out

    def count(axis: int, name: str) -> ir.Value:
        length = op("Squeeze", op("Shape", slot.new, name=f"{name}_length", start=axis, end=axis + 1), name=f"{name}_count")
        return op("Range", zero, length, one, name=name)

    tokens = op("Add", op("Unsqueeze", starts, single, name="starts"), count(2, "new"), name="tokens")  # [B, S]
    parts = (
        op("Unsqueeze", count(0, "rows"), _constant(graph, "places.after_row", np.array([1, 2, 3])), name="row"),
        _constant(graph, "places.heads", np.arange(heads).reshape(1, heads, 1, 1)),
        op("Unsqueeze", tokens, _constant(graph, "places.around_token", np.array([1, 3])), name="token"),
    )
    whole = op("Concat", op("Shape", slot.new, name="shape", start=0, end=3), single, name="whole", axis=0)
    spread = [op("Expand", part, whole, name=f"{name}_everywhere") for name, part in zip(("row", "head", "token"), parts, strict=True)]
    return op("Concat", *spread, name="all", axis=-1)


def _constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.tensor(array, name=fresh(graph, name))
    value = ir.Value(name=tensor.name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value
