"""How the weights of a model become 4-bit codes: which method, which data, which layers stay at 8 bits. Decided before any file is written.

The methods themselves are gptq.py and awq.py, what is measured of the data moments.py; work.py writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir

from .. import console, host
from ..errors import InputError
from ..model import Model
from . import awq, edit, fold, gptq, mix
from .calibrate.collect import collect
from .codes import NUMPY, Codes
from .layers import Layer
from .moments import SecondMoments, relative_error
from .options import Options
from .scheme import WeightFormat

Maker = Callable[[np.ndarray], Codes]
#: Moments in memory at once. Where they need more, the data run through the graph again.
_MOST_BYTES = 1 << 30
#: The most inputs that a layer may have for its moments to be kept whole: 16384² float64 are 2 GB.
_WIDEST = 16384


@dataclass
class Found:
    """What was decided.

    factors: by an activation's name, what it is divided by (AWQ); `fold` puts them into a graph. makers: by a layer's name, what
    makes its codes of its weight as Layer.read gives it, in the folded graph; others are rounded to nearest. forms: by a layer's
    name, what is not the scheme's form. errors: by a layer's name, what its output (without data: its weight) loses at 4 bits, as
    a share of its power; empty where nobody asked for it.
    """

    factors: dict[str, np.ndarray] = field(default_factory=dict)
    makers: dict[str, Maker] = field(default_factory=dict)
    forms: dict[str, WeightFormat] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)

    def fold(self, graph: ir.Model, layers: Sequence[Layer]) -> dict[str, np.ndarray]:
        """Divide activations by their factors and multiply weights, in a graph like the one that was searched. layers: as there.

        Returns what was folded: by the name of each activation that became smaller, its factors.
        """
        folded: dict[str, np.ndarray] = {}
        for group in fold.groups(graph, layers) if self.factors else ():
            if group.name in self.factors:
                fold.fold(group, self.factors[group.name])
                folded |= dict.fromkeys([group.name, *(str(layer.activation.name) for layer in group.layers)], self.factors[group.name])
        return folded


@dataclass(frozen=True)
class _Part:
    """Layers that multiply one value with weights of one form. group: where that value can be divided by factors."""

    value: str
    form: WeightFormat
    layers: tuple[Layer, ...]
    group: fold.Group | None = None

    @property
    def channels(self) -> int:
        layer = self.layers[0]
        return layer.shape[layer.sum_axis]


def int4_plan(
    model: Model, graph: ir.Model, layers: Sequence[Layer], data: Iterable[Mapping[str, np.ndarray]], options: Options, scratch: Path
) -> Found:
    """Search what `options.method` (rtn, awq, gptq) and `options.mix` (none, auto) ask for.

    model: what runs on the data, with the same names as `graph`, in which `layers` stand; the graph stays as it is but for types and
    shapes. data: unused by rtn. scratch: a folder for GPTQ's codes, as large as they are, which must stay until they are written.
    Memory: one layer's weight, and up to 1 GB of moments. Raises InputError for weights or activations that are not finite.
    """
    found = Found()
    matrices = [layer for layer in layers if layer.matrix]
    form = WeightFormat("int4", options.block)
    if options.method == "rtn":
        _plain(found, matrices, form, options)
    else:
        work: Callable[[Found, _Part, SecondMoments], None] = partial(_gptq, scratch=scratch) if options.method == "gptq" else _awq
        parts = _parts(graph, matrices, form, grouped=options.method == "awq")
        for some in _batches(parts):
            moments = {part.value: SecondMoments(part.channels) for part in some}
            collect(model, moments, data, max_bytes=2 * _MOST_BYTES, title="measuring inputs")
            for part in _metered(some, options.method):
                moments[part.value].check(part.value)
                work(found, part, moments[part.value])
        _say_missing(found, matrices)
    if options.mix == "auto":
        _mix(found, layers)
    return found


def _plain(found: Found, layers: Sequence[Layer], form: WeightFormat, options: Options) -> None:
    """Rounding to nearest needs no search; a mix must know what it loses."""
    for layer in layers if options.mix == "auto" else ():
        fitted = edit.form_for(layer, form)
        if fitted.block:
            found.errors[layer.name] = relative_error(layer.read(), edit.rounded(layer, fitted).dequantized())


def _gptq(found: Found, part: _Part, moments: SecondMoments, scratch: Path) -> None:
    """Codes now, because no memory holds the moments of all layers; they wait in a file."""
    factor = gptq.factor(moments.products)
    for layer in part.layers:
        weight = layer.read()
        with _named(layer):
            codes = gptq.codes(weight, factor, part.form, edit.float_type(layer).dtype.numpy())
        found.errors[layer.name] = relative_error(weight, codes.dequantized(), moments.products)
        found.makers[layer.name] = _kept(codes, scratch / f"gptq{len(found.makers)}.npz")


def _awq(found: Found, part: _Part, moments: SecondMoments) -> None:
    """Factors now; codes when the folded weight is there, from the little of the moments that clipping needs."""
    factors = np.ones(part.channels)
    if part.group is not None:
        with _named(part.layers[0]):
            factors = awq.search(part.group, moments, part.form)
    if part.group is not None and np.ptp(factors) > 0:
        found.factors[part.group.name] = factors
    importance = awq.importance(moments.products, factors, part.form)
    column = factors.astype(np.float32)[:, None]
    for layer in part.layers:
        make = partial(_clipped, layer, importance, part.form)
        found.makers[layer.name] = make
        weight = layer.read()
        found.errors[layer.name] = relative_error(weight, make(weight * column).dequantized() / column, moments.products)


def _clipped(layer: Layer, importance: np.ndarray, form: WeightFormat, weight: np.ndarray) -> Codes:
    with _named(layer):
        return awq.codes(weight, importance, form, edit.float_type(layer).dtype.numpy())


def _mix(found: Found, layers: Sequence[Layer]) -> None:
    sizes = {layer.name: int(np.prod(layer.shape)) for layer in layers}
    found.forms = mix.choose(found.errors, sizes, mix.heads(layers))
    for name in found.forms:
        found.makers.pop(name, None)
    console.info(
        f"8 bits for {len(found.forms)} of {len(layers)} layers: {', '.join(list(found.forms)[:4])}{' …' * (len(found.forms) > 4)}"
    )


# --- what is measured together ------------------------------------------------------------------------------------------------


def _parts(graph: ir.Model, layers: Sequence[Layer], form: WeightFormat, *, grouped: bool) -> list[_Part]:
    """Layers by what they multiply. What blocks do not fit, what is too wide and what stands in a branch or a loop is left out."""
    by_name = {layer.name: layer for layer in layers if _measurable(layer, graph, form)}
    parts: list[_Part] = []
    for group in fold.groups(graph, layers) if grouped else ():
        if all(layer.name in by_name for layer in group.layers):
            kept = tuple(by_name.pop(layer.name) for layer in group.layers)
            parts.append(_Part(group.name, edit.form_for(kept[0], form), kept, group))
    rest: dict[str, list[Layer]] = {}
    for layer in by_name.values():
        rest.setdefault(str(layer.activation.name), []).append(layer)
    parts += [_Part(value, edit.form_for(same[0], form), tuple(same)) for value, same in rest.items()]
    order = {layer.name: at for at, layer in enumerate(layers)}
    return sorted(parts, key=lambda part: order[part.layers[0].name])


def _measurable(layer: Layer, graph: ir.Model, form: WeightFormat) -> bool:
    return layer.node.graph is graph.graph and edit.form_for(layer, form).block > 0 and layer.shape[layer.sum_axis] <= _WIDEST


def _batches(parts: Sequence[_Part]) -> Iterator[list[_Part]]:
    """Parts whose moments fit into memory together."""
    most = min(_MOST_BYTES, host.memory().available // 4)
    some: list[_Part] = []
    held = 0
    for part in parts:
        needed = 8 * part.channels**2
        if some and held + needed > most:
            yield some
            some, held = [], 0
        some.append(part)
        held += needed
    if some:
        yield some


def _metered(parts: Sequence[_Part], method: str) -> Iterator[_Part]:
    with console.progress(f"searching codes ({method})", sum(len(part.layers) for part in parts), unit="layers") as meter:
        for part in parts:
            yield part
            meter.advance(len(part.layers))


def _say_missing(found: Found, layers: Sequence[Layer]) -> None:
    missing = [layer.name for layer in layers if layer.name not in found.makers]
    if missing:
        console.info(f"rounded to nearest, because their inputs cannot be measured: {_some(missing)}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + " …" * (len(names) > 4)


# --- codes that wait ----------------------------------------------------------------------------------------------------------


def _kept(codes: Codes, file: Path) -> Maker:
    """Write int4 codes, two to a byte, and give what reads them back."""
    flat = codes.codes.view(np.uint8).reshape(-1)
    assert codes.codes.dtype == NUMPY["int4"] and flat.size % 2 == 0  # blocks are even
    np.savez(file, codes=(flat[0::2] & 15) | (flat[1::2] << 4), scale=codes.scale.astype(np.float32))
    shape, dtype, axis, block = codes.codes.shape, codes.scale.dtype, codes.axis, codes.block

    def read(weight: np.ndarray) -> Codes:
        with np.load(file) as kept:
            packed, scale = kept["codes"], kept["scale"]
        halves = np.stack([packed & 15, packed >> 4], axis=-1).reshape(shape)
        return Codes(halves.view(NUMPY["int4"]), scale.astype(dtype), axis, block)

    return read


@contextmanager
def _named(layer: Layer) -> Iterator[None]:
    try:
        yield
    except FloatingPointError as err:
        what = f"weight `{layer.weight.name}` of layer `{layer.name}` holds NaN or infinite values"
        raise InputError(what, "fetch or make the model again; such a weight gives NaN in float, too") from err
