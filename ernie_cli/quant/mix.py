"""Which layers keep 8 bits where the others get 4: the head, and those that lose most.

How much a layer loses is measured by moments.relative_error: of its outputs where there are data, of its weights where not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx_ir as ir

from .layers import Layer
from .scheme import WeightFormat

#: Codes' bits per weight that a mix may have on average, head and scales apart.
MOST_BITS = 4.6
WIDE = WeightFormat("int8")
#: Operators between the head and the graph's output.
_AFTER_HEAD = ("Add", "Cast", "Reshape", "Identity", "Squeeze", "Unsqueeze", "Softmax", "LogSoftmax", "Mul", "Div", "Tanh")


def choose(
    errors: Mapping[str, float], sizes: Mapping[str, int], heads: Collection[str], most_bits: float = MOST_BITS
) -> dict[str, WeightFormat]:
    """Layer name → 8 bits, for heads and for layers with the largest errors while the average stays within `most_bits`.

    errors: relative error at 4 bits. sizes: weights. A layer too large for what is left of the bits is passed over.
    """
    body = [name for name in errors if name not in heads]
    left = (most_bits - 4) / 4 * sum(sizes[name] for name in body)
    chosen = [name for name in errors if name in heads]
    for name in sorted(body, key=lambda name: -errors[name]):
        if sizes[name] <= left and errors[name] > 0:
            chosen.append(name)
            left -= sizes[name]
    return dict.fromkeys(chosen, WIDE)


def heads(layers: Sequence[Layer]) -> set[str]:
    """Names of layers whose result is an output of the graph, but for shape, type, bias and activation."""
    return {layer.name for layer in layers if _ends(layer.node.outputs[0])}


def _ends(value: ir.Value) -> bool:
    while not value.is_graph_output():
        users = {node for node, _ in value.uses()}
        if len(users) != 1 or (node := users.pop()).op_type not in _AFTER_HEAD or len(node.outputs) != 1:
            return False
        value = node.outputs[0]
    return True
