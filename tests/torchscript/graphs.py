"""Small ONNX graphs as text, converted and run beside ONNX Runtime. The tests say what of them is to hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ernie_cli.model import Model
from ernie_cli.route import Options


def parsed(text: str, *, opset: int = 18) -> Any:
    """`agraph (float[N] x) => (float[N] y) {...}` as a ModelProto."""
    import onnx

    header = "" if text.lstrip().startswith("<") else f'<ir_version: 9, opset_import: ["" : {opset}]>\n'
    return onnx.parser.parse_model(header + text)


def written(model: Any, folder: Path) -> Model:
    """A ModelProto (or its text) as a model folder."""
    import onnx

    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(parsed(model) if isinstance(model, str) else model, str(folder / "model.onnx"))
    return Model.open(folder)


def converted(model: Any, folder: Path) -> Any:
    """The ScriptModule, as torch alone loads it."""
    import torch
    from ernie_cli.converters import onnx_to_torchscript

    out = folder / "out"
    out.mkdir(parents=True)
    made = onnx_to_torchscript.convert(written(model, folder / "in"), out, Options())
    return torch.jit.load(str(made.main_file()))


def same(model: Any, folder: Path, *feeds: Mapping[str, np.ndarray], rtol: float = 1e-5) -> Any:
    """Convert, and assert that each feed gives what ONNX Runtime gives. Returns the ScriptModule."""
    import onnxruntime

    from ernie_cli.torchscript.types import array_of, tensor_of

    module = converted(model, folder)
    session = onnxruntime.InferenceSession(str(folder / "in" / "model.onnx"), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    for feed in feeds:
        want = session.run(None, dict(feed))
        got = module(*[tensor_of(np.array(feed[name])) for name in names])
        for have, wish in zip(got if len(want) > 1 else (got,), want, strict=True):
            assert array_of(have).shape == wish.shape
            assert array_of(have).dtype == wish.dtype
            np.testing.assert_allclose(array_of(have), wish, rtol=rtol, atol=1e-6)
    return module
