"""Models written here on torch.nn: recurrent ones, and scripted modules whose control flow must survive a conversion."""

from __future__ import annotations

from typing import Any

from architecture import Architecture, Input, between, image, normal


def _recurrent(kind: str) -> Any:
    """Two bidirectional layers; the whole sequence, the last states and a class per text come out."""
    import torch

    class Recurrent(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = getattr(torch.nn, kind)(24, 48, num_layers=2, bidirectional=True, batch_first=True)
            self.head = torch.nn.Linear(96, 5)

        def forward(self, features: torch.Tensor) -> Any:
            x, last = self.rnn(features)
            return x, self.head(x.mean(1)), last[0] if kind == "LSTM" else last

    return Recurrent()


def _looping() -> Any:
    """`while` until the values are small, and a branch on what came out: traced, both would be frozen."""
    import torch
    from torch import Tensor

    class Looping(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shrink, self.small, self.large = torch.nn.Linear(16, 16), torch.nn.Linear(16, 4), torch.nn.Linear(16, 4)
            with torch.no_grad():
                self.shrink.weight.mul_(0.5)

        def forward(self, features: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
            x = features
            steps = torch.zeros(1, dtype=torch.int64)
            for _ in range(6):
                if bool(x.abs().amax() > 0.5):
                    x = torch.tanh(self.shrink(x))
                    steps = steps + 1
            if bool(gate.sum() > 0):  # noqa: SIM108 — a statement, to become an If
                y = self.small(x) * gate
            else:
                y = self.large(x) - gate
            return y, steps

    return Looping()


def _dense() -> Any:
    """A plain convolutional net, scripted: nothing in it needs scripting."""
    from torch import nn

    def block(into: int, out: int) -> Any:
        return nn.Sequential(nn.Conv2d(into, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.SiLU(), nn.MaxPool2d(2))

    return nn.Sequential(
        block(3, 16), block(16, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(32, 10), nn.LogSoftmax(-1)
    )


FEATURES = Input("features", "float32", ("batch", "length", 24), normal)
# Sequential's forward calls its parameter `input`.
PICTURE = (image(32, name="input"),)
LOOPING = (
    Input("features", "float32", ("batch", 16), between(-3, 3)),
    Input("gate", "float32", ("batch", 4), normal),
)

ARCHITECTURES = (
    Architecture("torch_lstm", "torch", lambda: _recurrent("LSTM"), (FEATURES,)),
    Architecture("torch_gru", "torch", lambda: _recurrent("GRU"), (FEATURES,)),
    Architecture("scripted_cnn", "torch", _dense, PICTURE, scripted=True),
    Architecture("scripted_loop", "torch", _looping, LOOPING, scripted=True),
)
