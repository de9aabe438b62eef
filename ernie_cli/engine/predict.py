"""What an engine will need, computed from the graph before anything is built: on the device, on disk, and here while it is built.

Shapes are sizes.py's, what lives at once is liveness.py's, what constants weigh is quant/stored.py's and products.py's. Whether it
fits is fits.py's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from ..checkpoint.carry import PAPERS_BYTES, carried_bytes
from ..device import Device
from ..graph.export import EMBED_BYTES
from ..model import Model
from ..quant import disk, layers, pairs
from ..quant.options import Options as Quantising
from ..quant.scheme import Scheme, schemes
from ..quant.source import open_source
from ..quant.stored import float_type, weight_bytes
from . import figures, liveness, narrow_weights, scratch, sizes
from .products import product_bytes

if TYPE_CHECKING:
    from .options import Options
    from .shapes import Profile, Shapes

#: What can be typed after --precision beside a scheme, whose floats are fp16.
FLOATS = ("fp32", "fp16", "bf16")
#: How inputs and outputs that are a decoder's cache are called (graph/cache.py).
_CACHE = ("cache.", "cache_out.")


@dataclass(frozen=True)
class Prediction:
    """Bytes. activation_bytes: profile → what it needs at its longest; only one runs at a time, so they share the largest.

    io_bytes: inputs and outputs but the cache. cache_bytes: keys and values, which inputs and outputs share. disk_bytes: most that lies
    in the result's folder at once, graphs made on the way included. device_total: all that is on the device, and CUDA. unknown: values
    whose size nobody could find: with any, the prediction is too low.
    """

    weight_bytes: int
    cache_bytes: int
    activation_bytes: Mapping[str, int]
    io_bytes: int
    plan_bytes: int
    disk_bytes: int
    host_peak_bytes: int
    device_total: int
    unknown: int
    foresight: Foresight = field(repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        names = ("weight_bytes", "cache_bytes", "io_bytes", "plan_bytes", "disk_bytes", "host_peak_bytes", "device_total", "unknown")
        return {**{name: getattr(self, name) for name in names}, "activation_bytes": dict(self.activation_bytes)}


def predict(model: Model, shapes: Shapes, *, precision: str = "") -> Prediction:
    """What an engine of an ONNX model or of a checkpoint will need, on any device; a checkpoint's graph is made in memory.

    precision: of the engine, "" for that of the graph (of a checkpoint: fp16). Raises what opening the model raises.
    """
    return Foresight(model, precision).at(shapes)


def check(prediction: Prediction, device: Device, shapes: Shapes, options: Options) -> None:
    """Raise ResourceError (7) where the device's memory, or this machine's, will not do, naming what would; see fits.py."""
    from . import fits

    fits.check(prediction, device, shapes, options)


class Foresight:
    """A graph, as quantising would make it, whose engines are foreseen at any lengths. precision: as typed after --precision, or ""."""

    def __init__(self, model: Model, precision: str = "") -> None:
        self.model, self.precision = model, precision
        self.scheme: Scheme | None = schemes().get(precision)
        self.graph = open_source(model, dtype=precision if precision in FLOATS else "fp16", kv_cache="static")
        _unshield(self.graph)
        self.quantised = layers.already(self.graph)
        if self.quantised:
            self.scheme = None
        #: Of float32 values and weights, where the graph will be made narrower; None where they stay.
        narrower = model.format == "onnx" and not self.quantised and precision not in ("", "fp32")
        self.float_bits = 16 if narrower and float_type(self.graph) == ir.DataType.FLOAT else None
        #: Graphs that are written on the way: the float one, and all that lies there while it is quantised. 0: the source is that graph.
        self.float_bytes = weight_bytes(self.graph, self.float_bits) if model.format != "onnx" or self.float_bits else 0
        self.way_bytes = self.float_bytes
        if self.scheme:
            self.way_bytes += disk.most(self.graph, self.scheme, Quantising(measure=False), checkpoint=False, float_bits=self.float_bits)
            pairs.outline(self.graph, self.scheme, said=str(model.path))
            _unshield(self.graph)
        self.constant_bytes = weight_bytes(self.graph, self.float_bits)
        self.product_bytes = product_bytes(self.graph, self.float_bits)
        self._beside = disk.FOLDERS * carried_bytes(model.path) + PAPERS_BYTES
        self._narrow = narrow_weights.among(self.graph.graph)

    def shapes(self, options: Options) -> Shapes:
        """What `ernie build` with these options builds for. Raises what shapes.py raises."""
        from .shapes import decoder_shapes, shapes

        find = shapes if self.model.format == "onnx" else decoder_shapes
        return find(self.model, options, narrow=self._narrow)

    def at(self, shapes: Shapes) -> Prediction:
        """The prediction for these lengths and profiles."""
        profiles: dict[str, Profile | None] = {each.name: each for each in shapes.profiles} or {"default": None}
        parts = {name: self._part(shapes, profile) for name, profile in profiles.items()}
        activations = {name: part.activation_bytes for name, part in parts.items()}
        cache, io = (max(getattr(part, name) for part in parts.values()) for name in ("cache_bytes", "io_bytes"))
        weights = self.constant_bytes + (int(figures.SECOND_LAYOUT * self.product_bytes) if _two_layouts(shapes) else 0)
        values, convolved = (sum(getattr(part.live, name) for part in parts.values()) for name in ("values", "convolved"))
        plan = figures.plan_bytes(weights, values - convolved)
        made = self.constant_bytes if self.scheme else self.float_bytes  # the graph beside the plan
        return Prediction(
            weight_bytes=weights,
            cache_bytes=cache,
            activation_bytes=activations,
            io_bytes=io,
            plan_bytes=plan,
            disk_bytes=max(self.way_bytes, made + int(figures.PLAN_MARGIN * plan)) + self._beside,
            host_peak_bytes=figures.host_peak(self.constant_bytes, weights, values, self._embedded()),
            device_total=weights + cache + max(activations.values()) + io + figures.CONTEXT_BYTES,
            unknown=sum(part.live.unknown for part in parts.values()),
            foresight=self,
        )

    def has_axis(self, name: str) -> bool:
        """Whether an axis of this name can have any length."""
        axes = (axis for value in self.graph.graph.inputs for axis in value.shape or ())
        return any(isinstance(axis, ir.SymbolicDim) and axis.value == name for axis in axes)

    def _part(self, shapes: Shapes, profile: Profile | None) -> _Part:
        """One profile at its longest."""
        graph = sizes.at_lengths(self.graph, {str(value.name): _most(value, shapes, profile) for value in self.graph.graph.inputs}).graph
        live = liveness.peak(graph, self._size, lambda node: scratch.scratch(node, self._size))
        ends = [(value, self._end(value)) for value in (*graph.inputs, *graph.outputs)]
        kept = sum(n_bytes for value, n_bytes in ends if str(value.name).startswith(_CACHE[0]))
        io = {value: n_bytes for value, n_bytes in ends if not str(value.name).startswith(_CACHE)}
        copied = sum(n_bytes for value, n_bytes in io.items() if value.is_graph_input())  # in the layout that its reader likes
        return _Part(live, live.peak + copied, int(kept * _share_of_rows(profile)), sum(io.values()))

    def _size(self, value: ir.Value) -> int | None:
        found = sizes.n_bytes(value, self.float_bits)
        return found and scratch.mask_bytes(found) if scratch.is_mask(value) else found

    def _end(self, value: ir.Value) -> int:
        """An input or output keeps its type, but for a cache that becomes narrow with the rest."""
        return sizes.n_bytes(value, self.float_bits if str(value.name).startswith(_CACHE) else None) or 0

    def _embedded(self) -> int:
        """Bytes of the graph's file where it holds the weights itself, else 0."""
        if self.model.format == "onnx" and not self.float_bits:
            n_bytes = self.model.main_file().stat().st_size
            return n_bytes if n_bytes > self.constant_bytes // 2 else 0
        return self.constant_bytes if self.constant_bytes < EMBED_BYTES else 0


