"""`load(model)` → an onnx_ir.Model that is whole: parsed, checked from names to bytes, external weights still on disk.

What makes it smaller or older is simplify.py's and lower.py's affair.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..model import Model
from ..need import need
from . import operators, structure, tensors
from .proto import AGAIN, parse

if TYPE_CHECKING:
    import onnx_ir as ir


def load(model: Model | str | Path, *, known_operators: bool = True) -> ir.Model:
    """Read an ONNX model, a file or a folder with one.

    Everything that can be checked without running it is checked before anything is made. Weights in other files stay there,
    memory-mapped when read. known_operators=False takes operators nobody knows, too (to list them).
    Raises InputError (exit 3) for a damaged or lying file, UnsupportedError (exit 4) for operators or opsets nobody knows.
    """
    file = (model if isinstance(model, Model) else Model.open(model)).main_file()
    proto = parse(file)
    in_order = structure.check(proto, str(file))
    tensors.check(proto, file)
    found = _deserialized(proto, file)
    if not in_order:
        found.graph.sort()
        for function in found.functions.values():
            function.sort()
    _complete_calls(found, file)
    _free(found)
    operators.check(found, str(file), refuse=known_operators)
    return found


def _deserialized(proto: object, file: Path) -> ir.Model:
    onnx_ir = need("onnx_ir")
    try:
        found: ir.Model = onnx_ir.serde.deserialize_model(proto)
    except Exception as err:  # no common base: ValueError, TypeError, NotImplementedError, its own SerdeError …
        reason = str(err.__cause__ or err).strip().splitlines()
        raise InputError(f"{file}: damaged: {reason[0] if reason else type(err).__name__}", AGAIN) from err
    for graph in (found.graph, *(function.graph for function in found.functions.values())):
        onnx_ir.external_data.set_base_dir(graph, file.parent)
    return found


def _free(model: ir.Model) -> None:
    """Lengths of −1 and the like, as some exporters write them, become what they mean: any length."""
    shape = need("onnx_ir").Shape
    for value in (*model.graph.inputs, *model.graph.outputs):
        if any(isinstance(axis, int) and axis < 0 for axis in value.shape or ()):
            value.shape = shape([None if isinstance(axis, int) and axis < 0 else axis for axis in value.shape or ()])


def _complete_calls(model: ir.Model, file: Path) -> None:
    """Give calls of local functions all outputs the function has; whoever inlines counts on it. Raises InputError for too many."""
    for node in operators.every_node(model):
        function = model.functions.get(node.op_identifier())
        if function is None:
            continue
        if len(node.inputs) > len(function.inputs) or len(node.outputs) > len(function.outputs):
            what = f"{file}: node `{operators.name_of(node)}` has {len(node.inputs)} inputs and {len(node.outputs)} outputs"
            raise InputError(f"{what}, more than its function {node.op_type}", AGAIN)
        if len(node.outputs) < len(function.outputs):
            node.resize_outputs(len(function.outputs))
