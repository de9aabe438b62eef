"""Compiles the text of a graph into a ScriptModule that runs without this package. Writing the text is emit.py's."""

from __future__ import annotations

import json
import typing
import warnings
from pathlib import Path
from typing import Any

from ..need import need
from .emit import Writer, Written, opset_of
from .types import tensor_of

#: Beside the code in the archive: variable → [ONNX value, operator], JSON. Variables are the debug names up to their dot.
NAMES = "onnx_values.json"


def write(model: Any) -> Written:
    """An onnx_ir model, with shapes inferred, as text with its weights. See Written."""
    torch = need("torch")
    taken = [*dir(torch.nn.Module()), *dir(torch.jit.RecursiveScriptModule)]
    return Writer(model.graph, opset_of(model), taken).write()


def compile_written(written: Written) -> Any:
    """The ScriptModule of a written graph. Raises RuntimeError where TorchScript refuses the text: a bug of a rule."""
    torch = need("torch")
    # A class of its own: TorchScript shares the type of equal modules of one class, and with it `forward`.
    shell = type("Graph", (torch.nn.Module,), {})()
    for name, tensor in written.tensors.items():
        shell.register_buffer(name, tensor_of(tensor.numpy()))
    # is_tracing leaves out a check of the class's source, which has none.
    module = need("torch.jit._recursive").create_script_module(shell, lambda _: [], share_types=False, is_tracing=True)
    known = {**written.functions, "torch": torch, "Tensor": torch.Tensor, "List": typing.List, "Optional": typing.Optional}  # noqa: UP006
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch would rather see torch.export, which knows no such control flow
        module._c._define(module._concrete_type, written.text, known.get)
    return module.eval()


def save(module: Any, written: Written, path: Path) -> None:
    """Write the archive, with the names of the ONNX values beside the code."""
    torch = need("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(module, str(path), _extra_files={NAMES: json.dumps(written.values)})
