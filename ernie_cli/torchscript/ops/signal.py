"""Signals: DFT, STFT, windows and the mel filter bank."""

import math

import torch
from torch import Tensor

from ..node import Node
from ..types import dtype_text
from . import Rule


def as_complex(x: Tensor) -> Tensor:
    """[…, 1] real or […, 2] → […] complex."""
    if x.size(-1) == 1:
        return torch.complex(x[..., 0], torch.zeros_like(x[..., 0]))
    return torch.view_as_complex(x.contiguous())


def dft(x: Tensor, length: Tensor | None, axis: int, inverse: bool, onesided: bool) -> Tensor:
    """x […, 1 or 2]; the last axis does not count. onesided: half of the spectrum from a real signal, or back. Half types are
    computed in float32."""
    wide = x if x.dtype == torch.float64 else x.to(torch.float32)
    on = axis + x.dim() if axis < 0 else axis
    size: int | None = None if length is None else int(length)
    if inverse and onesided:
        return torch.fft.irfft(as_complex(wide), size, on).unsqueeze(-1).to(x.dtype)
    if inverse:
        y = torch.fft.ifft(as_complex(wide), size, on)
    elif onesided and x.size(-1) == 1:
        y = torch.fft.rfft(wide[..., 0], size, on)
    else:
        y = torch.fft.fft(as_complex(wide), size, on)
        if onesided:
            y = y.narrow(on, 0, y.size(on) // 2 + 1)
    return torch.view_as_real(y).to(x.dtype)


def dft_along(x: Tensor, length: Tensor | None, axis: Tensor, inverse: bool, onesided: bool) -> Tensor:
    return dft(x, length, int(axis), inverse, onesided)


def stft(x: Tensor, step: Tensor, window: Tensor | None, length: Tensor | None, onesided: bool) -> Tensor:
    """x [B, T, 1 or 2] → [B, frames, bins, 2]. Only whole frames; the window is as long as they are."""
    wide = x if x.dtype == torch.float64 else x.to(torch.float32)
    size = int(length) if length is not None else (x.size(1) if window is None else window.size(0))
    frames = wide.unfold(1, size, int(step)).transpose(2, 3)
    if window is not None:
        frames = frames * window.to(wide.dtype).view(-1, 1)
    return dft(frames, None, 2, False, onesided).to(x.dtype)


def cosine_window(size: Tensor, periodic: bool, a: float, b: float, c: float, dtype: int) -> Tensor:
    """a - b cos(2πn / N) + c cos(4πn / N), with N = size, or size - 1 where not periodic."""
    n = int(size)
    angle = torch.arange(n, dtype=torch.float64, device=size.device) * (2 * math.pi / max(n if periodic else n - 1, 1))
    return (a - b * torch.cos(angle) + c * torch.cos(2 * angle)).to(dtype)


def mel_weights(bins: Tensor, length: Tensor, rate: Tensor, low: Tensor, high: Tensor, dtype: int) -> Tensor:
    """[length // 2 + 1, bins]: triangles between points that lie evenly on the mel scale, 2595 log10(1 + f / 700)."""
    n, size = int(bins), int(length)
    lowest = 2595.0 * math.log10(1.0 + float(low) / 700.0)
    highest = 2595.0 * math.log10(1.0 + float(high) / 700.0)
    weights = torch.zeros([size // 2 + 1, n], dtype=torch.float64)
    points: list[int] = []
    for i in range(n + 2):
        hertz = 700.0 * (math.pow(10.0, (lowest + i * (highest - lowest) / (n + 2)) / 2595.0) - 1.0)
        points.append(math.floor((size + 1) * hertz / int(rate)))
    for i in range(n):
        left, top, right = points[i], points[i + 1], points[i + 2]
        if left == top:
            weights[top, i] = 1.0
        for j in range(left, top + 1):
            if left < top:
                weights[j, i] = float(j - left) / float(top - left)
        for j in range(top, right):
            weights[j, i] = float(right - j) / float(right - top)
    return weights.to(dtype).to(bins.device)


def _dft(node: Node) -> str:
    inverse, onesided = bool(node.attr("inverse", 0)), bool(node.attr("onesided", 0))
    if node.opset < 20:
        return node.call(dft, node.x(0), node.x(1), node.attr("axis", 1), inverse, onesided)
    if node.has(2):
        return node.call(dft_along, node.x(0), node.x(1), node.x(2), inverse, onesided)
    return node.call(dft, node.x(0), node.x(1), -2, inverse, onesided)


def _type(node: Node) -> str:
    import onnx_ir as ir

    return dtype_text(str(ir.DataType(node.attr("output_datatype", 1)).numpy().name))


def _window(a: float, b: float, c: float) -> Rule:
    return lambda node: node.call(cosine_window, node.x(0), bool(node.attr("periodic", 1)), a, b, c, _type(node))


RULES: dict[str, Rule] = {
    "DFT": _dft,
    "STFT": lambda node: node.call(stft, *(node.x(i) for i in range(4)), bool(node.attr("onesided", 1))),
    "HannWindow": _window(0.5, 0.5, 0.0),
    "HammingWindow": _window(25 / 46, 21 / 46, 0.0),
    "BlackmanWindow": _window(0.42, 0.5, 0.08),
    "MelWeightMatrix": lambda node: node.call(mel_weights, *(node.x(i) for i in range(5)), _type(node)),
}
