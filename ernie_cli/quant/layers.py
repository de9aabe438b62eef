"""Which nodes of a graph have a weight that can be quantised, and which way it lies. Changes nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..errors import UsageError
from .scheme import Scheme

#: Parts of a decoder that the family keeps in float whatever the scheme: names of nodes.
ALWAYS_FLOAT = re.compile(r"(^|[./])(router|gate)([./]|$)|mlp\.gate\.weight|e_score_correction")


@dataclass(frozen=True)
class Layer:
    """A node and its weight. sum_axis: the weight's axis that the product sums over; channel_axis: the one of its outputs."""

    node: ir.Node
    weight: ir.Value
    sum_axis: int
    channel_axis: int

    @property
    def name(self) -> str:
        """The node's name, else that of what it gives."""
        return str(self.node.name or self.node.outputs[0].name)

    @property
    def activation(self) -> ir.Value:
        """What is multiplied with the weight."""
        value = self.node.inputs[0]
        assert value is not None
        return value

    @property
    def shape(self) -> tuple[int, ...]:
        """The weight's."""
        assert self.weight.shape is not None
        return tuple(int(length) for length in self.weight.shape)  # type: ignore[arg-type]

    @property
    def matrix(self) -> bool:
        """Whether the node is a product of matrices, whose codes are laid [in, out] (see edit.quantize_weight)."""
        return self.node.op_type in ("MatMul", "Gemm")

    def read(self) -> np.ndarray:
        """The weight's values, of a matrix [in, out]: perhaps a view, perhaps in a narrower float type that holds them exactly."""
        tensor = self.weight.const_value
        assert tensor is not None
        array = floats(tensor)
        return array.T if self.matrix and self.sum_axis == 1 else array


def floats(tensor: ir.TensorProtocol) -> np.ndarray:
    """A tensor's values at the least cost: a view into the file that it lies in, in the float type that it has there.

    What is mapped is given back to the system when the array is dropped.
    """
    if isinstance(tensor, ir.ExternalTensor) and tensor.dtype in FLOATS and tensor.size:
        shape = tuple(tensor.shape.numpy())
        mapped = np.memmap(tensor.path, np.uint8, "r", tensor.offset or 0, (tensor.nbytes,))
        return np.asarray(mapped).view(tensor.dtype.numpy()).reshape(shape)
    stored = getattr(tensor, "stored", None)
    return stored() if stored is not None else tensor.numpy()


def find(model: ir.Model, scheme: Scheme, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[Layer]:
    """Layers in the order of computation that `scheme` takes and the patterns leave.

    include, exclude: regular expressions, searched for in a layer's name and matched against its operator's type.
    Raises UsageError for a pattern that is none, or that meets no layer at all.
    """
    found = [layer for node in model.graph.all_nodes() if node.op_type in scheme.operators and (layer := layer_of(node))]
    wanted, unwanted = ([_pattern(text) for text in texts] for texts in (include, exclude))
    for pattern in (*wanted, *unwanted):
        if not any(_meets(pattern, layer) for layer in found):
            raise UsageError(f"`{pattern.pattern}` meets no layer that {scheme.name} takes", _some(found))
    kept = [layer for layer in found if not wanted or any(_meets(pattern, layer) for pattern in wanted)]
    return [layer for layer in kept if not ALWAYS_FLOAT.search(layer.name) and not any(_meets(pattern, layer) for pattern in unwanted)]


def layer_of(node: ir.Node) -> Layer | None:
    """The layer that a node is, None where its weight is no constant of floats that this node multiplies as a matrix.

    A weight that is a graph input, too, is a default that who runs the model may replace: no constant.
    """
    if node.domain not in ("", "ai.onnx") or len(node.inputs) < 2:
        return None
    weight = node.inputs[1]
    if weight is None or weight.const_value is None or not weight.is_initializer() or weight.is_graph_input():
        return None
    if weight.dtype not in FLOATS or weight.shape is None or not all(weight.const_value.shape.numpy()):
        return None
    if node.op_type == "MatMul" and len(weight.shape) == 2:
        return Layer(node, weight, 0, 1)
    if node.op_type == "Gemm" and not node.attributes.get_int("transA", 0):
        turned = bool(node.attributes.get_int("transB", 0))
        return Layer(node, weight, int(turned), int(not turned))
    if node.op_type == "Conv":
        return Layer(node, weight, 1, 0)
    if node.op_type == "ConvTranspose" and node.attributes.get_int("group", 1) == 1:
        return Layer(node, weight, 0, 1)
    return None


FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
#: Operators that only a quantised model has, in any domain.
_QUANTISED = re.compile(
    r"QLinear\w+|Q(Gemm|Attention)|\w+Integer(ToFloat)?|DynamicQuantize\w+|MatMulNBits|MatMulBnb4|GatherBlockQuantized|QMoE"
)


def already(model: ir.Model) -> bool:
    """Whether the model holds weights in integers or 8-bit floats, so that quantising it again would add one loss to another."""
    return any(_narrow(node) for node in model.graph.all_nodes())


def _narrow(node: ir.Node) -> bool:
    if _QUANTISED.fullmatch(node.op_type):
        return True
    codes = node.inputs[0] if node.op_type == "DequantizeLinear" and node.inputs else None
    return codes is not None and (codes.is_initializer() or (codes.producer() is not None and codes.producer().op_type == "Constant"))  # type: ignore[union-attr]


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as err:
        raise UsageError(f"`{text}` is no regular expression: {err}", "a plain part of a layer's name will do: --exclude lm_head") from err


def _meets(pattern: re.Pattern[str], layer: Layer) -> bool:
    return bool(pattern.search(layer.name) or pattern.fullmatch(layer.node.op_type))


def _some(layers: Sequence[Layer]) -> str:
    names = [layer.name for layer in layers]
    return f"layers are named like {', '.join(names[:3])}" if names else "this model has no such layers at all"
