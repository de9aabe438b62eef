"""TensorRT and TensorRT-RTX: engines that `ernie build` made, on an NVIDIA GPU, through cuda-python.

Decoders are tensorrt_decoder.py's, all else tensorrt_graph.py's. Which of the two libraries opens an engine is in its papers.
"""

from __future__ import annotations

from ..model import Model
from . import Session
from .graphs import GraphSession

FORMATS = ("engine",)


def open(model: Model, device: str = "auto", *, batch: int = 1, context: int | None = None, threads: int | None = None) -> Session:
    """Open a decoder's engine.

    device: auto, cuda or cuda:N. batch: rows, at most what it was built for. context: most tokens per row, None: what it was built
    for. threads: of no use here. Raises InputError for a damaged engine, MissingError where it cannot run on what is here, UsageError
    for more rows or tokens than it was built for, UnsupportedError for engines of other models, ResourceError out of memory.
    """
    from .tensorrt_decoder import open_decoder

    return open_decoder(model, device, batch=batch, context=context)


def open_graph(model: Model, device: str = "auto", *, threads: int | None = None, exact: bool = True) -> GraphSession:
    """Open an engine of any kind. Arguments and errors as of `open`; exact: an engine computes what it was built for."""
    from .tensorrt_graph import EngineGraph

    session: GraphSession = EngineGraph(model, device)
    return session
