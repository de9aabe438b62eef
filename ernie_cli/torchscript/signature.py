"""What a ScriptModule's forward takes and gives: names, dtypes, shapes, and where each was known from. Runs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import UnsupportedError, UsageError
from ..model import Model
from ..runtime.graphs import TensorSpec
from ..runtime.specs import as_typed, merge
from .contents import Contents
from .guess import Guess, guess

#: The first axis of traced inputs: traces are made at one size, and batches are what nearly every model leaves open.
BATCH = "batch"


@dataclass(frozen=True)
class Argument:
    """One argument of forward. input: its place in `Signature.inputs`, None where its default is used; optional: of those, which
    may be a tensor all the same."""

    name: str
    input: int | None
    default: Any = None
    optional: bool = False


@dataclass(frozen=True)
class Signature:
    """inputs: what to feed. outputs: () where they are known only by running. sizes: lengths of symbols that are known to run.
    assumed: symbols nobody told, of which it must be tried whether their axes are free. notes: what was guessed, and why.
    rows: input → how many rows the embedding has that its ids go to."""

    arguments: tuple[Argument, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    sizes: Mapping[str, int]
    assumed: tuple[str, ...]
    notes: tuple[str, ...]
    rows: Mapping[str, int]

    def bind(self, tensors: Sequence[Any], extra: Mapping[str, Any] | None = None) -> list[Any]:
        """The arguments of a call, from the inputs' tensors in order. extra: tensors for optional arguments, by name."""
        more = extra or {}
        return [
            more.get(argument.name, argument.default) if argument.input is None else tensors[argument.input] for argument in self.arguments
        ]

    def optional(self) -> tuple[str, ...]:
        """Arguments that may be fed, and are left out where they are not."""
        return tuple(argument.name for argument in self.arguments if argument.optional)


def signature(model: Model, module: Any, found: Contents, given: Sequence[str] = (), *, strict: bool = True) -> Signature:
    """Everything about forward that the manifest, the trace, the command line or the graph tell, in falling order of trust:
    what is `given`, the manifest, the trace, guesses.

    Raises UnsupportedError for arguments that are no tensors; with `strict` UsageError where an input's shape is not known.
    """
    file = model.main_file()
    written = _of_manifest(model, "inputs")
    arguments, specs = _arguments(file, module, found, given, written)
    guesses = _guesses(module, arguments, specs)
    sizes: dict[str, int] = {}
    notes: list[str] = []
    if not written:
        specs, sizes = _with_open_batch(specs)
    specs = merge(specs, given)
    told = {axis for spec in specs if written or spec.name in _names(given) for axis in spec.shape or ()}
    if not written:
        specs, notes = _with_guesses(specs, guesses)
        if strict:
            _refuse_unknown(file, specs, guesses)
    open_axes = {axis for spec in specs for axis in spec.shape or () if isinstance(axis, str)}
    return Signature(
        tuple(arguments),
        specs,
        _of_manifest(model, "outputs") or tuple(TensorSpec(name, "", None) for name in _output_names(module)),
        {name: size for name, size in sizes.items() if name in open_axes},
        tuple(sorted(open_axes - told)),
        tuple(notes),
        {spec.name: guessed.rows for spec, guessed in zip(specs, guesses, strict=True) if guessed.rows},
    )


def _guesses(module: Any, arguments: Sequence[Argument], specs: Sequence[TensorSpec]) -> list[Guess]:
    """What the graph tells of each input of which something is to be found out: its shape, or which ids it takes."""
    taken = [argument.name for argument in arguments if argument.input is not None]
    unclear = [name for name, spec in zip(taken, specs, strict=True) if spec.shape is None or "int" in spec.dtype]
    found = guess(module, unclear) if unclear else {}
    return [found.get(name, Guess()) for name in taken]


def _with_guesses(specs: Sequence[TensorSpec], guesses: Sequence[Guess]) -> tuple[tuple[TensorSpec, ...], list[str]]:
    """The specs, those of unknown shape as guessed; and what was guessed, why."""
    filled = [
        replace(guessed.spec, name=spec.name) if spec.shape is None and guessed.spec else spec
        for spec, guessed in zip(specs, guesses, strict=True)
    ]
    new = [(spec, guessed.why) for old, spec, guessed in zip(specs, filled, guesses, strict=True) if spec is not old]
    return tuple(filled), [f"{as_typed(spec).removeprefix('--input ')}, as {why}" for spec, why in new]


def _names(given: Sequence[str]) -> set[str]:
    return {text.rsplit(":", 2)[0] for text in given}


