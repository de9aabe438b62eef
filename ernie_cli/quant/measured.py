"""What a finished quantisation is measured on, and all that is measured: loss of the whole, of each layer, size, speed.

How each figure comes about is report/'s matter; which model and data there are is work.py's.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import nano
from ..errors import InputError
from ..model import Model
from .report import files, outputs, quality, speed

if TYPE_CHECKING:
    from ..evaluate.texts import Text
    from .calibrate.data import Data

#: Texts that a language model is measured on at most where nobody gave --eval-data; and seeded ones where it has no tokenizer.
MOST_TEXTS, SEEDED_TEXTS, SEEDED_TOKENS = 512, 8, 64


@dataclass(frozen=True)
class Judge:
    """What to measure on. data: held back from calibration, or None. eval_data: a file that goes before it."""

    before: Model
    data: Data | None
    eval_data: str | None
    samples: int

    @property
    def language(self) -> bool:
        """Whether the model is a decoder, which is measured on texts."""
        return files.is_decoder(self.before)

    @cached_property
    def texts(self) -> tuple[Sequence[Text], str]:
        """What a decoder is measured on, and what that is for people. Raises InputError for --eval-data that cannot be read."""
        from ..evaluate import texts

        folder = self.before.folder
        if self.eval_data:
            return texts.read(self.eval_data, folder, MOST_TEXTS), self.eval_data
        if self.data is not None and self.data.texts:
            return self.data.texts, f"{len(self.data.texts)} texts held back from calibration"
        if nano.speaks(folder):
            return texts.heldout(folder), "the embedded model's held-out lines"
        ids = np.random.default_rng(0).integers(0, _vocabulary(self.before), (SEEDED_TEXTS, SEEDED_TOKENS))
        return [
            texts.Text(tuple(map(int, row))) for row in ids
        ], "seeded tokens, no text: only KL and top-1 say something; give --eval-data"

    @cached_property
    def feeds(self) -> tuple[list[Mapping[str, np.ndarray]], str]:
        """What a graph is run on, or a decoder's layers, and what that is for people."""
        if self.language:
            some, said = self.texts
            return [{"input_ids": np.array([text.ids], np.int64)} for text in some[: outputs.SAMPLES]], said
        if self.eval_data:
            from .calibrate.data import open_data
            from .options import Options

            found = open_data(self.eval_data, self.before, Options(samples=self.samples))
            return list(found), found.said
        if self.data is not None:
            return list(itertools.islice(self.data, self.samples)), f"{len(self.data)} samples held back from calibration"
        from ..runtime.graphs import open_graph

        session = open_graph(self.before)
        try:
            return [speed.plausible(session)], "seeded numbers, no data: give --eval-data"
        finally:
            session.close()

    def measure(self, after: Model) -> dict[str, Any]:
        """The loss of the whole and the speeds: {"quality", "speed", "measured_on"}."""
        texts, said = self.texts if self.language else (None, self.feeds[1])
        feeds = self.feeds[0]
        return {
            "quality": quality.measure(self.before, after, feeds, texts=texts),
            "speed": speed.measure(self.before, after, feeds=None if self.language else feeds[0]),
            "measured_on": said,
        }

    def measure_layers(
        self, after: Model, layers: Mapping[str, tuple[str, str]], folded: Mapping[str, np.ndarray]
    ) -> dict[str, dict[str, float]]:
        """Each layer's figures, see outputs.layer_errors. layers: name → (value it multiplies, value it gives)."""
        begins, ends = ({name: pair[at] for name, pair in layers.items()} for at in (0, 1))
        return outputs.layer_errors(self.before, after, ends, self.feeds[0], inputs=begins, folded=folded)


def _vocabulary(model: Model) -> int:
    found = model.config().get("vocab_size")
    if not isinstance(found, int) or found < 2:
        raise InputError(f"{model.folder / 'config.json'}: no vocab_size", "give texts that fit the model: --eval-data lines.jsonl")
    return found


def too_large(before: Model) -> bool:
    """Whether memory will not hold the float model, opened."""
    return not files.fit_together([before])
