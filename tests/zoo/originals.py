"""The originals: build an architecture in its own library, save it in that library's format, run it there. Nothing of ernie."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from architecture import Architecture
from plausible import gain, statistics, stir

#: Feeds of this seed calibrate and trace a model; checks draw others.
SEED = 1


def build(one: Architecture) -> Any:
    """The eager module, seeded, in inference mode, its weights plausible."""
    seed = zlib.crc32(one.name.encode()) % 2**31
    return (_build_paddle if one.library == "paddle" else _build_torch)(one, seed)


def save(one: Architecture, module: Any, folder: Path) -> Path:
    """Write the model as its library does: model.json + model.pdiparams, or model.pt. Returns what `ernie convert` takes."""
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return (_save_paddle if one.library == "paddle" else _save_torch)(one, module, folder)


def run(one: Architecture, module: Any, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The eager module's outputs."""
    if one.library == "paddle":
        import paddle

        with paddle.no_grad():
            out = module(*(paddle.to_tensor(array) for array in feeds.values()))
    else:
        import torch

        with torch.inference_mode():
            out = module(*(torch.from_numpy(array) for array in feeds.values()))
    return [each.numpy() for each in (out if isinstance(out, tuple | list) else (out,))]


def _build_paddle(one: Architecture, seed: int) -> Any:
    import paddle

    paddle.seed(seed)
    rng = np.random.default_rng(seed)
    module = one.build()
    module.eval()
    for parameter in module.parameters():
        parameter.set_value(stir(parameter.numpy(), rng))
    layers = module.sublayers()
    norms = [layer for layer in layers if isinstance(layer, paddle.nn.layer.norm._BatchNormBase | paddle.nn.BatchNorm)]
    normalised = norms or any(isinstance(layer, paddle.nn.LayerNorm) for layer in layers)
    convolves = any(isinstance(layer, paddle.nn.Conv2D) for layer in layers)
    plain = [each for each in layers if convolves and not normalised and isinstance(each, paddle.nn.Conv2D | paddle.nn.Linear)]

    def put(layer: Any, mean: np.ndarray, variance: np.ndarray) -> None:
        layer._mean.set_value(mean)
        layer._variance.set_value(variance)

    def scale(layer: Any, taken: Any, out: Any) -> Any:
        factor = gain(out.numpy())
        for parameter in layer.parameters():
            parameter.set_value(parameter * factor)
        return out * factor

    hooks = [layer.register_forward_post_hook(scale) for layer in plain]
    with _calibrating(norms, put, rng):
        run(one, module, one.feeds(SEED))
    for each in hooks:
        each.remove()
    return module


def _build_torch(one: Architecture, seed: int) -> Any:
    import torch

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    module = one.build().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.from_numpy(stir(parameter.numpy(), rng)))
    norms = [layer for layer in module.modules() if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)]

    def put(layer: Any, mean: np.ndarray, variance: np.ndarray) -> None:
        layer.running_mean.copy_(torch.from_numpy(mean))
        layer.running_var.copy_(torch.from_numpy(variance))

    with _calibrating(norms, put, rng):
        run(one, module, one.feeds(SEED))
    return module


@contextmanager
def _calibrating(norms: list[Any], put: Any, rng: np.random.Generator) -> Iterator[None]:
    """While it lasts, every BatchNorm takes its statistics from what reaches it."""

    def hook(layer: Any, taken: Any) -> None:
        put(layer, *statistics(taken[0].numpy(), rng))

    hooks = [layer.register_forward_pre_hook(hook) for layer in norms]
    yield
    for each in hooks:
        each.remove()


def _save_paddle(one: Architecture, module: Any, folder: Path) -> Path:
    import paddle

    specs = [
        paddle.static.InputSpec([None if isinstance(axis, str) else axis for axis in each.shape], each.dtype, each.name)
        for each in one.inputs
    ]
    paddle.jit.save(module, str(folder / "model"), input_spec=specs)
    return folder / "model.json"


def _save_torch(one: Architecture, module: Any, folder: Path) -> Path:
    import torch

    if one.scripted:
        program = torch.jit.script(module)
    else:
        with torch.no_grad():
            example = tuple(torch.from_numpy(array) for array in one.feeds(SEED).values())
            program = torch.jit.trace(module, example, check_trace=False)
    program.save(str(folder / "model.pt"))
    return folder / "model.pt"
