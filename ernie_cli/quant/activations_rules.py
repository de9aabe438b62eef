"""What operators do with 8-bit codes: one table. Knows nodes, no chains.

The operators are those for which ONNX Runtime has integer kernels behind pairs (its QDQ selectors: drop, unary, binary, variadic) and
through which TensorRT moves pairs or which it computes in int8 (its guide to explicit quantisation).
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

#: Layers whose integer kernels (QLinearConv, QGemm with a bias) give codes and nothing else. MatMul has one that gives float, too.
GIVES_CODES = ("Conv", "ConvTranspose", "Gemm")
#: What has a weight that may be quantised. No first, last or depthwise layer is spared: of all the noise in a small ResNet and MobileNetV2
#: the picture's codes make 4 and 8 %; with a scale per channel the weights of depthwise convolutions are as precise as any (46 dB).
WEIGHTED = (*GIVES_CODES, "MatMul")

#: Moves or picks values: codes before and after have one scale.
SAME = "same"
#: Cuts values off at 0: runtimes make it part of the layer before.
CLAMP = "clamp"
#: Computes: a scale of its own; all that goes in must be codes.
OWN = "own"
#: Has no integer kernel: computed in float between two pairs, cheap beside the convolutions around it.
FLOAT = "float"

_OPERATORS = {
    SAME: "MaxPool Reshape Flatten Transpose Squeeze Unsqueeze Slice Gather Expand Tile Split Resize Identity",
    CLAMP: "Relu Clip",
    OWN: "Add Mul Concat AveragePool GlobalAveragePool LeakyRelu Sigmoid",
    FLOAT: "BatchNormalization HardSwish HardSigmoid PRelu Elu Selu Softplus Mish Swish Tanh Gelu Pad Sub Div Cast Dropout",
}
_RULES = {operator: rule for rule, operators in _OPERATORS.items() for operator in operators.split()}


def of(node: ir.Node) -> str:
    """The node's rule, "" where codes end."""
    if node.domain not in ("", "ai.onnx"):
        return ""
    rule = _RULES.get(node.op_type, "")
    return "" if rule == CLAMP and not _from_zero(node) else rule


def on_the_way(node: ir.Node) -> bool:
    """Whether a chain that begins at a convolution may go on behind this node."""
    return bool(of(node))


def lets_through(node: ir.Node, quantised: Collection[ir.Value]) -> bool:
    """Whether a node that reads these quantised values can give codes itself."""
    rule = of(node)
    if rule in (SAME, CLAMP):
        return node.inputs[0] in quantised
    return rule == OWN and all(value is None or value in quantised for value in node.inputs)


def constant(value: ir.Value) -> bool:
    """Whether a value is known before anything runs."""
    producer = value.producer()
    return value.is_initializer() or (producer is not None and producer.op_type in ("Constant", "DequantizeLinear"))


def _from_zero(node: ir.Node) -> bool:
    """Whether a Clip begins at 0, as ReLU6 does; a Relu does. Where it ends, the scale of what it gives ends, too."""
    if node.op_type == "Relu":
        return True
    low = node.inputs[1] if len(node.inputs) > 1 else None
    found = ir.convenience.get_const_tensor(low) if low is not None else None
    return found is not None and float(found.numpy()) == 0
