"""In which types a graph's layers compute, read from the graph: weights, what is multiplied with them, and the floats around.

What the engine made of it is in its own list of layers, see layers.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import onnx_ir as ir

from ..onnxgraph.proto import tensors, text

#: Operators whose second input is a table or a kernel of weights (Gather: its first).
_WEIGHED = {"MatMul": 1, "Gemm": 1, "Conv": 1, "ConvTranspose": 1, "Gather": 0}
#: What lies between weights and the node that uses them without computing with them.
_THROUGH = ("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_NAMES = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "double": "fp64", "float8e4m3fn": "fp8", "float4e2m1": "fp4"}
_FLOATS = ("fp64", "fp32", "fp16", "bf16")


def precision_map(proto: Any) -> dict[str, Any]:
    """{"types": type → {"tensors", "bytes"} of constants, "layers": precision → names of nodes with weights}.

    A precision is "fp16", "int4 weights, fp16" (the codes are widened first) or "int8 × int8, fp16" (activations × weights, result).
    """
    graph = _Graph(proto)
    layers: dict[str, list[str]] = {}
    for node in proto.graph.node:
        if (said := graph.precision(node)) is not None:
            layers.setdefault(said, []).append(text(node.name) or text(node.output[0]))
    return {"types": _types(tensors(proto)), "layers": layers}


def _types(constants: Iterable[Any]) -> dict[str, dict[str, int]]:
    count, size = Counter[str](), Counter[str]()
    for tensor in constants:
        name, bits = _type(tensor.data_type)
        n_values = 1
        for length in tensor.dims:
            n_values *= max(0, length)
        count[name] += 1
        size[name] += (n_values * bits + 7) // 8
    return {name: {"tensors": count[name], "bytes": n_bytes} for name, n_bytes in size.most_common()}


def _type(number: int) -> tuple[str, int]:
    """(name, bits per value) of an ONNX element type."""
    try:
        kind = ir.DataType(number)
        return _NAMES.get(kind.name.lower(), kind.name.lower()), kind.bitwidth
    except (ValueError, TypeError):  # nobody's number, or strings, which have no width
        return f"type {number}", 0


class _Graph:
    """Who makes which value, and of what type constants are."""

    def __init__(self, proto: Any) -> None:
        self.makers: Mapping[str, Any] = {name: node for node in proto.graph.node for name in node.output if name}
        self.constants = {tensor.name: _type(tensor.data_type)[0] for tensor in proto.graph.initializer}
        values = ((node.output[0], each.t) for node in proto.graph.node if node.op_type == "Constant" for each in node.attribute)
        self.constants |= {name: _type(tensor.data_type)[0] for name, tensor in values if tensor.data_type}

    def precision(self, node: Any) -> str | None:
        """Of a node with weights, None of any other."""
        place = _WEIGHED.get(node.op_type, -1)
        if node.domain not in ("", "ai.onnx") or not 0 <= place < len(node.input):
            return None
        weights, floats = self._codes(node.input[place])
        if weights is None or floats not in _FLOATS:  # two activations, or a table of shapes
            return None
        if weights == floats:
            return floats
        activations = self._codes(node.input[0])[0] if place else None
        return f"{activations} × {weights}, {floats}" if activations else f"{weights} weights, {floats}"

    def _codes(self, name: str) -> tuple[str | None, str]:
        """(type of the codes or constant behind a value, type of the floats made of them); (None, "") where there is neither."""
        floats = ""
        for _ in range(16):  # as many as lie in a row anywhere; a cycle ends, too
            if name in self.constants:
                return self.constants[name], floats or self.constants[name]
            node = self.makers.get(name)
            if node is None or not node.input:
                return None, ""
            if node.op_type == "QuantizeLinear":
                return self._written(node), floats
            if node.op_type == "DequantizeLinear" and len(node.input) > 1:
                floats = floats or self.constants.get(node.input[1], "")
            elif node.op_type not in _THROUGH:
                return None, ""
            elif node.op_type == "Cast":
                floats = floats or _type(next((each.i for each in node.attribute if each.name == "to"), 0))[0]
            name = node.input[0]
        return None, ""

    def _written(self, node: Any) -> str:
        """The type of a QuantizeLinear's codes: of its zero point, or as its attribute says, or uint8."""
        if len(node.input) > 2 and node.input[2] in self.constants:
            return self.constants[node.input[2]]
        return _type(next((each.i for each in node.attribute if each.name == "output_dtype" and each.i), 2))[0]
