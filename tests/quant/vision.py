"""Small vision models as plain ONNX folders, and the pictures they tell apart. Seeded, no network, a few seconds each.

`make(name, folder)`: "resnet", "mobilenet", "vit" (32 × 32 pixels), trained for half a hundred steps, so that top-1 means something and
channels differ as in a real model; "resnet50": full size (224 × 224) for the benchmark, with only its statistics and its head fitted.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ernie_cli.model import Model

CLASSES = 10
INPUT, OUTPUT = "pixel_values", "logits"


@dataclass(frozen=True)
class Net:
    """side: pixels of its square pictures. build: the torch module. steps of training at this rate; 0: statistics and head only."""

    side: int
    build: Callable[[], Any]
    steps: int
    rate: float = 0.0
    samples: int = 480


def images(count: int, seed: int, side: int = 32) -> np.ndarray:
    """float32 [count, 3, side, side], about −2 … 2: those of `pictures`, without their classes."""
    return pictures(count, seed, side)[0]


def pictures(count: int, seed: int, side: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and what they show, int64 [count] of 0 … 9: a grating in one of four directions, or rings, in one of two colours; any
    phase, width, contrast and brightness, with a bright disc and some noise on top."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, CLASSES, count)
    across, down = np.meshgrid(*[np.linspace(-1, 1, side, dtype=np.float32)] * 2)
    shown = [_picture(rng, int(kind), across, down).astype(np.float32) for kind in kinds]
    return np.stack(shown), kinds


def _picture(rng: np.random.Generator, kind: int, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    direction, warm = kind % 5, kind // 5
    angle, (x, y) = np.pi * direction / 4, rng.uniform(-0.4, 0.4, 2)
    along = across * np.cos(angle) + down * np.sin(angle) if direction < 4 else np.hypot(across - x, down - y) * 1.5
    wave = np.sin(along * rng.uniform(9, 14) + rng.uniform(0, 2 * np.pi)) * rng.uniform(0.5, 1.2)
    colour = np.array([1.0, 0.3, -0.4] if warm else [-0.4, 0.3, 1.0]) + rng.normal(0, 0.15, 3)
    disc = np.hypot(across - rng.uniform(-0.8, 0.8), down - rng.uniform(-0.8, 0.8)) < rng.uniform(0.05, 0.3)
    plain = rng.normal(0, 0.4, (3, 1, 1)) + 1.5 * disc * rng.uniform(0, 1)
    return np.asarray(wave * colour[:, None, None] + plain + rng.normal(0, 0.08, (3, *across.shape)))


def make(name: str, folder: Path, *, seed: int = 0, fold: bool = True) -> Model:
    """Write the model `name` into `folder` as model.onnx. Input pixel_values [batch, 3, side, side], output logits [batch, 10].

    fold: batch normalisation is inside the convolutions, as exporters leave it; False: it has nodes of its own.
    """
    import torch

    net = NETS[name]
    folder.mkdir(parents=True, exist_ok=True)
    with _one_thread():
        torch.manual_seed(seed)
        module = net.build()
        shown, kinds = pictures(net.samples, seed + 1000, net.side)
        (_train if net.steps else _fit)(module, torch.from_numpy(shown), torch.from_numpy(kinds), net)
        _export(module.eval(), torch.zeros(2, 3, net.side, net.side), folder / "model.onnx", fold)
    return Model.open(folder)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order: the same weights everywhere, and no fight for cores
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _train(module: Any, shown: Any, kinds: Any, net: Net) -> None:
    import torch

    optimizer = torch.optim.AdamW(module.parameters(), lr=net.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, net.rate, total_steps=net.steps)
    module.train()
    for step in range(net.steps):
        batch = torch.arange(step * 32, step * 32 + 32) % len(shown)
        loss: Any = torch.nn.functional.cross_entropy(module(shown[batch]), kinds[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _fit(module: Any, shown: Any, kinds: Any, net: Net) -> None:
    """Gains and biases that differ by channel, residual branches that add a little to what goes by, as training leaves them; statistics
    from the pictures; a head by least squares."""
    import torch

    norms = [part for part in module.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    head = [part for part in module.modules() if isinstance(part, torch.nn.Linear)][-1]
    seen: list[Any] = []
    with torch.no_grad():
        for norm in norms:
            norm.weight.mul_(torch.exp(0.5 * torch.randn_like(norm.weight)))
            norm.bias.add_(0.2 * torch.randn_like(norm.bias))
            norm.momentum = None  # the plain mean over all batches
        for block in (part for part in module.modules() if type(part).__name__ == "ResNetBottleNeckLayer"):
            block.layer[-1].normalization.weight.mul_(0.3)
        module.train()
        for batch in shown.split(20):
            module(batch)
        module.eval()
        watch = head.register_forward_hook(lambda _module, given, _result: seen.append(given[0]))
        for batch in shown.split(20):
            module(batch)
        watch.remove()
        _solve(head, torch.cat(seen).double(), kinds)


def _solve(head: Any, features: Any, kinds: Any) -> None:
    """Ridge regression on the classes, times 8 so that logits are as far apart as a trained head's."""
    import torch

    middle = features.mean(0)
    centred = features - middle
    wanted = torch.nn.functional.one_hot(kinds, CLASSES).double() - 1 / CLASSES
    ridge = 1e-1 * centred.square().sum() / centred.shape[1] * torch.eye(centred.shape[1], dtype=torch.float64)
    weight = 8 * torch.linalg.solve(centred.T @ centred + ridge, centred.T @ wanted).T
    head.weight.copy_(weight)
    head.bias.copy_(-weight @ middle)


