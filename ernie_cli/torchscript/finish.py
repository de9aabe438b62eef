"""The last touches on what torch's exporter wrote: weights in one file, plain names, every input there, simplified where asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..digest import flushed_facts_of
from ..errors import UnsupportedError
from ..need import need
from ..onnxgraph import write
from ..runtime.graphs import TensorSpec
from .wrap import INNER


def finish(folder: Path, name: str, inputs: Sequence[TensorSpec], simplify: bool) -> dict[str, dict[str, Any]]:
    """Rewrite the file where it needs it. Returns the manifest's entries of all files."""
    onnx_ir = need("onnx_ir")
    loose = [path for path in folder.iterdir() if path.name != name]  # over 2 GB the exporter writes one file per weight
    try:
        model = onnx_ir.load(folder / name)
    except Exception as err:  # whatever onnx_ir raises: loops within loops come out with values that nothing makes
        raise UnsupportedError(
            f"torch's exporter wrote a graph that does not hold together: {err}", "export the module another way"
        ) from err
    wrong = any(value.startswith(f"{INNER}.") for value in model.graph.initializers)
    missing = [spec for spec in inputs if spec.name not in {value.name for value in model.graph.inputs}]
    if not (loose or wrong or missing or simplify):
        return {name: flushed_facts_of(folder / name)}
    for value in list(model.graph.initializers.values()):
        if value.name.startswith(f"{INNER}."):
            value.name = value.name[len(INNER) + 1 :]
    for spec in missing:  # the exporter drops inputs that nothing uses
        kind = onnx_ir.TensorType(onnx_ir.DataType.from_numpy(_numpy(spec.dtype)))
        model.graph.inputs.append(onnx_ir.Value(name=spec.name, type=kind, shape=onnx_ir.Shape(spec.shape or ())))
    if simplify:
        from ..onnxgraph.simplify import simplify as simplified

        model = simplified(model)
    made = folder / "made"
    made.mkdir()
    entries = write.save(model, made, name)
    del model
    for path in (*loose, folder / name):
        path.unlink()
    for path in list(made.iterdir()):
        path.rename(folder / path.name)
    made.rmdir()
    return entries


def _numpy(dtype: str) -> Any:
    import ml_dtypes
    import numpy as np

    return np.dtype(getattr(ml_dtypes, dtype) if dtype == "bfloat16" else dtype)
