"""The door: a model in any form that becomes ONNX, a scheme, and out comes the quantised folder with its papers."""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx_ir as ir

from .. import console
from ..errors import UnsupportedError
from ..model import MANIFEST, Model, fingerprint, write_manifest
from ..staging import staged
from . import edit, layers, write
from .codes import Codes, round_to_nearest
from .options import Options
from .scheme import Scheme, find


def quantize(model: Model, to: str, out: Path, options: Options) -> Model:
    """Quantise `model` with the scheme named `to` into the folder `out`. Returns the model there.

    Raises UsageError for a scheme or options that make no sense, UnsupportedError where the model has nothing to quantise.
    """
    scheme = find(to)
    start = time.perf_counter()
    with staged(out) as folder:
        graph = _opened(model)
        chosen = layers.find(graph, scheme, options.include, options.exclude)
        if not chosen and scheme.weight:
            raise UnsupportedError(f"{model.path}: it has no layer that {to} takes", "`ernie inspect` shows its operators")
        record = {"scheme": scheme.name, "options": asdict(options), "layers": _weights(graph, scheme, chosen, options, folder)}
        record["seconds"] = round(time.perf_counter() - start, 3)
        _papers(model, folder, graph, scheme, record)
    return Model.open(out)


def _opened(model: Model) -> ir.Model:
    from ..onnxgraph.load import load

    return load(model)


def _weights(graph: ir.Model, scheme: Scheme, chosen: list[layers.Layer], options: Options, folder: Path) -> list[dict[str, Any]]:
    """Quantise and write. Returns a record for each layer."""
    form = scheme.weight
    assert form is not None
    records: list[dict[str, Any]] = []
    for layer in chosen:
        tensor = layer.weight.const_value
        assert tensor is not None

        def make(tensor: ir.TensorProtocol = tensor, layer: layers.Layer = layer) -> Codes:
            return round_to_nearest(tensor.numpy(), form, layer.channel_axis, layer.sum_axis)

        edit.quantize_weight(layer, form, make)
    graph.graph.opset_imports[""] = max(graph.graph.opset_imports.get("", 0), edit.lowest_opset({form.type}))
    with console.progress("quantising", None) as meter:
        write.save(
            graph,
            folder,
            advance=meter.advance,
            made=lambda name, codes: records.append({"layer": name, "bytes": codes.nbytes}),
        )
    return records


def _papers(model: Model, folder: Path, graph: ir.Model, scheme: Scheme, record: dict[str, Any]) -> None:
    known = {
        key: value
        for key, value in model.manifest.items()
        if key not in ("ernie", "format", "files", "checks", "key", "made_from", "made_by")
    }
    for file in model.folder.iterdir() if model.path.is_dir() else ():
        if file.is_file() and file.suffix not in (".onnx", ".data") and file.name != MANIFEST and not (folder / file.name).exists():
            shutil.copy2(file, folder / file.name)
    made_from = {"path": str(model.path.absolute()), "format": model.format, "fingerprint": fingerprint(model.path)}
    known |= {"main": "model.onnx", "precision": scheme.name, "opset": graph.graph.opset_imports[""], "quantization": record}
    write_manifest(folder, format="onnx", made_from=made_from, made_by={"command": "quantize"}, **known)
