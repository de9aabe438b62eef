"""What an ONNX graph tells about sensible inputs and limits: the rows of the tables that inputs index, the precision it works in."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..model import Model
from ..need import need

if TYPE_CHECKING:
    import onnx_ir as ir

#: Operators that hand ids on as they are.
_PASS = ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Slice", "Expand", "Concat", "Gather", "Tile")


@dataclass(frozen=True)
class Facts:
    """rows: input → how many rows the smallest table has that it indexes. precision: fp64, fp32, fp16 or bf16, "" where none."""

    rows: dict[str, int] = field(default_factory=dict)
    precision: str = ""


def facts_of(model: Model) -> Facts:
    """Facts of an ONNX model, empty ones of any other. Raises what loading raises."""
    if model.format != "onnx":
        return Facts()
    from ..onnxgraph.load import load

    graph = load(model, known_operators=False).graph
    rows = {str(value.name): found for value in graph.inputs if (found := _rows(value))}
    return Facts(rows, _precision(graph))


def _rows(value: ir.Value) -> int | None:
    """The fewest rows among the tables that a value indexes, through operators that hand it on."""
    found, seen, pending = [], set(), [value]
    while pending:
        at = pending.pop()
        for node, index in at.uses():
            if node.op_type in ("Gather", "GatherElements", "OneHot") and index == (0 if node.op_type == "OneHot" else 1):
                rows = _table(node)
                found += [rows] if rows else []
            elif node.op_type in _PASS and (index == 0 or node.op_type == "Concat") and id(node) not in seen:
                seen.add(id(node))
                pending += node.outputs
    return min(found, default=None)


def _table(node: ir.Node) -> int | None:
    source = node.inputs[1 if node.op_type == "OneHot" else 0]
    if node.op_type == "OneHot":
        constant = source.const_value if source is not None else None
        return int(constant.numpy().reshape(-1)[0]) if constant is not None and constant.size == 1 else None
    while source is not None and source.const_value is None and source.producer() is not None:
        maker = source.producer()
        if maker is None or maker.op_type not in ("Cast", "DequantizeLinear", "Identity", "Constant"):
            return None
        if maker.op_type == "Constant":
            break
        source = maker.inputs[0]
    shape = None if source is None else source.const_value.shape if source.const_value is not None else source.shape
    axis = node.attributes.get_int("axis", 0)
    if shape is None or source is None or (source.const_value is None and source.producer() is None):
        return None  # a table that is an input itself
    length = shape[axis] if -len(shape) <= axis < len(shape) else None
    return length if isinstance(length, int) else None


def _precision(graph: ir.Graph) -> str:
    """The type that most of the weights are of, integers aside."""
    names = {"FLOAT": "fp32", "DOUBLE": "fp64", "FLOAT16": "fp16", "BFLOAT16": "bf16"}
    ir = need("onnx_ir")
    counts = Counter[str]()
    for value in graph.initializers.values():
        if isinstance(value.dtype, ir.DataType) and value.dtype.name in names and value.const_value is not None:
            counts[names[value.dtype.name]] += value.const_value.size
    return counts.most_common(1)[0][0] if counts else ""
