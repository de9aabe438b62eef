"""Puts the weights of an ONNX file into a plan that was built to take them: the library's part of refit.py. Needs a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InputError, UnsupportedError

_SHOWN = 5


def refitted(trt: Any, log: Any, plan: bytes, graph: Path) -> Any:
    """The plan with its weights, as a buffer. It takes other weights later, as before.

    Raises UnsupportedError where the library does not open it or the graph's weights do not fit, InputError where some are missing.
    """
    engine = trt.Runtime(log).deserialize_cuda_engine(plan)
    if engine is None:
        raise UnsupportedError(f"the library does not open the plan: {_last(log)}")
    refitter = trt.Refitter(engine, log)
    parser = trt.OnnxParserRefitter(refitter, log)
    if not parser.refit_from_file(str(graph)):
        said = [f"`{error.node_name()}`: {error.desc().strip()}" for error in map(parser.get_error, range(parser.num_errors))]
        raise UnsupportedError(f"{graph}: not the graph that the engine was built from: {'; '.join(said[:_SHOWN]) or _last(log)}")
    if missing := refitter.get_missing_weights():
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise InputError(f"{graph}: it lacks weights that the engine needs: {', '.join(missing[:_SHOWN])}{more}")
    if not refitter.refit_cuda_engine():
        raise UnsupportedError(f"{graph}: its weights do not go into the engine: {_last(log)}")
    how = engine.create_serialization_config()
    how.clear_flag(trt.SerializationFlag.EXCLUDE_WEIGHTS)
    if hasattr(trt.SerializationFlag, "INCLUDE_REFIT"):  # since 10.9
        how.set_flag(trt.SerializationFlag.INCLUDE_REFIT)
    return engine.serialize_with_config(how)


def _last(log: Any) -> str:
    return log.errors[-1] if log.errors else "it does not say why"
