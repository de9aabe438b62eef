"""From an ONNX file to the library's network, or a refusal that says all. Flags, targets and profiles are configure.py's.

Precision is the graph's: the network is strongly typed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf.message import EncodeError

from ..errors import ResourceError, UnsupportedError
from .child import LESS
from .proto import parsed, strongly_typed, with_lengths

#: More refusals than these are counted, not listed.
_SHOWN = 20
#: What to do about a model that TensorRT does not build.
OTHERWISE = "export the model without these; `ernie run` runs ONNX models as they are, with ONNX Runtime"


def network(trt: Any, builder: Any, log: Any, graph: Path, fixed: Mapping[str, int]) -> tuple[Any, Any]:
    """(network, parser) of an ONNX file; the parser owns memory that the network points to: keep it as long.

    fixed: name of an axis → its length. Raises UnsupportedError (4) with all that the parser refuses, InputError for no ONNX file.
    """
    made = builder.create_network(strongly_typed(trt))
    parser = trt.OnnxParser(made, log)
    try:
        content = with_lengths(graph, fixed).SerializeToString()
    except EncodeError as err:  # protobuf's word for having found no memory
        raise ResourceError(f"{graph}: there is not enough memory to hold it", LESS) from err
    if parsed(parser, content, graph):
        return made, parser
    from .refusals import refusals  # loads what knows shapes, which no other build needs

    found = refusals(trt, builder, log, graph, fixed)
    more = [f"… and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    what = f"{graph}: TensorRT's parser refuses it: {'; '.join([*found[:_SHOWN], *more])}"
    raise UnsupportedError(what, OTHERWISE)
