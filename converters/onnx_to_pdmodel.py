"""ONNX → Paddle inference program, by our own table of operators on Paddle's static graph. Parity is checked by the route.

x2paddle 1.6, which is made for this, writes Python source with the model's names in it and runs it, makes vectors of scalars, and
refuses what paddle2onnx writes for LSTM, GRU, Transformer encoders and MobileNetV3; so the program is built directly, see
pdmodel/assemble.py.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ernie_cli import console
from ernie_cli.coverage import OpUse, refuse
from ernie_cli.digest import flushed_facts_of
from ernie_cli.errors import ErnieError, InputError, MissingError, ResourceError, UnsupportedError
from ernie_cli.model import Model, write_manifest
from ernie_cli.onnxgraph import lower
from ernie_cli.onnxgraph.load import load
from ernie_cli.onnxgraph.write import constant_bytes, save
from ernie_cli.pdmodel.child import Child, Crashed, Failed, installed
from ernie_cli.pdmodel.ops import table
from ernie_cli.route import Options
from ernie_cli.runtime.graphs import TensorSpec

#: paddle is looked for (output_bytes), not loaded: it is needed in the child only, and prints when it loads.
NEEDS: tuple[str, ...] = ()
#: Copies of the result that lie beside it for a while: the graph, for Paddle's process to read.
SCRATCH_COPIES = 1
#: What the table is written for; newer models are brought down to it first.
OPSET = 21


def output_bytes(model: Model, options: Options) -> int:
    """Bytes of the weights, and some more for the program. Raises MissingError where Paddle is not installed."""
    installed("paddle")
    return constant_bytes(load(model)) + (1 << 20)


def coverage(model: Model, options: Options) -> list[OpUse]:
    """How each operator of the model is mapped, after it was brought down to opset 21."""
    found = load(model, known_operators=False)
    return [_worded(use) for use in lower.coverage(found, OPSET, known=set(table()))]


def convert(model: Model, out: Path, options: Options) -> Model:
    """Write `out`/model.json and model.pdiparams. Raises UnsupportedError naming every operator without a mapping."""
    found = load(model)
    refuse([_worded(use) for use in lower.coverage(found, OPSET, known=set(table()))], "onnx_to_pdmodel")
    inputs, outputs = _specs(found.graph.inputs), _specs(found.graph.outputs)
    with tempfile.TemporaryDirectory(dir=out) as scratch, Child() as child:
        save(found, Path(scratch), "source.onnx")
        prefix = str((out / "model").absolute())
        try:
            kept = child.call("ernie_cli.pdmodel.assemble:build", source=str(Path(scratch) / "source.onnx"), prefix=prefix)
        except Failed as err:
            raise _translated(err, model) from err
    if left := [spec.name for spec in inputs if spec.name not in kept]:
        console.warn(f"no output depends on the inputs {', '.join(left)}: the program has none of that name")
    files = {path.name: flushed_facts_of(path) for path in sorted(out.iterdir())}
    return write_manifest(
        out,
        format="pdmodel",
        architecture=model.architecture,
        precision=model.precision,
        files=files,
        main="model.json",
        inputs=[spec.as_dict() for spec in inputs if spec.name in kept],
        outputs=[spec.as_dict() for spec in outputs],
    )


def _worded(use: OpUse) -> OpUse:
    if not use.how or use.how not in ("kept", "older form"):
        return use
    return OpUse(use.operator, use.nodes, f"{use.how}, paddle" if use.how != "kept" else "paddle", use.why)


def _specs(values: Any) -> list[TensorSpec]:
    return [TensorSpec(value.name, _dtype(value), _shape(value)) for value in values]


def _dtype(value: Any) -> str:
    return "" if value.dtype is None else str(value.dtype.numpy().name)


def _shape(value: Any) -> tuple[int | str | None, ...] | None:
    if value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)


def _translated(err: Failed, model: Model) -> ErnieError:
    told = " ".join(err.text.split())[-300:]
    if err.kind in ("ImportError", "ModuleNotFoundError"):
        return MissingError(f"Paddle does not load: {told}", "pip install 'ernie-cli[paddle]'")
    if err.kind == "MemoryError" or "ResourceExhausted" in err.text:
        return ResourceError(f"{model.path}: Paddle ran out of memory: {told}", "free some memory")
    if isinstance(err, Crashed):
        return InputError(f"{model.path}: Paddle crashed while it built the program: {told}", "does `ernie run` run the model? report it")
    return UnsupportedError(
        f"{model.path}: Paddle cannot build the program: {err.kind}: {told}", "`ernie convert … --check` lists the operators"
    )