def _of_manifest(model: Model, part: str) -> tuple[TensorSpec, ...]:
    entries = model.manifest.get(part)
    return tuple(TensorSpec.from_dict(entry) for entry in entries) if isinstance(entries, list) else ()


def _arguments(
    file: Path, module: Any, found: Contents, given: Sequence[str], written: Sequence[TensorSpec]
) -> tuple[list[Argument], tuple[TensorSpec, ...]]:
    """forward's arguments, and the inputs among them as manifest or trace tell them."""
    schema = list(module.forward.schema.arguments)[1:]
    names = {*_names(given), *(spec.name for spec in written)}
    traced = found.traced if found.traced is not None and len(found.traced) == len(schema) else (None,) * len(schema)
    arguments: list[Argument] = []
    specs: list[TensorSpec] = []
    optional = [arg for arg in schema if arg.type.kind() == "OptionalType" and str(arg.type) == "Optional[Tensor]"]
    required = [arg for arg in schema if arg.type.kind() == "TensorType"]
    all_written = len(written) == len(required) + len(optional)
    for arg, seen in zip(schema, traced, strict=True):
        if arg in required or (arg in optional and (arg.name in names or seen is not None or (written and all_written))):
            arguments.append(Argument(arg.name, len(specs)))
            specs.append(replace(seen, name=arg.name) if seen else TensorSpec(arg.name, "", None))
        elif arg in optional or arg.has_default_value():
            arguments.append(Argument(arg.name, None, arg.default_value, arg in optional))
        else:
            what = f"{file}: the argument `{arg.name}` of forward is {arg.type}: only tensors can be fed"
            raise UnsupportedError(what, "script a module whose forward takes tensors, and fixes the rest")
    if len(written) == len(specs):
        return arguments, tuple(written)
    return arguments, tuple(specs)


def _with_open_batch(specs: Sequence[TensorSpec]) -> tuple[tuple[TensorSpec, ...], dict[str, int]]:
    """Traced inputs with their first axis open, where they share its length."""
    shapes = [spec.shape for spec in specs if spec.shape]
    first = shapes[0][0] if shapes else None
    if not isinstance(first, int) or first == 0:
        return tuple(specs), {}
    opened = [replace(spec, shape=(BATCH, *spec.shape[1:])) if spec.shape and spec.shape[0] == first else spec for spec in specs]
    return tuple(opened), {BATCH: first}


def _refuse_unknown(file: Path, specs: Sequence[TensorSpec], guesses: Sequence[Guess]) -> None:
    """Raise UsageError with what to type where an input's shape is unknown."""
    missing = [spec for spec in specs if spec.shape is None]
    if not missing:
        return
    typed = [as_typed(replace(spec, dtype=guesses[place].dtype or "")) for place, spec in enumerate(specs) if spec in missing]
    names = ", ".join(f"`{spec.name}`" for spec in missing)
    raise UsageError(f"{file}: the file does not tell dtype and shape of {names}", f"say it, with the right shape: {' '.join(typed)}")


def _output_names(module: Any) -> list[str]:
    """`output`, or `output.0`, `output.key` …; [] where the number of outputs is known only by running."""
    try:
        return list(_named(next(iter(module.inlined_graph.outputs())), "output"))
    except _OnlyByRunning:
        return []


class _OnlyByRunning(Exception):
    pass


def _named(value: Any, name: str) -> list[str]:
    node, kind = value.node(), value.type().kind()
    inputs = list(node.inputs())
    if node.kind() in ("prim::TupleConstruct", "prim::ListConstruct") and kind in ("TupleType", "ListType"):
        fields = _fields(value.type()) or range(len(inputs))
        return [inner for key, part in zip(fields, inputs, strict=True) for inner in _named(part, f"{name}.{key}")]
    if node.kind() == "prim::DictConstruct":
        return [inner for key, part in zip(inputs[::2], inputs[1::2], strict=True) for inner in _named(part, f"{name}.{key.toIValue()}")]
    return _typed(value.type(), name)


def _typed(type_: Any, name: str) -> list[str]:
    if type_.kind() in ("TensorType", "IntType", "FloatType", "BoolType"):
        return [name]
    if type_.kind() == "NoneType":
        return []
    if type_.kind() == "TupleType":
        parts = type_.elements()
        fields = _fields(type_) or range(len(parts))
        return [inner for key, part in zip(fields, parts, strict=True) for inner in _typed(part, f"{name}.{key}")]
    raise _OnlyByRunning


def _fields(type_: Any) -> list[str]:
    """The names of a NamedTuple's fields, [] of a plain tuple."""
    schema = type_.schema() if hasattr(type_, "schema") and type_.kind() == "TupleType" else None
    return [argument.name for argument in schema.arguments] if schema else []
