"""What a conversion is said to take on disk, against what lies there when most does: just before anything is removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from ernie_cli import nano, route
from ernie_cli.checkpoint.carry import PAPERS_BYTES

#: Wide enough that weights are all that counts: 34 MB.
WIDE = 2048


class Tied(nn.Module):
    """A weight that is looked up in and, turned, multiplied with: ONNX holds it twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(WIDE, WIDE), nn.Linear(WIDE, WIDE, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(ids))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in each format."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(WIDE, WIDE), nn.ReLU(), nn.Linear(WIDE, WIDE))
    torch.jit.trace(plain, torch.zeros(1, WIDE)).save(folder / "plain.pt")
    torch.jit.trace(Tied(), torch.zeros(1, 3, dtype=torch.int64)).save(folder / "tied.pt")
    inputs = (f"input:float32:batchx{WIDE}",)
    options = route.Options(verify=False, input_specs=inputs)
    route.convert(folder / "plain.pt", to="onnx", out=folder / "onnx", options=options)
    route.convert(folder / "onnx", to="pdmodel", out=folder / "pdmodel", options=route.Options(verify=False))
    return folder


@pytest.mark.parametrize(
    ("source", "to", "inputs"),
    [
        ("plain.pt", "onnx", f"input:float32:batchx{WIDE}"),
        ("tied.pt", "onnx", "ids:int64:batchxlength"),
        ("onnx", "torchscript", ""),
        ("onnx", "pdmodel", ""),
        ("pdmodel", "onnx", ""),
        ("pdmodel", "torchscript", ""),
        ("plain.pt", "pdmodel", f"input:float32:batchx{WIDE}"),
    ],
)
def test_what_is_foreseen_of_graphs_is_what_is_taken(source, to, inputs, models, tmp_path, peak):
    options = route.Options(input_specs=(inputs,) if inputs else ())
    todo = route.plan(models / source, to=to, out=tmp_path / "out", options=options)
    route.run(todo)
    print(f"{source} → {to}: {todo.bytes_needed / 1e6:.1f} MB foreseen, {peak() / 1e6:.1f} MB taken")
    assert peak() <= todo.bytes_needed <= 1.2 * peak() + PAPERS_BYTES
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("to", ["onnx", "paddle", "torchscript", "pdmodel"])
def test_what_is_foreseen_of_a_checkpoint_is_what_is_taken(to, tmp_path, peak):
    """The model inside the package, whose tokenizer goes with it."""
    todo = route.plan(nano.path(), to=to, out=tmp_path / "out", options=route.Options())
    route.run(todo)
    print(f"hf → {to}: {todo.bytes_needed / 1e6:.2f} MB foreseen, {peak() / 1e6:.2f} MB taken")
    assert peak() <= todo.bytes_needed <= 1.2 * peak() + PAPERS_BYTES


def test_a_hop_that_stays_is_no_failure(models, tmp_path, monkeypatch):
    """The result is whole when it is to go; on some network disks folders are never empty at once."""

    def refuses(path: object, *given: object, **more: object) -> None:
        if str(path).endswith(".hop1"):
            raise OSError(39, "Directory not empty", str(path))
        removed(path, *given, **more)

    removed = os.rmdir
    monkeypatch.setattr(os, "rmdir", refuses)
    made = route.convert(models / "pdmodel", to="torchscript", out=tmp_path / "out")
    assert made.main_file().is_file()
