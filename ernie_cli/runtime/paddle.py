"""Paddle inference programs, PIR and legacy, run by Paddle's Executor in a process of its own.

The files are checked against each other before Paddle sees them (pdmodel/files.py); a native crash is an error message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, MissingError, ResourceError, UsageError
from ..model import Model
from ..pdmodel.child import Child, Failed, installed
from ..pdmodel.files import Pair, open_pair, with_axes
from . import Session
from .graphs import GraphSession, Step, check_feeds

FORMATS = ("pdmodel",)
_SESSION = "ernie_cli.pdmodel.session"


def open(model: Model, device: str = "auto", *, batch: int = 1, context: int | None = None, threads: int | None = None) -> Session:
    """Open a decoder that `ernie convert` made. See paddle_decoder.py."""
    from . import paddle_decoder

    session: Session = paddle_decoder.open_decoder(model, device, batch=batch, context=context, threads=threads)
    return session


def open_graph(model: Model, device: str = "auto", *, threads: int | None = None, exact: bool = True) -> GraphSession:
    """Open a program. device: auto and cpu are the CPU, cuda is the first GPU. threads: Paddle's own number where None.

    Raises InputError for files that are damaged or do not belong together, UsageError for another device, MissingError where
    Paddle or the GPU is not there.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"paddle runs on cpu and cuda, not on `{device}`", "--device cpu")
    installed("paddle")
    return PaddleSession(model, open_pair(model), "cuda" if device == "cuda" else "cpu", threads)


class PaddleSession:
    """A GraphSession on a child process."""

    backend = "paddle"

    def __init__(self, model: Model, pair: Pair, device: str, threads: int | None) -> None:
        self.device = device
        self._file = pair.file
        self._fed = tuple(spec.name for spec in pair.program.inputs)
        named = with_axes(pair, model).program
        self.inputs, self.outputs = named.inputs, named.outputs
        legacy = pair.program.kind == "legacy"
        self._child = Child({"FLAGS_enable_pir_api": "0" if legacy else "1"}, threads)
        try:
            fed, n_outputs = self._call("open", prefix=str(pair.file.with_suffix("").absolute()), legacy=legacy, cuda=device == "cuda")
            if set(fed) != set(self._fed) or n_outputs != len(self.outputs):
                raise InputError(f"{pair.file}: Paddle finds the inputs {fed} and {n_outputs} outputs in it", "save it again")
        except BaseException:
            self.close()
            raise

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See GraphSession."""
        values = self._call("run", feeds=self._checked(feeds))
        return {spec.name: value for spec, value in zip(self.outputs, values, strict=True)}

    def steps(self, feeds: Mapping[str, np.ndarray]) -> Iterator[Step]:
        """See GraphSession. Values of inner blocks (while, if) are not shown: only what comes out of them."""
        from ..pdmodel.session import STEPS_AT_ONCE

        checked = self._checked(feeds)
        listed = self._call("list_steps")
        for begin in range(0, len(listed), STEPS_AT_ONCE):
            some = listed[begin : begin + STEPS_AT_ONCE]
            values = self._call("step_values", feeds=checked, begin=begin, end=begin + len(some))
            for (name, operator, inputs), value in zip(some, values, strict=True):
                yield Step(name, operator, inputs, value)

    def close(self) -> None:
        """End the child."""
        self._child.close()

    def _checked(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The arrays by the program's own names."""
        check_feeds(self.inputs, feeds)
        return {fed: feeds[spec.name] for fed, spec in zip(self._fed, self.inputs, strict=True)}

    def _call(self, function: str, **arguments: Any) -> Any:
        try:
            return self._child.call(f"{_SESSION}:{function}", **arguments)
        except Failed as err:
            raise _translated(err, self._file) from err


def words(text: str) -> str:
    """What Paddle means, out of its stacks and summaries: the line that names the error, or the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"\w*Error\b|\(\w+\)", line)]
    return (named or lines or ["no reason given"])[-1][:300]


def _translated(err: Failed, file: Path) -> Exception:
    said = words(err.text)
    if err.kind == "MemoryError" or "ResourceExhausted" in err.text:
        return ResourceError(f"{file}: Paddle ran out of memory: {said}", "smaller inputs, or a machine with more")
    if err.kind in ("ImportError", "ModuleNotFoundError"):
        return MissingError(f"Paddle does not load: {said}", "pip install 'ernie-cli[paddle]'")
    return InputError(f"{file}: Paddle could not run it: {said}", "does it run where it was made? are the inputs what it expects?")
