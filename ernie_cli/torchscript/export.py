"""TorchScript → ONNX by torch's own exporter: what it must be told, what it says, and which axes stay open. Parity is the route's."""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import console
from ..coverage import OpUse, refuse
from ..errors import ErnieError, UnsupportedError
from ..model import Model, write_manifest
from ..need import need
from ..route import Options
from ..runtime.graphs import TensorSpec
from ..runtime.specs import as_typed
from .arrays import flatten, to_array, to_tensor
from .faults import corrected
from .finish import finish
from .free import Free, free_axes, output_axes, rigid
from .light import without_weights
from .load import load, said
from .opsets import opset, uses
from .signature import Signature, signature
from .sizes import examples, named, settle, symbols
from .wrap import needs_wrapping, wrapped

FILE = "model.onnx"
#: Warnings of torch's exporter that say nothing of the model, or what is tried here anyway (LSTM at other batch sizes).
_NO_NEWS = ("legacy TorchScript-based", "no signature found", "with a variable length with LSTM")
_PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64"}


def convert(model: Model, out: Path, options: Options) -> Model:
    """Write `model` as ONNX into the folder `out`.

    Raises what `load` and `signature` raise, UsageError for an opset or inputs that cannot be, UnsupportedError naming every
    operator that torch's exporter has no mapping for.
    """
    number, why = opset(options.opset)
    console.detail(f"using opset {number}: {why}")
    axes, outputs, facts = _written(model, out, options, number)  # the module is gone when the weights are read again
    return write_manifest(
        out,
        format="onnx",
        main=FILE,
        files=finish(out, FILE, axes.specs, options.simplify),
        opset=number,
        inputs=[spec.as_dict() for spec in axes.specs],
        outputs=[spec.as_dict() for spec in outputs],
        **facts,
    )


def _written(model: Model, out: Path, options: Options, number: int) -> tuple[Free, list[TensorSpec], dict[str, Any]]:
    """Export into `out`. Returns the inputs, the outputs, and what else the manifest is to say."""
    file = model.main_file()
    module, found = load(file)
    told = signature(model, module, found, options.input_specs)
    for note in told.notes:
        console.info(f"guessed: {note}")
    start = time.perf_counter()
    axes, result = _axes(module, told, file)
    tried = time.perf_counter() - start
    subject = wrapped(module, told, result) if needs_wrapping(told, result) else module
    unshaped = _outputs(told, result)

    def write(axes: Free) -> list[TensorSpec]:
        shapes = output_axes([spec.name for spec in unshaped], axes.shapes, axes)
        specs = [replace(spec, shape=shape) for spec, shape in zip(unshaped, shapes, strict=True)]
        _export(subject, told, axes, specs, out / FILE, number, module)
        return specs

    outputs = write(axes)
    start = time.perf_counter()
    stuck = _stuck(out / FILE, axes, told, [spec.name for spec in outputs])
    tried += time.perf_counter() - start
    if stuck:
        lengths = ", ".join(f"{name} {axes.sizes[name]}" for name in stuck)
        console.warn(f"{file}: what torch's exporter wrote runs at one length alone, though the module runs at others: {lengths}")
        for old in out.iterdir():
            old.unlink()
        axes = rigid(axes, stuck)
        outputs = write(axes)
    precision = _PRECISIONS.get(_widest(tensor.dtype for tensor in found.tensors), "")
    return axes, outputs, {"precision": precision, "checks": [_record(axes, stuck, tried)]}


def _record(axes: Free, stuck: Sequence[str], seconds: float) -> dict[str, Any]:
    """The check of which axes are open: each was tried at a second length in torch and in what was exported."""
    fixed = {name: axes.sizes[name] for name in (*axes.pinned, *stuck)}
    lengths = {name: [axes.sizes[name], moved.sizes[name]] for name, moved in axes.other.items()}
    return {"name": "open axes", "passed": True, "open": lengths, "fixed": fixed, "seconds": round(seconds, 3)}


def coverage(model: Model, options: Options) -> list[OpUse]:
    """Every operator of the module and how torch's exporter maps it at the opset that `convert` would choose."""
    module, _ = load(model.main_file())
    return uses(module, opset(options.opset)[0])


def _axes(module: Any, told: Signature, file: Path) -> tuple[Free, Any]:
    """The inputs with the axes open that the module really leaves open, and what one run of the module gave."""
    specs = named(told.inputs)

    def run(arrays: Sequence[Any]) -> Any:
        with need("torch").no_grad():
            return module(*told.bind([to_tensor(array) for array in arrays]))

    sizes, result = settle(run, specs, told.sizes, told.rows, str(file))
    axes = free_axes(lambda arrays: _shapes(run(arrays)), specs, sizes, told.rows, _shapes(result))
    for name, reason in axes.pinned.items():
        tell = console.detail if name in told.assumed else console.warn
        tell(f"{file}: the axis {name} is fixed at {sizes[name]}: {reason}")
    if told.sizes and set(symbols(told.inputs)) <= set(told.assumed):
        console.detail("traced: every axis but the batch keeps the length of the trace; --input name:dtype:shape opens more")
    return axes, result


