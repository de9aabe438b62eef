"""Opens calibration data: what people give becomes feeds for a model's inputs, the same ones each time.

Reading is text.py's, images.py's, arrays.py's and noise.py's; which of them is asked is decided here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ... import console, nano
from ...errors import InputError, UsageError
from ...evaluate.texts import Text
from ...model import Model
from ..options import Options
from . import arrays, images, noise, text
from .inputs import Inputs, inputs_of
from .sample import Sample

Feeds = Mapping[str, np.ndarray]
_GIVE = "give --data lines.jsonl, text.txt, arrays.npz, or a folder of pictures or of .npz files"


class Data:
    """Samples that can be gone through as often as wanted. said: what they are, for people."""

    def __init__(self, samples: Sequence[Sample], said: str) -> None:
        self._samples, self.said = list(samples), said

    @property
    def digest(self) -> str:
        """Changes when the content does, or its order."""
        return hashlib.sha256("\n".join(sample.digest for sample in self._samples).encode()).hexdigest()

    @property
    def texts(self) -> list[Text]:
        """What text samples were made from, with their answers; empty for anything else."""
        return [sample.text for sample in self._samples if sample.text is not None]

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[Feeds]:
        """Feeds by input name, made one by one. Raises InputError for a sample that cannot be read."""
        for sample in self._samples:
            yield sample.make()

    def split(self, share: float) -> tuple[Data, Data]:
        """(to calibrate on, held back): about `share` of the samples, spread evenly, are held back; one at least where there are two.

        A single sample serves as both.
        """
        count = len(self)
        if count == 1:
            return self, self
        held = min(max(1, round(share * count)), count - 1)
        back = {int((at + 0.5) * count / held) for at in range(held)}
        return self._part([at for at in range(count) if at not in back]), self._part(sorted(back))

    def _part(self, places: Sequence[int]) -> Data:
        return Data([self._samples[at] for at in places], f"{len(places)} of {self.said}")


def open_data(path: str | None, model: Model, options: Options) -> Data:
    """Calibration data for `model` from a file or folder; None: the embedded lines, or noise where `random_calibration` asks for it.

    At most `options.samples` samples are taken, the same ones for the same seed. Raises UsageError where no data are given or
    they do not fit the model, InputError where they are broken, MissingError where reading them needs an extra.
    """
    inputs = inputs_of(model)
    samples, said = _found(path, model, inputs, options)
    if len(samples) == 1:
        console.warn("one calibration sample: ranges measured on it may fit nothing else")
    return Data(samples, said)


def _found(path: str | None, model: Model, inputs: Inputs, options: Options) -> tuple[list[Sample], str]:
    if path is None:
        return _without(model, inputs, options)
    file = Path(path)
    if file.is_dir():
        return _folder(file, model, inputs, options)
    if not file.exists():
        raise UsageError(f"no such file or folder: {file}", _GIVE)
    if not file.is_file():
        raise InputError(f"{file}: neither a file nor a folder", _GIVE)
    suffix = file.suffix.lower()
    if suffix in text.SUFFIXES:
        return text.read(file, model, inputs, options.samples, options.seed)
    if suffix == ".npz":
        return arrays.read([file], inputs, options.samples, options.seed)
    if suffix in images.SUFFIXES:
        return images.read([file], model, inputs, options)
    raise UsageError(f"{file}: no calibration data that ernie knows ({suffix or 'no suffix'})", _GIVE)


def _folder(folder: Path, model: Model, inputs: Inputs, options: Options) -> tuple[list[Sample], str]:
    packed = sorted(folder.glob("*.npz"))
    pictures = [] if packed else images.find(folder)
    if packed:
        return arrays.read(packed, inputs, options.samples, options.seed)
    if pictures:
        return images.read(pictures, model, inputs, options)
    raise InputError(f"{folder}: no pictures (PNG, JPEG) and no .npz files in it", _GIVE)


def _without(model: Model, inputs: Inputs, options: Options) -> tuple[list[Sample], str]:
    if options.random_calibration:
        return noise.read(model, inputs, options.samples, options.seed)
    if inputs.decoder and nano.speaks(model.folder):
        return text.embedded(nano.calibration(), model, inputs, options.samples, options.seed)
    raise UsageError("no calibration data: the ranges of activations are measured on it", f"{_GIVE} (inputs: {inputs.names})")
