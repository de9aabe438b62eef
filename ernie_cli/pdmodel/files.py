"""Finds a program and its parameters on disk and makes sure, without Paddle, that they belong together.

Paddle itself reads past the end of damaged files or crashes on them, so everything that can be known from the files is
checked here first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError
from ..model import Model
from ..runtime.graphs import TensorSpec
from . import legacy, params, pir
from .program import Program

_AGAIN = "save it again: paddle.jit.save(layer, 'folder/model', input_spec=[…])"
#: Programs hold no weights: the largest known are a few megabytes.
_MOST_PROGRAM_BYTES = 256 << 20
_WORD = {".json": "PIR program", ".pdmodel": "legacy program"}


@dataclass(frozen=True)
class Pair:
    """A program's file, its parameters' file (None for a program without any), and what the program says."""

    file: Path
    weights: Path | None
    program: Program


def open_pair(model: Model) -> Pair:
    """The program and parameters of `model`, checked against each other.

    Raises InputError (exit 3) where one is missing, damaged, truncated or of another model.
    """
    file = model.main_file()
    if file.suffix == ".pdiparams":
        raise InputError(f"{file}: parameters without a program", "name the .json or .pdmodel file that was saved with them")
    program = read_program(file)
    weights = file.with_suffix(".pdiparams")
    if not program.parameters:
        return Pair(file, weights if weights.is_file() else None, program)
    if not weights.is_file():
        others = sorted(path.name for path in file.parent.glob("*.pdiparams"))
        hint = f"is it {others[0]}? rename it to {weights.name}" if len(others) == 1 else f"put {weights.name} beside {file.name}"
        raise InputError(f"{weights}: no such file, though the program has {len(program.parameters)} parameters", hint)
    if said := params.problem(weights, program.parameters):
        raise InputError(f"{weights}: {said}", f"fetch it again, together with {file.name}; or {_AGAIN}")
    return Pair(file, weights, program)


def with_axes(pair: Pair, model: Model) -> Pair:
    """The same with names for inputs, outputs and dynamic axes: the manifest's where `model` has one, else made-up ones for the axes.

    Paddle's programs do not say which axes go together. The first of each input is taken for the batch, the others that have
    the same number for the same length ("dim1" …): tokens and their mask, an image's height and width.
    """
    program = replace(pair.program, inputs=tuple(replace(spec, shape=_guessed(spec.shape)) for spec in pair.program.inputs))
    return replace(pair, program=with_names(program, model, pair.file))


def with_names(program: Program, model: Model, file: Path) -> Program:
    """The same with inputs and outputs called as the manifest calls them, if there is one. Raises InputError where it lies."""
    inputs = _told(program.inputs, model.manifest.get("inputs"), file)
    return replace(program, inputs=inputs, outputs=_told(program.outputs, model.manifest.get("outputs"), file))


def _guessed(shape: tuple[int | str | None, ...] | None) -> tuple[int | str | None, ...] | None:
    if shape is None:
        return None
    return tuple(("batch" if axis == 0 else f"dim{axis}") if length is None else length for axis, length in enumerate(shape))


def _told(specs: tuple[TensorSpec, ...], known: object, file: Path) -> tuple[TensorSpec, ...]:
    """The program's inputs or outputs under the names (and axes' names) of the manifest, which lists them in the same order."""
    if not known:
        return specs
    if not isinstance(known, list) or len(known) != len(specs) or not all(isinstance(entry, dict) for entry in known):
        raise InputError(f"{file}: ernie.json describes other inputs or outputs than the program has", "convert the model again")
    listed = [TensorSpec.from_dict(entry) for entry in known]
    return tuple(TensorSpec(one.name, spec.dtype, _axes(spec.shape, one.shape)) for spec, one in zip(specs, listed, strict=True))


def _axes(own: tuple[int | str | None, ...] | None, told: tuple[int | str | None, ...] | None) -> tuple[int | str | None, ...] | None:
    """Lengths are the program's; where it has none, the manifest's names of axes."""
    if own is None or told is None or len(own) != len(told):
        return own
    return tuple(there if not isinstance(here, int) and isinstance(there, str) else here for here, there in zip(own, told, strict=True))


def read_program(file: Path) -> Program:
    """The program in a .json or .pdmodel file. Raises InputError where it is damaged, empty, or something else."""
    size = file.stat().st_size
    if size == 0 or size > _MOST_PROGRAM_BYTES:
        what = "empty" if size == 0 else f"{size} bytes are too many for a program without weights"
        raise InputError(f"{file}: {what}", _AGAIN)
    try:
        return pir.read(file) if file.suffix == ".json" else legacy.read(file)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, OverflowError) as err:
        said = f"{type(err).__name__} at {err}" if isinstance(err, (KeyError, IndexError, AttributeError)) else str(err)
        raise InputError(f"{file}: no {_WORD.get(file.suffix, 'Paddle program')}: {said:.200}", _AGAIN) from err
