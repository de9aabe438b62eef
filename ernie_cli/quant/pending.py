"""Weights that are made only when they are written: codes and scale come from one call, made once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .codes import Codes

_KEY = "ernie.pending"


@dataclass(eq=False)
class Pending:
    """layer: its name. codes, scale: the two initializers. make: gives what they hold. siblings: all that come of one weight."""

    layer: str
    codes: ir.Value
    scale: ir.Value
    make: Callable[[], Codes]
    siblings: Sequence[Pending] = ()

    @classmethod
    def put(
        cls, graph: ir.Graph, layer: str, codes: ir.Value, scale: ir.Value, make: Callable[[], Codes], siblings: Sequence[Pending] = ()
    ) -> Pending:
        """Register both values as initializers of `graph`. Until write.py fills them, reading one computes it."""
        pending = cls(layer, codes, scale, make, siblings)
        codes.const_value = ir.LazyTensor(lambda: pending.tensor(codes), codes.dtype, codes.shape, name=codes.name)  # type: ignore[arg-type]
        scale.const_value = ir.LazyTensor(lambda: pending.tensor(scale), scale.dtype, scale.shape, name=scale.name)  # type: ignore[arg-type]
        for value in (codes, scale):
            value.meta[_KEY] = pending
            graph.register_initializer(value)
        return pending

    def tensor(self, value: ir.Value) -> ir.TensorProtocol:
        """What one of the two holds, computed now. For readers that do not write: write.py takes both at once."""
        made = self.make()
        return self.tensors(made)[value is self.scale]

    def tensors(self, made: Codes) -> tuple[ir.TensorProtocol, ir.TensorProtocol]:
        """Codes and scale as tensors of the types that the graph says."""
        assert self.scale.dtype is not None
        scale = np.ascontiguousarray(made.scale.astype(self.scale.dtype.numpy(), copy=False))
        return ir.tensor(np.ascontiguousarray(made.codes), name=self.codes.name), ir.tensor(scale, name=self.scale.name)


def of(value: ir.Value) -> Pending | None:
    """The pending pair that an initializer belongs to."""
    found = value.meta.get(_KEY)
    return found if isinstance(found, Pending) else None
