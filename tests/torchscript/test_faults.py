"""What torch's exporter gets wrong or lacks is right in ours; what it gets right stays."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from ernie_cli.torchscript.faults import corrected


class Repeats(torch.nn.Module):
    def forward(self, x: Any, y: Any) -> Any:
        return x.view(x.shape[0], x.shape[1], -1, 4) * y.repeat_interleave(2, dim=-1)


class Squeezes(torch.nn.Module):
    def forward(self, x: Any, y: Any) -> Any:
        return x.unsqueeze(-1).unsqueeze(-1).squeeze((2, -1)) + x + y.mean() + x.unsqueeze(0).squeeze(0)


class Differs(torch.nn.Module):
    def forward(self, x: Any, y: Any) -> Any:
        ends = x.diff(prepend=x[:, :1], append=y.flatten(2)[:, :1, :1].expand(-1, -1, x.shape[2]), dim=1)
        return ends[:, 1:] + x.diff(append=x[..., :1]).diff(n=2, prepend=x[..., :2])


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("module", [Repeats(), Squeezes(), Differs()])
def test_exported_from_file_it_computes_the_same(module: torch.nn.Module, opset: int) -> None:
    feeds = (torch.rand(2, 5, 16), torch.rand(2, 5, 4, 2))
    if isinstance(module, Squeezes):
        feeds = (torch.rand(2, 5, 1), feeds[1])
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(module, feeds), file)
    file.seek(0)
    made = io.BytesIO()
    with corrected(opset):
        torch.onnx.export(torch.jit.load(file), feeds, made, dynamo=False, opset_version=opset, input_names=["x", "y"])
    session = onnxruntime.InferenceSession(made.getvalue())
    (got,) = session.run(None, {"x": feeds[0].numpy(), "y": feeds[1].numpy()})
    assert np.allclose(got, module(*feeds).numpy())
