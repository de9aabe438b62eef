"""What the caches of decoder graphs hold, and arrays that onnxruntime reads and writes where they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..need import need

#: onnxruntime's name for a type → the arrays that hold it. numpy has no 8-bit floats: bytes stand for them.
ARRAYS: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
    "tensor(float8e4m3fn)": np.uint8,
}
_FLOAT8E4M3FN = 17  # onnx.TensorProto


def shared(array: np.ndarray, kind: str) -> Any:
    """An OrtValue of type `kind` over the memory of a contiguous array."""
    values = need("onnxruntime").OrtValue
    if kind == "tensor(float8e4m3fn)":
        return values.ortvalue_from_numpy_with_onnx_type(array, _FLOAT8E4M3FN)
    return values.ortvalue_from_numpy(array)