@dataclass(frozen=True)
class _Part:
    live: liveness.Live
    activation_bytes: int
    cache_bytes: int
    io_bytes: int


def _unshield(model: ir.Model) -> None:
    """Take out each Max of one input (see quant/shield.py), which TensorRT drops, too."""
    for node in model.graph.all_nodes():
        if node.op_type == "Max" and len(node.inputs) == 1 and node.inputs[0] is not None and not node.outputs[0].is_graph_output():
            node.outputs[0].replace_all_uses_with(node.inputs[0])


def _two_layouts(shapes: Shapes) -> bool:
    """Whether one profile is of one shape alone and another of several."""
    fixed = {all(least == most for least, _, most in profile.shapes.values()) for profile in shapes.profiles}
    return len(fixed) == 2


def _share_of_rows(profile: Profile | None) -> float:
    """Of the rows of a decoder's cache, those that were asked for: what narrow_weights.py adds takes no cache until it is used."""
    if profile is None or not {"input_ids", "positions"} <= set(profile.shapes):
        return 1.0
    _, best, most = profile.shapes["input_ids"]
    return best[0] / most[0]


def _most(value: ir.Value, shapes: Shapes, profile: Profile | None) -> tuple[int, ...]:
    """An input's shape at its longest: the profile's, or its own with axes at their fixed lengths."""
    if profile is not None and str(value.name) in profile.shapes:
        return tuple(profile.shapes[str(value.name)][2])
    return tuple(axis if isinstance(axis, int) else shapes.fixed.get(str(axis.value), 1) for axis in value.shape or ())
