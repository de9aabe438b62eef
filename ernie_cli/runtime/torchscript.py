"""TorchScript on torch: graph models of any kind. Decoders with a KV cache live in torchscript_decoder.py.

Archives are looked at before torch sees them, see torchscript/archive.py; pickles are never loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ErnieError, ResourceError, UsageError
from ..model import Model
from ..need import need
from ..torchscript.arrays import flatten, to_array, to_tensor
from ..torchscript.load import load, said, translated, where
from ..torchscript.signature import signature
from ..torchscript.sizes import named, settle
from ..torchscript.steps import steps
from . import Session
from .graphs import GraphSession, Step, TensorSpec, check_feeds

FORMATS = ("torchscript",)


def open(model: Model, device: str = "auto", *, batch: int = 1, context: int | None = None, threads: int | None = None) -> Session:
    """Open a decoder that `ernie convert` made. See torchscript_decoder.py."""
    from . import torchscript_decoder

    session: Session = torchscript_decoder.open_decoder(model, device, batch=batch, context=context, threads=threads)
    return session


def open_graph(model: Model, device: str = "auto", *, threads: int | None = None, exact: bool = True) -> GraphSession:
    """Open a TorchScript file. device: auto, cpu, cuda or cuda:N. threads: of the whole process, None leaves torch's choice.

    Raises InputError for files that are damaged or no TorchScript, UnsupportedError for operators and arguments nobody knows,
    MissingError without torch or the device.
    """
    place = where(device)
    if threads:
        need("torch").set_num_threads(threads)
    return TorchScriptSession(model, place)


class TorchScriptSession:
    """A GraphSession on torch. Inputs whose shape the file does not tell have the shape None, or one guessed from the graph.

    optional: inputs that `run` and `steps` take, too, and do without where they are not fed.
    """

    backend = "torchscript"

    def __init__(self, model: Model, device: str) -> None:
        self.device = device
        self._file = model.main_file()
        self._module, found = load(self._file, device)
        self._signature = signature(model, self._module, found, strict=False)
        self._told = bool(model.manifest.get("inputs"))
        self.rows = self._signature.rows  # input → rows of the table its ids go to: what parity draws them below
        self.inputs: tuple[TensorSpec, ...] = self._signature.inputs
        self.optional: tuple[TensorSpec, ...] = _unknown(self._signature.optional())
        self.outputs: tuple[TensorSpec, ...] = self._signature.outputs or self._by_running()

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See GraphSession. Raises UsageError for inputs with which the module does not run, ResourceError out of memory."""
        results = self._guarded(lambda: self._results(*self._checked(feeds)), feeds)
        self.outputs = self.outputs or _unknown(results)
        return {name: to_array(tensor) for name, tensor in results.items()}

    def steps(self, feeds: Mapping[str, np.ndarray]) -> Iterator[Step]:
        """See GraphSession. Weights go by their attribute path, values by their name in the graph."""
        arguments = self._arguments(*self._checked(feeds))
        names = [argument.name if argument.input is None else self.inputs[argument.input].name for argument in self._signature.arguments]
        outputs = [spec.name for spec in self.outputs]
        yield from self._guarded(lambda: list(steps(self._module, arguments, names, outputs)), feeds)

    def close(self) -> None:
        """Give back memory."""
        del self._module

    def _by_running(self) -> tuple[TensorSpec, ...]:
        """The outputs where only a run tells how many there are; () where no plausible input makes it run: the first `run` tells."""
        told, specs = self._signature, named(self.inputs)
        try:
            return _unknown(settle(self._results, specs, told.sizes, told.rows, str(self._file))[1])
        except UsageError:
            return ()

    def _checked(self, feeds: Mapping[str, np.ndarray]) -> tuple[list[np.ndarray], Mapping[str, np.ndarray]]:
        """The inputs in order, and optional ones. What the file itself does not promise, torch may judge: a trace's sizes and a
        guess are no limits."""
        names = {spec.name for spec in self.optional}
        extra = {name: array for name, array in feeds.items() if name in names}
        required = {name: array for name, array in feeds.items() if name not in names}
        check_feeds(self.inputs if self._told else _unknown(spec.name for spec in self.inputs), required)
        return [required[spec.name] for spec in self.inputs], extra

    def _arguments(self, arrays: Sequence[np.ndarray], extra: Mapping[str, np.ndarray] | None = None) -> list[Any]:
        more = {name: to_tensor(array, self.device) for name, array in (extra or {}).items()}
        return self._signature.bind([to_tensor(array, self.device) for array in arrays], more)

    def _results(self, arrays: Sequence[np.ndarray], extra: Mapping[str, np.ndarray] | None = None) -> dict[str, Any]:
        with need("torch").no_grad():
            found = list(flatten(self._module(*self._arguments(arrays, extra))))
        known = [spec.name for spec in self._signature.outputs]
        return {known[place] if len(known) == len(found) else name: tensor for place, (name, tensor) in enumerate(found)}

    def _guarded(self, work: Any, feeds: Mapping[str, np.ndarray]) -> Any:
        try:
            return work()
        except ErnieError:
            raise
        except Exception as err:  # torch raises RuntimeError, IndexError, TypeError … for shapes that do not fit
            if isinstance(translated(self._file, err), ResourceError):
                raise translated(self._file, err) from err
            fed = ", ".join(f"{name} {array.dtype.name} {list(array.shape)}" for name, array in feeds.items())
            raise UsageError(f"{self._file}: does not run with {fed}: {said(err)}", "`ernie inspect` shows the inputs") from err


def _unknown(names: Iterable[str]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, "", None) for name in names)
