"""How ONNX's element types are held in torch tensors. What operators do with them is the rules'."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

#: ONNX type, as numpy and ml_dtypes name it → torch's. Types that torch lacks are held in the next one that holds every value:
#: 4- and 2-bit integers in bytes, the 4-bit float in float32.
HELD = {
    **{name: name for name in ("float32", "float64", "float16", "bfloat16", "int8", "int16", "int32", "int64", "bool")},
    **{name: name for name in ("uint8", "uint16", "uint32", "uint64", "complex64", "complex128")},
    **{name: name for name in ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")},
    "int4": "int8",
    "int2": "int8",
    "uint4": "uint8",
    "uint2": "uint8",
    "float4_e2m1fn": "float32",
}


def torch_name(dtype: str | None) -> str | None:
    """ "int4" → "int8": the name of the torch type that holds an ONNX type; None where there is none (strings) or it is unknown."""
    return HELD.get(dtype or "")


def dtype_text(dtype: str) -> str:
    """ "int64" → "torch.int64", as source text."""
    return f"torch.{HELD[dtype]}"


def tensor_of(array: np.ndarray) -> Any:
    """An array, also of ml_dtypes' types, as a torch.Tensor of the type that holds it. Shares the array's memory where
    the types agree: do not write into it."""
    import torch

    held = HELD[array.dtype.name]
    if array.dtype.name != held:
        array = array.astype(held)
    dtype = getattr(torch, held)
    if array.dtype.kind in "fiubc" and array.dtype.name == held and hasattr(np, held):
        return _shared(array).reshape(array.shape)
    plain = np.ascontiguousarray(array).view({1: np.uint8, 2: np.int16}[array.dtype.itemsize])
    return _shared(plain).view(dtype).reshape(array.shape)


def _shared(array: np.ndarray) -> Any:
    """A tensor on the array's own memory, which may be a map of a file: torch warns of writing there, and nothing here writes."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(np.ascontiguousarray(array))


def array_of(tensor: Any) -> np.ndarray:
    """Back: a torch.Tensor as an array of the same type (ml_dtypes' for those that numpy lacks)."""
    import ml_dtypes
    import torch

    name = str(tensor.dtype).removeprefix("torch.")
    if hasattr(np, name) or name == "bool":
        return tensor.detach().cpu().numpy()
    plain = tensor.detach().cpu().contiguous().view(torch.uint8 if tensor.element_size() == 1 else torch.int16).numpy()
    return plain.view(getattr(ml_dtypes, name))
