"""numpy ↔ torch, and nested results ↔ named arrays. Knows no module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..need import need

#: torch types that numpy has through ml_dtypes alone → the integer type of the same width, whose bytes pass between them.
_VIEWS = {"bfloat16": "int16", "float8_e4m3fn": "uint8", "float8_e5m2": "uint8"}


def to_tensor(array: np.ndarray, device: str = "cpu") -> Any:
    """A torch tensor that owns its memory: operators may write into their inputs. bfloat16 is ml_dtypes'."""
    torch = need("torch")
    array = np.ascontiguousarray(array).reshape(array.shape)  # ascontiguousarray makes vectors of scalars
    name = array.dtype.name
    if name in _VIEWS:
        return torch.from_numpy(array.view(_VIEWS[name]).copy()).view(getattr(torch, name)).to(device)
    return torch.from_numpy(array.copy()).to(device)


def to_array(tensor: Any) -> np.ndarray:
    """The numpy array of a tensor on any device; quantized ones are dequantized, sparse ones filled in."""
    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout != need("torch").strided:
        tensor = tensor.to_dense()
    tensor = tensor.cpu().resolve_conj().resolve_neg().contiguous()
    name = str(tensor.dtype).removeprefix("torch.")
    if name in _VIEWS:
        import ml_dtypes

        return np.asarray(tensor.view(getattr(need("torch"), _VIEWS[name])).numpy().view(getattr(ml_dtypes, name)))
    return np.asarray(tensor.numpy())


def flatten(value: Any, name: str = "output") -> Iterator[tuple[str, Any]]:
    """(name, tensor) of every tensor in a result: `output`, `output.0`, `output.key`, `output.0.key`. None is left out, and
    numbers become scalar tensors."""
    torch = need("torch")
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, bool | int | float):
        yield name, torch.tensor(value)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from flatten(part, f"{name}.{key}")
    elif isinstance(value, tuple | list):
        fields = getattr(value, "_fields", range(len(value)))
        for key, part in zip(fields, value, strict=True):
            yield from flatten(part, f"{name}.{key}")
