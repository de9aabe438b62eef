"""Pictures → a model's input: decoded, cut to its size, scaled, normalised, laid out. Decoded when asked for, never all at once."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ... import console
from ...errors import InputError, UsageError
from ...model import Model, read_json
from ...need import need
from ...runtime.graphs import TensorSpec
from ..options import Options
from .inputs import Inputs, shown
from .sample import Sample, chosen

SUFFIXES = (".png", ".jpg", ".jpeg")
_CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}
#: Where the model leaves width or height open: the picture's own, in such steps and at most so large.
_STEP, _MOST = 32, 640
#: A folder with more pictures is no calibration data that anybody collected by hand; the first ones will do.
_MOST_FILES = 1 << 20


def find(folder: Path) -> list[Path]:
    """The pictures below a folder, sorted by name."""
    return sorted(_walk(folder))


def _walk(folder: Path) -> Iterator[Path]:
    count = 0
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield Path(place, name)
                count += 1
                if count == _MOST_FILES:
                    return


def read(files: Sequence[Path], model: Model, inputs: Inputs, options: Options) -> tuple[list[Sample], str]:
    """(samples, what they are in words). Raises UsageError where the model takes no pictures, MissingError without pillow."""
    need("PIL.Image")
    spec, extra = _picture_input(inputs)
    form = _form(spec, model, options)
    taken = chosen(files, options.samples, options.seed)
    rows = spec.shape[0] if spec.shape and isinstance(spec.shape[0], int) else 1
    groups = [taken[at : at + rows] for at in range(0, len(taken) - rows + 1, rows)]
    if not groups:
        raise UsageError(f"{len(taken)} pictures, and the model wants {rows} at a time", "give more pictures")
    made = [_sample(group, spec, form, extra) for group in groups]
    return made, f"{len(groups) * rows} of {len(files)} pictures in {_top(files)} ({form.said})"


@dataclass(frozen=True)
class _Form:
    """How pixels become numbers. size: (height, width), 0 where the picture's own. mean, std: of numbers from 0 to 1; () for none."""

    channels: int
    size: tuple[int, int]
    nchw: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtype: str
    said: str


def _picture_input(inputs: Inputs) -> tuple[TensorSpec, dict[str, TensorSpec]]:
    """The input for pictures, and those that detectors ask for beside it."""
    found = [spec for spec in inputs.specs if spec.shape is not None and len(spec.shape) == 4]
    others = {spec.name: spec for spec in inputs.specs if spec not in found}
    if len(found) != 1 or not set(others) <= {"im_shape", "scale_factor"}:
        raise UsageError(f"pictures do not make the model's inputs: {inputs.names}", "give arrays in an .npz file, by name")
    return found[0], others


def _form(spec: TensorSpec, model: Model, options: Options) -> _Form:
    shape = spec.shape or ()
    nchw = options.layout == "nchw" or (options.layout == "auto" and not (shape[3] in _CHANNELS and shape[1] not in _CHANNELS))
    channels, height, width = (shape[1], shape[2], shape[3]) if nchw else (shape[3], shape[1], shape[2])
    channels = channels if isinstance(channels, int) else 3
    if channels not in _CHANNELS:
        hint = "--layout nhwc" if nchw else "--layout nchw"
        raise UsageError(f"`{spec.name}` {shown(spec)} is no picture: {channels} channels", f"give arrays in an .npz file, or {hint}")
    mean, std, source = _normalisation(model, options, spec)
    for option, numbers in (("--mean", mean), ("--std", std)):
        if len(numbers) not in (0, 1, channels):
            raise UsageError(f"{option}: {len(numbers)} numbers for {channels} channels", f"{option} with {channels} numbers, or one")
    if any(number <= 0 for number in std):
        raise UsageError(f"--std {', '.join(map(str, std))}: not above 0", "--std 0.229,0.224,0.225")
    size = (height if isinstance(height, int) else 0, width if isinstance(width, int) else 0)
    where = f"{size[0] or '?'}×{size[1] or '?'}, {'nchw' if nchw else 'nhwc'}, {source}"
    return _Form(channels, size, nchw, mean, std, spec.dtype, where)


def _normalisation(model: Model, options: Options, spec: TensorSpec) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    """(mean, std, where they come from)."""
    if spec.dtype.startswith(("uint8", "int")):
        return (), (), "0 to 255"
    if options.mean or options.std:
        return options.mean, options.std, "--mean and --std"
    file = model.folder / "preprocessor_config.json"  # as transformers writes it beside a vision model
    said = read_json(file) if file.is_file() else {}
    mean, std = said.get("image_mean"), said.get("image_std")
    if isinstance(mean, list) and isinstance(std, list) and _numbers(mean) and _numbers(std):
        return tuple(map(float, mean)), tuple(map(float, std)), file.name
    console.warn("pictures are scaled to 0…1 and not normalised: give --mean and --std if the model was trained with them")
    return (), (), "0 to 1"


def _numbers(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(number, (int, float)) for number in values)


def _sample(files: Sequence[Path], spec: TensorSpec, form: _Form, extra: Mapping[str, TensorSpec]) -> Sample:
    digest = hashlib.sha256(repr(form).encode())
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())

    def make() -> dict[str, np.ndarray]:
        batch = np.stack([decode(file, form) for file in files]).astype(form.dtype)
        size = batch.shape[2:] if form.nchw else batch.shape[1:3]
        beside = {"im_shape": np.tile(np.array(size), (len(files), 1)), "scale_factor": np.ones((len(files), 2))}
        return {spec.name: batch, **{name: beside[name].astype(other.dtype) for name, other in extra.items()}}

    return Sample(digest.hexdigest(), make)


def decode(file: Path, form: _Form) -> np.ndarray:
    """One picture as numbers, [C, H, W] or [H, W, C]. Raises InputError where it does not decode."""
    Image, ImageOps = need("PIL.Image"), need("PIL.ImageOps")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=("PNG", "JPEG")) as opened:
                if opened.mode.startswith(("I", "F")):  # pillow would cut them off at 255
                    raise ValueError("more than 8 bits per channel")
                upright = ImageOps.exif_transpose(opened).convert(_CHANNELS[form.channels])
                fitted = ImageOps.fit(upright, _size(upright.size, form), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError, Image.DecompressionBombWarning) as err:
        raise InputError(f"{file}: not a picture that can be read: {err}", "take it out of the folder, or save it as PNG or JPEG") from err
    pixels = np.asarray(fitted, np.float32).reshape(fitted.size[1], fitted.size[0], form.channels)
    if not form.dtype.startswith(("uint8", "int")):
        pixels = pixels / np.float32(255)
        if form.mean or form.std:
            pixels = (pixels - np.array(form.mean or 0, np.float32)) / np.array(form.std or 1, np.float32)
    return np.moveaxis(pixels, 2, 0) if form.nchw else pixels


def _size(own: tuple[int, int], form: _Form) -> tuple[int, int]:
    """(width, height) to cut to."""
    shrink = min(1.0, _MOST / max(own))
    free = [max(_STEP, round(length * shrink / _STEP) * _STEP) for length in own]
    return form.size[1] or free[0], form.size[0] or free[1]


def _top(files: Sequence[Path]) -> str:
    return os.path.commonpath([str(file.parent) for file in files])