def _transformers(kind: str, **changes: Any) -> Any:
    import torch
    import transformers

    config = getattr(transformers, f"{kind}Config")(num_labels=CLASSES, attn_implementation="eager", **changes)

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = getattr(transformers, f"{kind}ForImageClassification")(config)

        def forward(self, pixel_values: Any) -> Any:
            return self.model(pixel_values=pixel_values).logits

    return Plain()


def _mobilenet() -> Any:
    """MobileNetV2's stem, six of its blocks (expand, depthwise, project; ReLU6; residuals) and head: transformers' has no fewer than 17."""
    import torch
    from torch import nn

    def convolution(inside: int, outside: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
        return [nn.Conv2d(inside, outside, size, stride, size // 2, groups=groups, bias=False), nn.BatchNorm2d(outside)]

    class Block(nn.Module):
        def __init__(self, inside: int, outside: int, stride: int) -> None:
            super().__init__()
            wide = 4 * inside
            expand, depthwise = convolution(inside, wide, 1), convolution(wide, wide, 3, stride, wide)
            self.parts = nn.Sequential(*expand, nn.ReLU6(), *depthwise, nn.ReLU6(), *convolution(wide, outside, 1))
            self.residual = stride == 1 and inside == outside

        def forward(self, x: Any) -> Any:
            return x + self.parts(x) if self.residual else self.parts(x)

    widths = [(16, 24, 2), (24, 24, 1), (24, 32, 2), (32, 32, 1), (32, 48, 1), (48, 48, 1)]
    blocks = [Block(*width) for width in widths]
    last = [*convolution(48, 128, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, CLASSES)]
    model = nn.Sequential(*convolution(3, 16, 3, 2), nn.ReLU6(), *blocks, *last)
    assert isinstance(model, torch.nn.Module)
    return model


def _export(module: Any, example: Any, file: Path, fold: bool) -> None:
    import torch

    mode = torch.onnx.TrainingMode
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this exporter is the old one: it is the one that makes plain graphs
        torch.onnx.export(
            module,
            (example,),
            str(file),
            dynamo=False,
            opset_version=17,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
            training=mode.EVAL if fold else mode.PRESERVE,
        )


_SMALL_RESNET: dict[str, Any] = {"embedding_size": 24, "hidden_sizes": [32, 64, 96], "depths": [2, 1, 1], "layer_type": "basic"}
_SMALL_VIT = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 192,
    "initializer_range": 0.04,
}
NETS = {
    "resnet": Net(32, lambda: _transformers("ResNet", **_SMALL_RESNET), 50, 1e-2),
    "mobilenet": Net(32, _mobilenet, 45, 1e-2),
    "vit": Net(32, lambda: _transformers("ViT", **_SMALL_VIT), 45, 2e-3),
    "resnet50": Net(224, lambda: _transformers("ResNet"), 0, samples=40),
}