def _shapes(result: Any) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for _, tensor in flatten(result)]


def _outputs(told: Signature, result: Any) -> list[TensorSpec]:
    """Names and dtypes of what one run gave."""
    found = list(flatten(result))
    names = [spec.name for spec in told.outputs] if len(told.outputs) == len(found) else [name for name, _ in found]
    return [TensorSpec(name, to_array(tensor.flatten()[:0]).dtype.name, None) for name, (_, tensor) in zip(names, found, strict=True)]


def _export(subject: Any, told: Signature, axes: Free, outputs: Sequence[TensorSpec], file: Path, number: int, module: Any) -> None:
    torch = need("torch")
    tensors = tuple(to_tensor(array) for array in examples(axes.specs, axes.sizes, told.rows))
    dynamic = {
        spec.name: open_axes
        for spec in (*axes.specs, *outputs)
        if (open_axes := {at: axis for at, axis in enumerate(spec.shape or ()) if isinstance(axis, str)})
    }
    with warnings.catch_warnings(record=True) as caught, torch.no_grad(), _no_printing(torch), without_weights(), corrected(number):
        warnings.simplefilter("always")
        try:
            torch.onnx.export(
                subject,
                tensors,
                str(file),
                dynamo=False,
                opset_version=number,
                input_names=[spec.name for spec in axes.specs],
                output_names=[spec.name for spec in outputs],
                dynamic_axes=dynamic,
            )
        except Exception as err:  # the exporter's own errors, and RuntimeErrors of its passes
            raise _translated(err, module, number, axes) from err
    for text in dict.fromkeys(str(one.message) for one in caught if not issubclass(one.category, DeprecationWarning | FutureWarning)):
        if not any(known in text for known in _NO_NEWS):
            console.detail(f"torch.onnx: {' '.join(text.split())[:300]}")


@contextmanager
def _no_printing(torch: Any) -> Iterator[None]:
    """Where the exporter fails it prints the whole graph to stdout, which no setting of it prevents (torch 2.13)."""
    printing = torch._C._jit_onnx_log
    torch._C._jit_onnx_log = lambda *_: None
    try:
        yield
    finally:
        torch._C._jit_onnx_log = printing


def _translated(err: Exception, module: Any, number: int, axes: Free) -> ErnieError:
    """Every operator without a mapping at once; else what the exporter says, which may be that it must know a length."""
    try:
        refuse(uses(module, number), "torchscript_to_onnx")
    except UnsupportedError as all_of_them:
        return all_of_them
    lengths = [replace(spec, shape=(*(spec.shape or ())[:1], *_lengths(spec, axes)[1:])) for spec in axes.specs]
    typed = " ".join(as_typed(spec) for spec, old in zip(lengths, axes.specs, strict=True) if spec != old)
    hint = f"with lengths that it knows it may: {typed}" if typed else "`ernie convert … --check` lists its operators"
    return UnsupportedError(f"torch's exporter cannot write this module: {said(err)}", hint)


def _lengths(spec: TensorSpec, axes: Free) -> list[int | str | None]:
    return [axes.sizes[axis] if isinstance(axis, str) else axis for axis in spec.shape or ()]


def _stuck(file: Path, axes: Free, told: Signature, names: Sequence[str]) -> tuple[str, ...]:
    """Open axes that the exported graph cannot follow though the module can. Asks onnxruntime, where it is installed."""
    if not axes.other or importlib.util.find_spec("onnxruntime") is None:
        return ()
    ort = need("onnxruntime")
    plain = ort.SessionOptions()
    plain.log_severity_level = 4
    plain.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # two runs: opening must be quick
    try:
        session = ort.InferenceSession(str(file), plain, providers=["CPUExecutionProvider"])
    except Exception as err:  # noqa: BLE001 onnxruntime's exceptions share no base; the parity check will say what is wrong
        console.detail(f"not tried at other lengths: {said(err)}")
        return ()
    taken = {value.name for value in session.get_inputs()}

    def follows(sizes: Mapping[str, int], shapes: Sequence[tuple[int, ...]]) -> bool:
        feeds = {spec.name: array for spec, array in zip(axes.specs, examples(axes.specs, sizes, told.rows), strict=True)}
        try:
            results = session.run(list(names), {name: array for name, array in feeds.items() if name in taken})
        except Exception:  # noqa: BLE001 onnxruntime's exceptions share no base; whatever it is, this length does not run
            return False
        return [result.shape for result in results] == list(shapes)

    if all(follows(moved.sizes, moved.shapes) for moved in axes.other.values()):
        return ()
    if not follows(axes.sizes, axes.shapes):  # not a matter of lengths: the parity check will say what is
        return ()
    return tuple(name for name, moved in axes.other.items() if not follows(moved.sizes, moved.shapes))


def _widest(dtypes: Any) -> str:
    """The type of most weights."""
    counted: dict[str, int] = {}
    for dtype in dtypes:
        counted[dtype] = counted.get(dtype, 0) + (dtype in _PRECISIONS)
    return max(counted, key=lambda name: counted[name], default="")
