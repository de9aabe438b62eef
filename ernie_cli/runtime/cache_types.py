"""What the caches of decoder graphs hold, and arrays that onnxruntime reads and writes where they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..need import need

#: onnxruntime's name for a type → the arrays that hold it. numpy has neither bfloat16 nor 8-bit floats: plain bits stand for them.
ARRAYS: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(bfloat16)": np.uint16,
    "tensor(int8)": np.int8,
    "tensor(float8e4m3fn)": np.uint8,
}
#: The standard's numbers of the types that numpy has not (onnx.TensorProto).
_NUMBERS = {"tensor(bfloat16)": 16, "tensor(float8e4m3fn)": 17}


def element(kind: str) -> Any:
    """What onnxruntime is told of the elements at an address: numpy's type, or the standard's number where numpy has none."""
    return _NUMBERS.get(kind) or ARRAYS[kind]


def shared(array: np.ndarray, kind: str) -> Any:
    """An OrtValue of type `kind` over the memory of a contiguous array."""
    values = need("onnxruntime").OrtValue
    if kind in _NUMBERS:
        return values.ortvalue_from_numpy_with_onnx_type(array, _NUMBERS[kind])
    return values.ortvalue_from_numpy(array)


def content(value: Any, kind: str) -> np.ndarray:
    """A copy of an OrtValue of type `kind`, wherever it lies, in main memory."""
    if kind not in _NUMBERS:
        return np.array(value.numpy())
    array = np.empty(value.shape(), ARRAYS[kind])
    shared(array, kind).update_inplace(value)  # `numpy()` refuses types that numpy has not
    return array
