"""How long each axis of an engine's inputs may be: what `--shape` says, or what a decoder's context and batch ask for.

Reads a graph's header. What is typed is shape_option.py's, what it weighs in memory predict.py's, telling the builder configure.py's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..checkpoint.config import Config, parse_config, read_config
from ..checkpoint.quote import short, some
from ..errors import UnsupportedError, UsageError
from ..model import Model
from . import narrow_weights
from .options import CONTEXT, Options
from .shape_option import Range, suggestions, told_by

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from ..runtime.graphs import TensorSpec

#: Most tokens of a prompt in one step, where nobody says: longer ones go in pieces, as runtime/onnxruntime.py does it.
CHUNK = 512


@dataclass(frozen=True)
class Profile:
    """shapes: input → its least, best and largest shape. Inputs whose every axis is fixed are left out."""

    name: str
    shapes: Mapping[str, Range] = field(default_factory=dict)


@dataclass(frozen=True)
class Shapes:
    """fixed: axis name → its length, in all inputs and outputs. profiles: what the other axes may be; none where all are fixed."""

    fixed: Mapping[str, int]
    profiles: tuple[Profile, ...]


def shapes(model: Model, options: Options, *, narrow: bool | None = None) -> Shapes:
    """Of an ONNX model. narrow: whether it has weights as in narrow_weights.py, or will have; None: as it has now.

    Raises UsageError for an input with free axes that nobody gave a shape for, with the option to type, and for shapes that do
    not fit; UnsupportedError for a decoder whose cache grows and for inputs without a number of axes; what loading raises.
    """
    from ..onnxgraph.load import load

    graph = load(model, known_operators=False).graph
    specs = _inputs(graph, model.path)
    names = [spec.name for spec in specs]
    if "input_ids" in names and "past.0.key" in names:
        source = model.told("made_from").get("path", "CHECKPOINT")
        hint = f"convert again with a static one: ernie convert {source} --to onnx --dtype fp16 --kv-cache static"
        raise UnsupportedError(f"{model.path}: its KV cache grows, which TensorRT does not take", hint)
    if "input_ids" in names and "positions" in names and "cache.0.key" in names:
        return _decoder(specs, _max_positions(model), options, narrow_weights.among(graph) if narrow is None else narrow)
    return _any(specs, options)


def best(model: Model, options: Options) -> tuple[str, ...]:
    """The likeliest shape of every input of an ONNX model, as `ernie convert --input` takes it; () where no --shape is given."""
    if not options.shapes:
        return ()
    from ..onnxgraph.load import load

    found = shapes(model, options)
    told = {name: shape[1] for profile in found.profiles for name, shape in profile.shapes.items()}
    typed = []
    for spec in _inputs(load(model, known_operators=False).graph, model.path):
        lengths = told.get(spec.name) or tuple(_length(axis, found.fixed) for axis in spec.shape or ())
        typed.append(f"{spec.name}:{spec.dtype}:{'x'.join(map(str, lengths))}")
    return tuple(typed)


def _length(axis: int | str | None, fixed: Mapping[str, int]) -> int:
    return axis if isinstance(axis, int) else fixed[str(axis)]


def decoder_shapes(source: Model | Config, options: Options, *, narrow: bool = False) -> Shapes:
    """Of the decoder that a checkpoint becomes. narrow: as for `shapes`.

    Raises UsageError for options that do not fit it, and what reading its config raises.
    """
    config = source if isinstance(source, Config) else read_config(source.folder)
    return _decoder(list(_decoder_specs(config)), config.max_positions, options, narrow)


def _inputs(graph: ir.Graph, path: Path) -> list[TensorSpec]:
    from ..runtime.graphs import TensorSpec

    found = []
    for value in graph.inputs:
        if value.name in graph.initializers:  # up to IR version 3 weights are listed, too
            continue
        if value.shape is None or value.dtype is None:
            what = f"{path}: nobody says how many axes its input `{short(value.name)}` has"
            raise UnsupportedError(what, "export the model again with shapes of its inputs")
        lengths = tuple(axis if isinstance(axis, int) else axis.value for axis in value.shape)
        found.append(TensorSpec(str(value.name), value.dtype.name.lower(), lengths))
    return found


# --- decoders ---------------------------------------------------------------------------------------------------------


def _decoder_specs(config: Config) -> Iterable[TensorSpec]:
    """The inputs of graph/cache.py's static kind."""
    from ..runtime.graphs import TensorSpec

    yield TensorSpec("input_ids", "int64", ("batch", "sequence"))
    yield TensorSpec("positions", "int64", ("batch",))
    for layer in range(config.num_layers):
        for kind in ("key", "value"):
            yield TensorSpec(f"cache.{layer}.{kind}", "float16", ("batch", config.num_kv_heads, "slots", config.head_dim))


def _max_positions(model: Model) -> int | None:
    config = model.config()
    return parse_config(config, str(model.folder / "config.json")).max_positions if config else None


