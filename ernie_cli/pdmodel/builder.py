"""Builds Paddle operations from an ONNX graph, node by node, by the table in ops/. Files are assemble.py's affair.

A value of the graph is a Paddle value, or a numpy array as long as it is known while building: constants stay arrays until a
Paddle operation takes them, and shapes are arrays of objects in which known lengths are numbers and the others Paddle values.
So what depends on a dynamic axis stays dynamic, and what does not stays fixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import UnsupportedError
from ..need import need
from .ops import table

#: Nodes whose inputs are all known are computed while building, up to this many bytes of input.
_MOST_FOLDED_BYTES = 64 << 20
#: Integers are written into the program itself up to this many; more become parameters, as all weights do.
_MOST_INLINE_INTEGERS = 64
#: Random numbers are never known before they are drawn, and onnx's reference takes minutes for large ones of the last five.
_NEVER_FOLDED = (
    *("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli", "If", "Loop", "Scan"),
    *("Resize", "GridSample", "Conv", "ConvTranspose", "RoiAlign"),
)


class Node:
    """An ONNX node with its attributes as Python values."""

    def __init__(self, proto: Any) -> None:
        onnx = need("onnx")
        self.proto = proto
        self.op_type: str = proto.op_type
        self.attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in proto.attribute}
        self.name: str = proto.name or next((name for name in proto.output if name), proto.op_type)
        self.outputs: list[str] = list(proto.output)

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, texts as str."""
        value = self.attributes.get(name, default)
        return value.decode(errors="replace") if isinstance(value, bytes) else value

    def cannot(self, why: str) -> UnsupportedError:
        """What to raise where Paddle has no way to do what this node asks for."""
        return UnsupportedError(f"{self.op_type} ({self.name}): {why}", "export the model without it, or report it")


