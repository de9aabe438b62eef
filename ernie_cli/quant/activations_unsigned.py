"""Signed pairs as unsigned ones: the same graph as ONNX Runtime's kernels for processors like it. TensorRT takes signed pairs only.

On x86 those kernels multiply uint8 activations with int8 weights (int8 × int8 was measured 20 times slower on one with VNNI), and a Relu
costs nothing only where codes end at 0. So the portable graph is rewritten in memory when a session is opened on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..onnxgraph.names import fresh
from . import activations_rules as rules

#: Codes of a signed pair, moved into an unsigned byte: the numbers stay the same.
MIDDLE = 128


@dataclass(frozen=True)
class _Pair:
    quantize: ir.Node
    scale: float

    @property
    def value(self) -> ir.Value:
        given = self.quantize.inputs[0]
        assert given is not None
        return given


def make_unsigned(model: ir.Model, *, finer: bool = True) -> int:
    """Rewrite every int8 pair of activations in `model`, in place. Returns how many there were.

    finer: behind a Relu or ReLU6 there are no signs, and the codes saved for them halve the steps, so that results are nearer to the
    float graph's than the signed graph's are. False: the numbers of the signed graph, but for values beyond a scale's end.
    """
    graph = model.graph
    pairs = [pair for node in graph if (pair := _pair(node)) is not None]
    scales: dict[ir.Value, list[float]] = {}
    for pair in pairs:
        scales.setdefault(pair.value, []).append(pair.scale)
    for pair in pairs:
        _open_clamp(graph, pair, scales)
    pairs = _joined(graph, [pair for pair in pairs if pair.quantize.graph is not None])
    for pair in pairs:
        positive = _positive(pair.value)
        scale = pair.scale * 127 / 255 if positive and finer else pair.scale
        _write(graph, pair, scale, 0 if positive else MIDDLE)
    for node in graph:
        if pairs and node.op_type == "Gemm":
            _complete(graph, node)
    _drop_unused(graph)
    return len(pairs)


def _pair(node: ir.Node) -> _Pair | None:
    """The pair that a QuantizeLinear begins: one scale, signed bytes around 0, read by DequantizeLinear alone."""
    if node.op_type != "QuantizeLinear" or len(node.inputs) < 3 or node.outputs[0].is_graph_output():
        return None
    value, scale, zero = (_constant(given) if at else given for at, given in enumerate(node.inputs[:3]))
    signed = isinstance(zero, np.ndarray) and zero.dtype == np.int8 and zero.size == 1 and not zero.any()
    if value is None or not signed or not isinstance(scale, np.ndarray) or scale.size != 1:
        return None
    readers = [reader for reader, _ in node.outputs[0].uses()]
    return _Pair(node, float(scale.reshape(-1)[0])) if readers and all(reader.op_type == "DequantizeLinear" for reader in readers) else None


def _open_clamp(graph: ir.Graph, pair: _Pair, scales: Mapping[ir.Value, list[float]]) -> None:
    """Take away the pair before a Relu that has one behind it of the same scale: it cuts off what the Relu and the other cut off."""
    found = [node for reader, _ in pair.quantize.outputs[0].uses() for node, _ in reader.outputs[0].uses()]
    if len(found) != 1 or rules.of(found[0]) != rules.CLAMP:
        return
    after = scales.get(found[0].outputs[0], [])
    if after and np.allclose(after, pair.scale, rtol=1e-6, atol=0):
        found[0].replace_input_with(0, pair.value)
        reader = next(reader for reader, _ in pair.quantize.outputs[0].uses())
        graph.remove([reader, pair.quantize], safe=True)


def _joined(graph: ir.Graph, pairs: list[_Pair]) -> list[_Pair]:
    """One pair where a value has several alike."""
    kept: dict[tuple[ir.Value, float], _Pair] = {}
    for pair in pairs:
        first = kept.setdefault((pair.value, pair.scale), pair)
        if first is pair:
            continue
        to = next(reader for reader, _ in first.quantize.outputs[0].uses()).outputs[0]
        for reader in [reader for reader, _ in pair.quantize.outputs[0].uses()]:
            ir.convenience.replace_all_uses_with(reader.outputs[0], to)
            graph.remove(reader, safe=True)
        graph.remove(pair.quantize, safe=True)
    return list(kept.values())


def _positive(value: ir.Value) -> bool:
    """Whether a value is never below 0: behind a Relu, and whatever only moves codes behind that."""
    node = value.producer()
    if node is None:
        return False
    rule = rules.of(node)
    if rule == rules.CLAMP or node.op_type in ("Sigmoid", "HardSigmoid", "Softmax"):
        return True
    through = rule == rules.SAME or node.op_type in ("AveragePool", "GlobalAveragePool")
    if node.op_type == "DequantizeLinear":  # of a pair: what goes into it decides
        quantize = node.inputs[0].producer() if node.inputs[0] is not None else None
        return (
            quantize is not None
            and quantize.op_type == "QuantizeLinear"
            and quantize.inputs[0] is not None
            and _positive(quantize.inputs[0])
        )
    return through and node.inputs[0] is not None and _positive(node.inputs[0])


def _write(graph: ir.Graph, pair: _Pair, scale: float, zero: int) -> None:
    codes, old = pair.quantize.outputs[0], pair.quantize.inputs[1]
    assert old is not None and old.dtype is not None
    new = {"scale": np.array(scale, old.dtype.numpy()), "zero": np.array(zero, np.uint8)}
    for at, (what, number) in enumerate(new.items(), 1):
        value = _initializer(graph, f"{codes.name}_unsigned_{what}", number)
        for node in (pair.quantize, *(reader for reader, _ in codes.uses())):
            node.replace_input_with(at, value)
    codes.type = ir.TensorType(ir.DataType.UINT8)


def _complete(graph: ir.Graph, gemm: ir.Node) -> None:
    """Give a Gemm between pairs what the integer kernel asks for: a zero point of its weight, a bias as int32."""
    activation, weight = (value.producer() if value is not None else None for value in gemm.inputs[:2])
    if activation is None or weight is None or {activation.op_type, weight.op_type} != {"DequantizeLinear"}:
        return
    codes, scales, scale = weight.inputs[0], _constant(weight.inputs[1]), _constant(activation.inputs[1])
    if codes is None or codes.dtype != ir.DataType.INT8 or scales is None or scale is None or "block_size" in weight.attributes:
        return
    if len(weight.inputs) == 2:
        weight.resize_inputs(3)
        weight.replace_input_with(2, _initializer(graph, f"{codes.name}_zero", np.zeros(scales.shape, np.int8)))
    bias = gemm.inputs[2] if len(gemm.inputs) > 2 else None
    numbers = _constant(bias)
    if bias is None or numbers is None or numbers.ndim != 1 or scales.shape not in ((), numbers.shape) or bias.dtype != ir.DataType.FLOAT:
        return
    steps = scales * scale
    whole = _initializer(graph, f"{bias.name}_int32", np.clip(np.rint(numbers / steps), -(2**31), 2**31 - 1).astype(np.int32))
    node = ir.node(
        "DequantizeLinear", [whole, _initializer(graph, f"{bias.name}_scale", steps)], {"axis": 0}, name=f"{whole.name}_dequantize"
    )
    node.outputs[0].name = fresh(graph, f"{whole.name}_float")
    graph.insert_before(gemm, node)
    gemm.replace_input_with(2, node.outputs[0])


def _initializer(graph: ir.Graph, name: str, number: np.ndarray) -> ir.Value:
    tensor = ir.tensor(number, name=fresh(graph, name))
    value = ir.Value(name=tensor.name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(number.shape), const_value=tensor)
    graph.register_initializer(value)
    return value


def _drop_unused(graph: ir.Graph) -> None:
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            graph.initializers.pop(name)


def _constant(value: ir.Value | None) -> np.ndarray | None:
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return tensor.numpy() if tensor is not None else None