def _decoder(specs: Sequence[TensorSpec], most: int | None, options: Options, narrow: bool) -> Shapes:
    """A profile for prompts and one for single tokens. narrow: see narrow_weights.py."""
    if options.shapes:
        hint = "--context 1024 and --batch 4 say how long and how many: leave --shape out"
        raise UsageError("--shape is not for ERNIE decoders: their shapes follow from context and batch", hint)
    given = {name: length for spec in specs for name, length in zip(("batch", "heads", "slots", "width"), spec.shape or (), strict=False)}
    if isinstance(given["slots"], int) and options.context not in (None, given["slots"]):
        raise UsageError(f"--context {options.context}: the graph has a cache of {given['slots']} slots", "leave --context out")
    context = given["slots"] if isinstance(given["slots"], int) else _context(most, options)
    chunk = min(context, CHUNK) if options.chunk is None else options.chunk
    if not 1 <= chunk <= context:
        raise UsageError(f"prompts cannot go in pieces of {chunk} tokens: the cache holds {context}", "choose a smaller piece")
    if options.batch < 1:
        raise UsageError(f"--batch {options.batch} makes no sense", "--batch 1")
    rows = max(options.batch, narrow_weights.LEAST_ROWS if narrow else 1)
    fixed = {"slots": context, **({"batch": 1} if rows == 1 else {})}
    ranges = {"slots": (context,) * 3, "batch": (1, options.batch, rows)}
    prefill, decode = (_profile(name, specs, {**ranges, "sequence": (1, n, n)}) for name, n in (("prefill", chunk), ("decode", 1)))
    return Shapes(fixed, (prefill, decode))


def _context(most: int | None, options: Options) -> int:
    if options.context is None:
        return min(CONTEXT, most or CONTEXT)
    if options.context < 1:
        raise UsageError(f"--context {options.context} makes no sense", f"--context {min(CONTEXT, most or CONTEXT)}")
    if most is not None and options.context > most:
        raise UsageError(f"--context {options.context} is more than the model's {most}", f"--context {most} is the most")
    return options.context


# --- any other model --------------------------------------------------------------------------------------------------


def _any(specs: Sequence[TensorSpec], options: Options) -> Shapes:
    said = [
        (options.context is not None, "--context"),
        (options.batch != 1, "--batch"),
        (options.chunk is not None, "the size of a prompt's pieces"),
    ]
    for given, name in said:
        if given:
            raise UsageError(f"{name} is for ERNIE decoders", " ".join(suggestions(specs)) or "leave it out: every axis is fixed")
    told = told_by(options.shapes, specs)
    ranges = _axes(specs, told)
    free = [spec for spec in specs if any(not isinstance(axis, int) for axis in spec.shape or ())]
    missing = [
        spec for spec in free if spec.name not in told and not all(isinstance(axis, int) or axis in ranges for axis in spec.shape or ())
    ]
    if missing:
        what = f"nobody says how long the axes of {some([spec.name for spec in missing])} may be"
        raise UsageError(what, f"add {' '.join(suggestions(missing))} (least, best, most), with your lengths")
    fixed = {name: low for name, (low, best, high) in ranges.items() if low == best == high}
    profile = {spec.name: told.get(spec.name) or _shape(spec, ranges) for spec in free}
    profile = {name: shape for name, shape in profile.items() if not _all_fixed(specs, name, fixed)}
    return Shapes(fixed, (Profile("default", profile),) if profile else ())


def _all_fixed(specs: Sequence[TensorSpec], name: str, fixed: Mapping[str, int]) -> bool:
    shape = next(spec.shape for spec in specs if spec.name == name)
    return all(isinstance(axis, int) or axis in fixed for axis in shape or ())


def _axes(specs: Sequence[TensorSpec], told: Mapping[str, Range]) -> dict[str, tuple[int, int, int]]:
    """The range of each named axis. Raises UsageError where two inputs give one axis two ranges: axes of one name are one."""
    found: dict[str, tuple[int, int, int]] = {}
    owner: dict[str, str] = {}
    for spec in specs:
        for at, axis in enumerate(spec.shape or () if spec.name in told else ()):
            if isinstance(axis, str):
                low, best, high = (shape[at] for shape in told[spec.name])
                if found.setdefault(axis, (low, best, high)) != (low, best, high):
                    what = f"--shape gives the axis `{short(axis)}` other lengths in `{short(spec.name)}` than in `{short(owner[axis])}`"
                    raise UsageError(what, "axes of one name are one: give them the same lengths")
                owner.setdefault(axis, spec.name)
    return found


def _profile(name: str, specs: Sequence[TensorSpec], ranges: Mapping[str, tuple[int, int, int]]) -> Profile:
    """Inputs that can still vary, given that axes with one length are fixed by name where Shapes.fixed has them."""
    shaped = {spec.name: _shape(spec, ranges) for spec in specs}
    one = {"slots", *(["batch"] if ranges["batch"][2] == 1 else [])}
    free = {spec.name for spec in specs if any(isinstance(axis, str) and axis not in one for axis in spec.shape or ())}
    return Profile(name, {name: shape for name, shape in shaped.items() if name in free})


def _shape(spec: TensorSpec, ranges: Mapping[str, tuple[int, int, int]]) -> Range:
    low, best, high = (tuple(axis if isinstance(axis, int) else ranges[str(axis)][turn] for axis in spec.shape or ()) for turn in range(3))
    return low, best, high
