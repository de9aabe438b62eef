"""torch's exporter writes the same file whether or not its shape inference is given the weights."""

from __future__ import annotations

import io
import warnings
from contextlib import nullcontext

import pytest
import torch

from ernie_cli.torchscript.light import without_weights


class Positions(torch.nn.Module):
    """Shapes and indices that are read off buffers, beside weights that are not."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(300, 48)
        self.project = torch.nn.Linear(48, 96)
        self.mix = torch.nn.Conv1d(8, 40, 3, padding=1)
        self.register_buffer("table", torch.arange(2048)[None])
        self.register_buffer("window", torch.tensor([-1, 8, 12]))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids) + self.embed(self.table[:, : ids.shape[1]])
        _, rows, columns = self.window.tolist()
        return self.mix(self.project(x).reshape(-1, rows, columns)).flatten(1)


class Branches(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = torch.nn.Linear(64, 64), torch.nn.LSTM(64, 32, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] > 3:
            return self.one(x).transpose(1, 2).reshape(x.shape[0], -1)
        return self.other(x)[0].reshape(x.shape[0], -1)


def exported(module: bytes, example: torch.Tensor, light: bool) -> bytes:
    """The ONNX file. `module` is read anew: the exporter leaves other names behind in one that it has had."""
    file = io.BytesIO()
    with warnings.catch_warnings(), without_weights() if light else nullcontext():
        warnings.simplefilter("ignore")
        axes = {"input_names": ["x"], "dynamic_axes": {"x": {0: "batch", 1: "length"}}}
        torch.onnx.export(torch.jit.load(io.BytesIO(module)), (example,), file, dynamo=False, opset_version=17, **axes)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["traced", "scripted"])
def test_the_file_is_the_same_byte_for_byte(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module: torch.nn.Module = (Positions() if kind == "traced" else Branches()).eval()
    example = torch.arange(32).reshape(2, 16) if kind == "traced" else torch.randn(2, 5, 64)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.jit.trace(module, (example,)) if kind == "traced" else torch.jit.script(module)
    saved = made.save_to_buffer()
    whole = exported(saved, example, light=False)
    assert exported(saved, example, light=True) == whole

    largest: list[int] = []
    infer = torch._C._jit_pass_onnx_graph_shape_type_inference

    def watched(graph, values, number):
        largest.append(max((each.numel() for each in values.values() if each.is_floating_point()), default=0))
        return infer(graph, values, number)

    monkeypatch.setattr(torch._C, "_jit_pass_onnx_graph_shape_type_inference", watched)
    exported(saved, example, light=True)
    assert largest and max(largest) <= 1024
    assert torch._C._jit_pass_onnx_graph_shape_type_inference is watched, "what was there is there again"
