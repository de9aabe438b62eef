"""What the builder is told beside the network: flags, memory, the GPUs it builds for, profiles, the cache of timings.

Which library lacks what was checked before (library.py): here every option of a request is set.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InputError, UnsupportedError, UsageError
from ..staging import write_file
from .request import Request
from .shapes import Profile

#: Field of a request → the builder's flag.
FLAGS = {
    "refit": "REFIT",
    "strip_weights": "STRIP_PLAN",
    "weight_streaming": "WEIGHT_STREAMING",
    "version_compatible": "VERSION_COMPATIBLE",
}
_HARDWARE = {"ampere-plus": "AMPERE_PLUS", "same-capability": "SAME_COMPUTE_CAPABILITY"}


def configured(trt: Any, builder: Any, network: Any, request: Request) -> Any:
    """A builder's configuration for `network`. Raises UsageError for a profile that does not fit it, InputError for a broken cache."""
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # so that the log says what became of each node
    if hasattr(trt.BuilderFlag, "MONITOR_MEMORY"):
        config.set_flag(trt.BuilderFlag.MONITOR_MEMORY)  # and how much memory it took
    if request.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace)
    if request.effort is not None:
        config.builder_optimization_level = request.effort
    for flag in flags(request):
        config.set_flag(getattr(trt.BuilderFlag, flag))
    config.clear_flag(trt.BuilderFlag.TF32)  # it keeps 10 bits of float32's 23, and precision is the graph's
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION") and _keeps_a_cache(network):
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)  # else TensorRT-RTX lets no CUDA graph capture its steps
    if request.hardware_compatible:
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, _HARDWARE[request.hardware_compatible])
    _target(trt, config, request.capabilities if request.library == "tensorrt-rtx" else ())
    free = [each.name for each in map(network.get_input, range(network.num_inputs)) if -1 in each.shape]
    if free and not request.profiles:
        raise UsageError(f"nobody said how large the input `{free[0]}` is", f"--shape {free[0]}:min,opt,max")
    for profile in request.profiles:
        if config.add_optimization_profile(_profile(builder, network, profile)) < 0:
            raise UsageError(f"profile {profile.name}: the library does not take its shapes", "each --shape is name:min,opt,max, growing")
    if request.timing_cache:
        _cached(config, Path(request.timing_cache))
    return config


def _keeps_a_cache(network: Any) -> bool:
    """Whether it is a decoder of graph/cache.py's static kind."""
    return any(network.get_input(number).name.startswith("cache.") for number in range(network.num_inputs))


def flags(request: Request) -> tuple[str, ...]:
    """Names of the builder's flags that a request sets."""
    return tuple(flag for field, flag in FLAGS.items() if getattr(request, field))


def keep_timings(config: Any, request: Request) -> None:
    """Write what was timed to the file that the request names, whole or not at all."""
    cache = config.get_timing_cache() if request.timing_cache else None
    if cache is not None:
        write_file(Path(str(request.timing_cache)), bytes(cache.serialize()))


def _target(trt: Any, config: Any, capabilities: tuple[str, ...]) -> None:
    """None given: every GPU that the library compiles for."""
    known = [each for each in dir(trt.ComputeCapability) if each.startswith("SM")] if capabilities else []
    names = ["SM" + each.replace(".", "") for each in capabilities]
    if lacking := [each for each in names if each not in known]:
        raise UnsupportedError(f"the library builds nothing for {', '.join(lacking)}", f"it knows {', '.join(known)}")
    if names:
        config.num_compute_capabilities = len(names)
    for index, name in enumerate(names):
        config.set_compute_capability(getattr(trt.ComputeCapability, name), index)


def _profile(builder: Any, network: Any, wanted: Profile) -> Any:
    profile = builder.create_optimization_profile()
    inputs = {tensor.name: tensor for tensor in map(network.get_input, range(network.num_inputs))}
    for name, shapes in wanted.shapes.items():
        if name not in inputs:
            raise UsageError(f"profile {wanted.name}: there is no input `{name}`", f"the inputs are {', '.join(inputs)}")
        own = tuple(inputs[name].shape)
        if not all(_fits(shape, own) for shape in shapes):
            raise UsageError(f"profile {wanted.name}: {shapes} do not fit `{name}`, which is {own}", f"--shape {name}:min,opt,max")
        profile.set_shape(name, *shapes)
    unknown = [name for name, tensor in inputs.items() if -1 in tensor.shape and name not in wanted.shapes]
    if unknown:
        raise UsageError(f"profile {wanted.name}: nobody said how large `{unknown[0]}` is", f"--shape {unknown[0]}:min,opt,max")
    return profile


def _fits(shape: tuple[int, ...], own: tuple[int, ...]) -> bool:
    return len(shape) == len(own) and all(axis in (-1, length) for axis, length in zip(own, shape, strict=True))


def _cached(config: Any, file: Path) -> None:
    try:
        known = file.read_bytes() if file.exists() else b""
        cache = config.create_timing_cache(known)
        taken = config.set_timing_cache(cache, ignore_mismatch=False)
    except (OSError, RuntimeError, ValueError, TypeError) as err:
        raise InputError(f"{file}: no timing cache: {err}", "remove the file: it is made again") from err
    if not taken:
        raise InputError(f"{file}: a timing cache of another version or GPU", "remove the file, or name another")