class Builder:
    """The state while one program is built. p: the paddle module. opset: of the graph."""

    def __init__(self, opset: int) -> None:
        self.p = need("paddle")
        self.F = self.p.nn.functional
        self.opset = opset
        self.values: dict[str, Any] = {}
        self.weights: dict[str, np.ndarray] = {}
        self._made: dict[int, tuple[np.ndarray, Any]] = {}
        self._names: dict[int, str] = {}

    # -- types ----------------------------------------------------------------------------------------------------------

    def computed(self, dtype: str) -> str:
        """The type that values of `dtype` are computed in: a Paddle without CUDA has no arithmetic of half precision."""
        return "float32" if dtype in ("float16", "bfloat16") and not self.p.is_compiled_with_cuda() else dtype

    def cast(self, value: Any, dtype: str) -> Any:
        """`value` as `dtype`: where that is computed in a wider type, rounded to `dtype` all the same."""
        made = self.p.cast(value, dtype)
        return made if self.computed(dtype) == dtype else self.p.cast(made, self.computed(dtype))

    # -- values ---------------------------------------------------------------------------------------------------------

    def t(self, value: Any) -> Any:
        """`value` as a Paddle value."""
        if not isinstance(value, np.ndarray):
            return value
        if value.dtype == object:
            if self.known(value):
                return self.t(value.astype(np.int64))
            parts = [self.scalar(one) for one in value.ravel()]
            return self.p.reshape(self.p.stack(parts), list(value.shape)) if value.ndim != 1 else self.p.stack(parts)
        if id(value) not in self._made or self._depth:
            made = self._constant(value)
            wide = self.computed(value.dtype.name)
            self._made[id(value)] = (value, made if wide == value.dtype.name else self.p.cast(made, wide))
        return self._made[id(value)][1]

    #: How many inner blocks deep we are: what is made inside cannot be used outside.
    _depth = 0

    def scalar(self, value: Any) -> Any:
        """A 0-D int64 value of an element of a shape."""
        if isinstance(value, (int, np.integer)):
            return self.p.full([], int(value), "int64")
        value = self.p.reshape(value, []) if len(value.shape) else value
        return value if self.dtype(value) == "int64" else self.p.cast(value, "int64")

    def known(self, value: Any) -> bool:
        """Whether every element is known now."""
        if not isinstance(value, np.ndarray):
            return False
        return value.dtype != object or all(isinstance(one, (int, np.integer)) for one in value.ravel())

    def numbers(self, value: Any, node: Node, what: str) -> list[int]:
        """A known list of integers. Raises UnsupportedError where it is not known before the program runs."""
        if not self.known(value):
            raise node.cannot(f"its {what} are computed while the model runs")
        return [int(one) for one in np.asarray(value).ravel()]

    def dims(self, value: Any) -> np.ndarray:
        """The shape as an array of objects: numbers, and Paddle values where a length is not fixed."""
        shape = list(value.shape)
        found = np.empty(len(shape), dtype=object)
        whole = None
        for axis, length in enumerate(shape):
            if isinstance(length, (int, np.integer)) and length >= 0:
                found[axis] = int(length)
                continue
            whole = self.p.cast(self.p.shape(value), "int64") if whole is None else whole
            found[axis] = self.p.reshape(self.p.slice(whole, [0], [axis], [axis + 1]), [])
        return found

    def lengths(self, value: Any) -> Any:
        """A shape as Paddle's functions take it: a list of numbers and values, or one value where not even its parts are known."""
        if not isinstance(value, np.ndarray):
            return self.p.cast(value, "int64")
        return [int(one) if isinstance(one, (int, np.integer)) else self.scalar(one) for one in value.ravel()]

    def dtype(self, value: Any) -> str:
        """numpy's name of the element type."""
        if isinstance(value, np.ndarray):
            return "int64" if value.dtype == object else self.computed(value.dtype.name)
        return str(value.dtype).rpartition(".")[2].lower()

    def is_float(self, value: Any) -> bool:
        """Whether the elements are floating point numbers."""
        return "float" in self.dtype(value)

    def reshape(self, value: Any, shape: Any) -> Any:
        """Reshape to a list or array of numbers and values."""
        return self.p.reshape(self.t(value), self.lengths(_objects(shape)))

    def _constant(self, value: np.ndarray) -> Any:
        name = value.dtype.name
        if value.ndim == 0 and name not in ("float16", "bfloat16"):
            return self.p.full([], value.item(), name)
        if value.size == 0:
            return self.p.full(list(value.shape), 0, name)
        if value.size <= _MOST_INLINE_INTEGERS and name in ("int64", "int32", "bool"):
            made = self.p.assign(value.astype(np.int32) if name == "bool" else value)
            return self.p.cast(made, "bool") if name == "bool" else made
        return self._parameter(value)

    def _parameter(self, value: np.ndarray) -> Any:
        """A parameter under the ONNX initializer's name where there is one."""
        name = self._names.get(id(value)) or f"constant_{len(self.weights)}"
        name = name if name not in self.weights else f"{name}.{len(self.weights)}"
        stored = value.astype(np.uint8) if value.dtype == np.bool_ else value
        self.weights[name] = stored
        zero = self.p.nn.initializer.Constant(0.0)
        places = self.p.base.libpaddle.pir
        here = places.get_current_insertion_point()
        # Within a branch Paddle would put the parameter there, and then neither save nor find it.
        places.set_insertion_point_to_block_end(self.p.static.default_main_program().global_block())
        made = self.p.static.create_parameter(list(stored.shape), stored.dtype.name, name=name, default_initializer=zero)
        places.set_insertion_point(here)
        made.stop_gradient = True
        return self.p.cast(made, "bool") if value.dtype == np.bool_ else made

    # -- nodes ----------------------------------------------------------------------------------------------------------

    def graph(self, graph: Any) -> None:
        """Every initializer and node of an ONNX graph; the values stand in `self.values` afterwards."""
        onnx = need("onnx")
        for tensor in graph.initializer:
            array = onnx.numpy_helper.to_array(tensor)
            self.values[tensor.name] = array
            self._names[id(array)] = tensor.name
        for proto in graph.node:
            self.node(Node(proto))

    def node(self, node: Node) -> None:
        """One node, by the table."""
        inputs = [self.values[name] if name else None for name in node.proto.input]
        result = self._folded(node, inputs)
        if result is None:
            result = self._called(node, inputs)
        results = result if isinstance(result, (tuple, list)) else (result,)
        for name, value in zip(node.outputs, results, strict=False):
            if name and value is not None:
                self.values[name] = value
                self._sign(value, name)

    def _called(self, node: Node, inputs: list[Any]) -> Any:
        function = table().get(node.op_type)
        if function is None or node.proto.domain not in ("", "ai.onnx"):
            raise node.cannot("there is no mapping for it")
        try:
            return function(self, node, *inputs)
        except (ValueError, TypeError, RuntimeError, IndexError, NotImplementedError, AttributeError) as err:
            lines = [line.strip() for line in str(err).splitlines() if line.strip()]
            raise node.cannot(f"Paddle refuses it: {type(err).__name__}: {(lines or ['no reason'])[-1]:.200}") from err

    def _folded(self, node: Node, inputs: list[Any]) -> tuple[Any, ...] | None:
        """The node's results, computed now by ONNX's reference implementation; None where that cannot be."""
        present = [value for value in inputs if value is not None]
        numeric = all(isinstance(value, np.ndarray) and (value.dtype != object or self.known(value)) for value in present)
        if not numeric or not present or node.op_type in _NEVER_FOLDED:
            return None
        arrays = [value.astype(np.int64) if value is not None and value.dtype == object else value for value in inputs]
        if sum(value.nbytes for value in arrays if value is not None) > _MOST_FOLDED_BYTES:
            return None
        return _reference(node, arrays, self.opset)

    def _sign(self, value: Any, name: str) -> None:
        """Write the ONNX name onto the operation that makes the value: the session shows its steps under these names."""
        if not isinstance(value, np.ndarray) and hasattr(value, "get_defining_op"):
            operation = value.get_defining_op()
            if operation is not None and operation.num_results() == 1 and operation.name() not in ("builtin.parameter", "pd_op.data"):
                operation.set_str_attr("struct_name", f"onnx:{name}")


def _objects(shape: Any) -> Any:
    if isinstance(shape, np.ndarray) or not isinstance(shape, (list, tuple)):
        return shape
    found = np.empty(len(shape), dtype=object)
    found[:] = list(shape)
    return found


def _reference(node: Node, arrays: Sequence[np.ndarray | None], opset: int) -> tuple[Any, ...] | None:
    onnx = need("onnx")
    reference = need("onnx.reference")
    feeds = {name: array for name, array in zip(node.proto.input, arrays, strict=True) if name and array is not None}
    value = onnx.helper.make_tensor_value_info
    inputs = [value(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape) for name, array in feeds.items()]
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in node.outputs if name]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node.proto], "one", inputs, outputs), opset_imports=[onnx.helper.make_opsetid("", opset)]
    )
    try:
        with np.errstate(all="ignore"):
            found = iter(reference.ReferenceEvaluator(model).run(None, feeds))
    except Exception:  # noqa: BLE001  no common base; what the reference cannot do is left to Paddle
        return None
    return tuple(np.asarray(next(found)) if name else None for name in node.outputs)
