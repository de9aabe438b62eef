"""Paddle inference program → ONNX, by paddle2onnx in a process of its own. Parity is checked by the route.

What paddle2onnx is known to get wrong is put right before (pdmodel/repair.py) and after it (pdmodel/amend.py).
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from ernie_cli import console
from ernie_cli.coverage import OpUse, refuse
from ernie_cli.errors import ErnieError, InputError, MissingError, UnsupportedError, UsageError
from ernie_cli.model import Model, write_manifest
from ernie_cli.need import need
from ernie_cli.onnxgraph.load import load
from ernie_cli.onnxgraph.simplify import simplify
from ernie_cli.onnxgraph.write import save
from ernie_cli.pdmodel import amend, mapped
from ernie_cli.pdmodel.child import Child, Crashed, Failed, installed
from ernie_cli.pdmodel.files import Pair, open_pair, read_program, with_axes
from ernie_cli.pdmodel.program import Program
from ernie_cli.route import Options

#: paddle and paddle2onnx are looked for (output_bytes), not loaded: they are needed in the child only, and print when they load.
NEEDS: tuple[str, ...] = ()
#: Copies of the result that lie beside it for a while: what paddle2onnx writes, which is then simplified.
SCRATCH_COPIES = 1
#: The newest that paddle2onnx writes. Below 19 it resizes with rounded scales, which is another result on odd sizes.
OPSET = 21
_OLDEST, _RIGHT = 7, 19
_EXPORT = "ernie_cli.pdmodel.export"


def output_bytes(model: Model, options: Options) -> int:
    """Bytes of the result: the weights, and some more for the graph. Raises MissingError where Paddle is not installed."""
    installed("paddle", "paddle2onnx")
    file = model.main_file()
    weights = file.with_suffix(".pdiparams")
    return file.stat().st_size + (weights.stat().st_size if weights.is_file() else 0) + (1 << 20)


def coverage(model: Model, options: Options) -> list[OpUse]:
    """How paddle2onnx maps each operator of the program."""
    installed("paddle", "paddle2onnx")
    with Child() as child, tempfile.TemporaryDirectory() as scratch:
        return _coverage(child, _as_pir(child, open_pair(model), scratch))


def convert(model: Model, out: Path, options: Options) -> Model:
    """Write `out`/model.onnx. Raises UnsupportedError naming every operator that has no mapping, InputError for damaged files."""
    pair = with_axes(open_pair(model), model)
    opset = _opset(options.opset)
    with Child() as child, tempfile.TemporaryDirectory(dir=out) as scratch:
        file = Path(scratch) / "exported.onnx"
        new = _as_pir(child, pair, scratch)
        refuse(_coverage(child, new), "pdmodel_to_onnx")
        _export(child, new, file, opset, scratch)
        _amend(file, new.program, pair.program)
        exported = load(file)
        files = save(simplify(exported) if options.simplify else exported, out)
    return write_manifest(
        out,
        format="onnx",
        precision=model.precision,
        files=files,
        main="model.onnx",
        inputs=[spec.as_dict() for spec in pair.program.inputs],
        outputs=[spec.as_dict() for spec in pair.program.outputs],
    )


def _opset(wanted: int | None) -> int:
    if wanted is None:
        console.info(f"using opset {OPSET} (the newest that paddle2onnx writes)")
        return OPSET
    if not _OLDEST <= wanted <= OPSET:
        raise UsageError(f"paddle2onnx writes opsets {_OLDEST} to {OPSET}, not {wanted}", f"--opset {OPSET}")
    if wanted < _RIGHT:
        console.warn(f"opset {wanted}: below {_RIGHT} paddle2onnx resizes images with rounded scales; the parity check will tell")
    return wanted


def _as_pir(child: Child, pair: Pair, scratch: str) -> Pair:
    """`pair`, or what Paddle translates it to where it is a legacy one."""
    if pair.program.kind == "pir":
        return pair
    try:
        prefix = child.call(f"{_EXPORT}:translate", prefix=str(pair.file.with_suffix("").absolute()), scratch=scratch)
    except Failed as err:
        raise _translated(err, pair) from err
    file, weights = Path(f"{prefix}.json"), Path(f"{prefix}.pdiparams")
    return Pair(file, weights if weights.is_file() else None, read_program(file))


def _coverage(child: Child, pair: Pair) -> list[OpUse]:
    try:
        return mapped.uses(pair.program, child.call(f"{_EXPORT}:operators"))
    except Failed as err:
        raise _translated(err, pair) from err


def _export(child: Child, pair: Pair, file: Path, opset: int, scratch: str) -> None:
    try:
        weights = str(pair.weights or "")
        child.call(f"{_EXPORT}:export", program=str(pair.file), weights=weights, out=str(file), opset=opset, scratch=scratch)
    except Failed as err:
        raise _translated(err, pair, child.said() if not isinstance(err, Crashed) else "") from err


def _translated(err: Failed, pair: Pair, said: str = "") -> ErnieError:
    """paddle2onnx's words as one of our errors."""
    if err.kind in ("ImportError", "ModuleNotFoundError"):
        return MissingError(f"paddle2onnx does not load: {err.text}", "pip install 'ernie-cli[paddle]'")
    if err.kind == "MissingError":
        return MissingError(err.text, "pip install 'ernie-cli[paddle]'")
    told = " ".join(err.text.split())
    if re.search(r"not supported|[Uu]nimplemented|unsupported|[Oo]nly support|opset", told):
        return UnsupportedError(f"{pair.file}: paddle2onnx cannot export it: {told:.300}", "`ernie convert … --check` lists the operators")
    return InputError(f"{pair.file}: paddle2onnx failed on it: {told:.300}", "does the program run? `ernie run` it; else report it")


def _amend(file: Path, exported: Program, source: Program) -> None:
    onnx = need("onnx")
    proto: Any = onnx.load(str(file), load_external_data=False)
    amend.stack_states(proto.graph, exported)
    amend.best_first(proto.graph, exported)
    amend.repeat_each(proto.graph, exported)
    amend.name_outputs(proto.graph, [spec.name for spec in source.outputs])
    amend.name_axes(proto.graph, source.inputs, source.outputs)
    onnx.save(proto, str(file))
