"""Builds an ONNX graph into a TensorRT-RTX engine, on a machine that needs no GPU. Running the engine is left to one that has one.

The network is strongly typed: precision is what the graph's own types and Q/DQ pairs say.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from ernie_cli.errors import InputError, UnsupportedError, UsageError
from ernie_cli.need import need

#: A profile: name of an axis → (shortest, best, longest) length. Axes have the names that the ONNX file gives them.
Profile = Mapping[str, tuple[int, int, int]]

#: How the decoder of graph/cache.py is built: one row, caches of 128 slots, a profile for prompts and one for single tokens.
DECODER = {"batch": 1, "slots": 128}
PREFILL_AND_DECODE: tuple[Profile, ...] = ({"sequence": (1, 64, 64)}, {"sequence": (1, 1, 1)})


@dataclass(frozen=True)
class Engine:
    """plan: the serialised engine. layers: of the network before TensorRT fused any. seconds: of parsing and of building."""

    plan: bytes
    layers: int
    parse_seconds: float
    build_seconds: float


def build(
    file: Path,
    fixed: Mapping[str, int] | None = None,
    profiles: Sequence[Profile] = (),
    *,
    capability: str = "8.9",
    effort: int = 0,
) -> Engine:
    """Build `file` for GPUs of one compute capability.

    fixed: name of an axis → its length. profiles: what the other named axes may be; each needs every one of them.
    effort: 0 (quickest) to 5, TensorRT's builder_optimization_level. Raises UnsupportedError with the parser's or the
    builder's own words, UsageError for an axis that neither `fixed` nor a profile knows, MissingError without the wheel.
    """
    trt = need("tensorrt_rtx_bindings")
    log = _log(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    start = time.perf_counter()
    parser = _parsed(trt, network, log, file, fixed or {})  # owns memory that the network points to
    parsed = time.perf_counter()
    config = builder.create_builder_config()
    config.builder_optimization_level = effort
    _target(trt, config, capability)
    for profile in profiles:
        config.add_optimization_profile(_profile(builder, network, profile))
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise UnsupportedError(f"{file}: TensorRT cannot build it: {log.errors[-1] if log.errors else 'it does not say why'}")
    del parser
    return Engine(bytes(plan), network.num_layers, parsed - start, time.perf_counter() - parsed)


def parse_problems(file: Path, fixed: Mapping[str, int] | None = None) -> list[str]:
    """What TensorRT's parser has against a graph, [] where it takes it. Builds nothing."""
    trt = need("tensorrt_rtx_bindings")
    log = _log(trt)
    network = trt.Builder(log).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    return [] if parser.parse(_with_lengths(file, fixed or {}), str(file)) else _problems(parser)


def _parsed(trt: Any, network: Any, log: Any, file: Path, fixed: Mapping[str, int]) -> Any:
    parser = trt.OnnxParser(network, log)
    if not parser.parse(_with_lengths(file, fixed), str(file)):
        raise UnsupportedError(f"{file}: TensorRT's parser refuses it: {'; '.join(_problems(parser))}")
    return parser


def _problems(parser: Any) -> list[str]:
    """Its errors, each with the node it stumbled over."""
    errors = [parser.get_error(number) for number in range(parser.num_errors)]
    return [f"{error.node_operator() or 'graph'} `{error.node_name()}`: {error.desc().strip()}" for error in errors]


def _with_lengths(file: Path, fixed: Mapping[str, int]) -> bytes:
    """The graph with named axes of its inputs and outputs at a length; weights beside it stay there."""
    try:
        model = onnx.load(file, load_external_data=False)
    except Exception as err:  # protobuf's errors and onnx's own share no base
        raise InputError(f"{file}: no ONNX file: {err}") from err
    for value in [*model.graph.input, *model.graph.output]:
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in fixed:
                axis.dim_value = fixed[axis.dim_param]
    return bytes(model.SerializeToString())


def _profile(builder: Any, network: Any, wanted: Profile) -> Any:
    profile = builder.create_optimization_profile()
    for number in range(network.num_inputs):
        tensor = network.get_input(number)
        if -1 in tensor.shape:
            lengths = [_range(tensor, axis, wanted) for axis in range(len(tensor.shape))]
            profile.set_shape(tensor.name, *zip(*lengths, strict=True))
    return profile


def _range(tensor: Any, axis: int, wanted: Profile) -> tuple[int, int, int]:
    length, name = tensor.shape[axis], tensor.get_dimension_name(axis)
    if length >= 0:
        return length, length, length
    if name not in wanted:
        raise UsageError(f"input `{tensor.name}`: nobody said how long its axis {axis} (`{name}`) is")
    return wanted[name]


def _target(trt: Any, config: Any, capability: str) -> None:
    name = "SM" + capability.replace(".", "")
    if not hasattr(trt.ComputeCapability, name):
        known = [each for each in dir(trt.ComputeCapability) if each.startswith("SM")]
        raise UnsupportedError(f"TensorRT-RTX builds nothing for compute capability {capability}", f"it knows {', '.join(known)}")
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, name), 0)


def _log(trt: Any) -> Any:
    """A logger that keeps errors, so that they can be part of ours, and prints nothing."""

    class Log(trt.ILogger):  # type: ignore[misc]  # the wheel has no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, text: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(text)

    return Log()
