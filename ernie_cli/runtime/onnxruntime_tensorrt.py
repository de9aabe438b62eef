"""ONNX Runtime with TensorRT's provider before CUDA's: what TensorRT takes of a graph becomes engines while it is opened.

Never chosen by itself: building takes from seconds to minutes and nothing is kept. `ernie build` makes engines that last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import UsageError
from ..model import Model
from . import Session, onnxruntime

if TYPE_CHECKING:
    from .graphs import GraphSession

FORMATS = ("onnx",)
ONLY_ASKED = True


def open(model: Model, device: str = "auto", *, batch: int = 1, context: int | None = None, threads: int | None = None) -> Session:
    """As onnxruntime.open; raises MissingError also where this onnxruntime has no TensorRT provider, or no GPU is here."""
    return onnxruntime.open(model, _named(device), batch=batch, context=context, threads=threads, tensorrt=True)


def open_graph(model: Model, device: str = "auto", *, threads: int | None = None, exact: bool = True) -> GraphSession:
    """As onnxruntime.open_graph, and as `open`."""
    return onnxruntime.open_graph(model, _named(device), threads=threads, exact=exact, tensorrt=True)


def _named(device: str) -> str:
    """Who asks for TensorRT asks for a GPU: there is no falling back. Raises UsageError where a CPU is asked for."""
    if device == "cpu":
        raise UsageError("TensorRT runs on NVIDIA GPUs alone", "--backend onnxruntime --device cpu")
    return "cuda" if device == "auto" else device
