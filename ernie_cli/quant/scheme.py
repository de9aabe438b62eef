"""What a quantisation scheme is. One file per scheme in schemes/, each with a `SCHEME`; the file's name is the scheme's."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from dataclasses import dataclass

from ..errors import UsageError

#: Type of codes → (largest code, lowest opset whose Q/DQ takes it). ONNX operator tables of QuantizeLinear 19, 21.
TYPES: dict[str, tuple[float, int]] = {"int8": (127.0, 19), "int4": (7.0, 21), "fp8": (448.0, 19)}


@dataclass(frozen=True)
class WeightFormat:
    """type: of TYPES. block: weights along the summed axis that share a scale; 0: a scale per output channel."""

    type: str
    block: int = 0


@dataclass(frozen=True)
class Scheme:
    """name: as typed. says: one line for people. weight, activation, cache: what becomes narrow; "" or None: what stays.

    operators: node types whose weights it takes. activation ("int8", "fp8", ""): per tensor, static, so it needs data.
    cache ("int8", "fp8", ""): keys and values of earlier tokens.
    """

    name: str
    says: str
    weight: WeightFormat | None
    activation: str = ""
    cache: str = ""
    operators: tuple[str, ...] = ("MatMul", "Gemm")

    @property
    def needs_data(self) -> bool:
        """Whether scales of activations must be measured on data."""
        return bool(self.activation or self.cache)


def schemes() -> dict[str, Scheme]:
    """Every scheme on disk by name."""
    from . import schemes as room

    modules = (importlib.import_module(f"{room.__name__}.{found.name}") for found in pkgutil.iter_modules(room.__path__))
    found = [module.SCHEME for module in modules]
    return {scheme.name: scheme for scheme in found}


def find(name: str) -> Scheme:
    """The scheme of that name. Raises UsageError with the nearest one."""
    known = schemes()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, 1)
    raise UsageError(f"no scheme named `{name}`", f"did you mean `{near[0]}`?" if near else f"there are {', '.join(sorted(known))}")
