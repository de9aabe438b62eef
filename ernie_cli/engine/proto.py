"""An ONNX file as the library's parser is given it: axes at their lengths, a name for every node. What it makes of it is network.py's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..onnxgraph import proto, tensors
from .nodes import tell_apart


def with_lengths(graph: Path, fixed: Mapping[str, int]) -> Any:
    """The ModelProto in a file with named axes of its inputs and outputs at a length, and nodes of one name told apart.

    Weights beside it stay there. Raises InputError for no ONNX file, or one whose weights are not all there.
    """
    model = proto.parse(graph)
    tensors.check(model, graph)
    tell_apart(model)
    for value in [*model.graph.input, *model.graph.output]:
        set_lengths(value, fixed)
    return model


def set_lengths(value: Any, fixed: Mapping[str, int]) -> None:
    """Give the named axes of a ValueInfoProto their lengths."""
    for axis in value.type.tensor_type.shape.dim:
        if axis.dim_param in fixed:
            axis.dim_value = fixed[axis.dim_param]


def strongly_typed(trt: Any) -> int:
    """What create_network is to be told: 10.x must be asked for types as the graph says, later libraries know nothing else."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def parsed(parser: Any, content: bytes, graph: Path) -> bool:
    """Whether the parser takes `content`, which `graph` holds. It looks for weights from the folder of the path that it is given, and
    takes no path that is not UTF-8: so it gets a short one, in that folder."""
    here = os.getcwd()
    os.chdir(graph.parent)
    try:
        return bool(parser.parse(content, "model.onnx"))
    finally:
        os.chdir(here)
