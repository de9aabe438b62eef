"""Writes an engine's papers: ernie.json beside the plan, with what it was made of, by what, for what, and what became of it.

The shape of the record is record.py's. Who reads it: inspect/engine.py for people, admit.py before the plan is opened.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import console
from ..checkpoint.carry import carry
from ..digest import sha256_of
from ..model import Model, fingerprint, read_json, write_manifest
from ..onnxgraph.proto import nodes, parse, text
from ..quant.report.files import weight_files
from . import header, record
from .admit import this_system
from .nodes import tell_apart
from .precision_map import precision_map

if TYPE_CHECKING:
    from .builder import Built
    from .layers import Facts
    from .plan import Plan
    from .predict import Prediction
    from .shapes import Shapes

#: Of the source's small files, those that say nothing of an engine: what activations were measured is in the record of quantising.
_LEFT = ("build.log", "scales.json")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model")
_TEMPLATES = ("chat_template.jinja", "chat_template.json")


def write(
    folder: Path,
    *,
    source: Model,
    graph: Model,
    plan: Plan,
    built: Built,
    facts: Facts,
    prediction: Prediction,
    checks: Sequence[Mapping[str, Any]],
    shapes: Shapes,
) -> Model:
    """Carry the source's tokenizer, template and config into `folder` and write ernie.json beside `built.plan`.

    source: what was asked to be built. graph: the ONNX model it was built from, the source itself or made of it. shapes: those it was
    built with. Everything is hashed as it lies on disk now. Raises OSError where something cannot be read.
    """
    proto = parse(graph.main_file())
    tell_apart(proto)  # so that nodes are called as in the list of layers
    made_of = _digests(graph, inside=folder)
    carried, _ = carry(graph.path, folder, rewritten=(*_LEFT, built.plan.name, *made_of))
    written_by = header.read(built.plan)
    built_plan = {"size": built.plan.stat().st_size, "sha256": sha256_of(built.plan)}
    engine = {
        "library": {
            "name": plan.library.name,
            "version": plan.library.version,
            **_told(built.library),
            "abi": written_by.version if written_by else "",
            "why": plan.why,
        },
        "target": _target(plan),
        "source": {
            "path": str(source.path.absolute()),
            "format": source.format,
            "fingerprint": fingerprint(source.path),
            "files": made_of if source.path == graph.path else _digests(source),
        },
        "graph": {**_graph(proto), "files": made_of, "checks": graph.checks},
        "precision": precision_map(proto),
        "quantization": graph.told("quantization"),
        "kv_cache": str(graph.manifest.get("kv_cache") or ""),
        **_shapes(shapes),
        "options": asdict(plan.options),
        "flags": list(built.flags),
        "seconds": {"parse": round(built.parse_seconds, 3), "build": round(built.build_seconds, 3)},
        "predicted": prediction.as_dict(),
        "actual": {
            "plan_bytes": built_plan["size"],
            "weight_bytes": facts.weight_bytes,
            "activation_bytes": list(facts.activation_bytes),
            "host_peak_bytes": built.peak_host_bytes,
        },
        "tokenizer": _tokenizer(folder, carried),
        "layers": facts.as_dict(),
    }
    return write_manifest(
        folder,
        format="engine",
        architecture=graph.architecture or source.architecture,
        precision=plan.precision,
        checks=[dict(check) for check in checks],
        files={built.plan.name: built_plan, **carried},
        main=built.plan.name,
        engine=engine,
    )


def engine_facts(model: Model) -> dict[str, Any]:
    """The record of an engine, with every key that record.SHAPE has; whatever is wrong with it reads as nothing. Raises nothing."""
    return record.conform(model.manifest.get(record.NAME))[0]


def _told(library: Mapping[str, Any]) -> dict[str, str]:
    """What the process that built says of its library: it loaded it."""
    return {name: str(value) for name, value in library.items() if value not in (None, "")}


def _target(plan: Plan) -> dict[str, Any]:
    return {
        "device": plan.device.name,
        "title": plan.device.title,
        "capabilities": list(plan.capabilities),
        "system": this_system(),
        "version_compatible": plan.options.version_compatible,
        "hardware_compatible": plan.options.hardware_compatible,
    }


def _graph(proto: Any) -> dict[str, Any]:
    return {
        "opsets": {text(entry.domain) or "ai.onnx": entry.version for entry in proto.opset_import},
        "ir_version": proto.ir_version,
        "producer": f"{text(proto.producer_name)} {text(proto.producer_version)}".strip(),
        "nodes": sum(1 for _ in nodes(proto)),
    }


def _shapes(shapes: Shapes) -> dict[str, Any]:
    """Inputs of each profile as [shortest, best, longest]."""
    profiles = [
        {"name": each.name, "inputs": {name: [list(shape) for shape in ranges] for name, ranges in each.shapes.items()}}
        for each in shapes.profiles
    ]
    return {"fixed": dict(shapes.fixed), "profiles": profiles}


def _digests(model: Model, inside: Path | None = None) -> dict[str, dict[str, Any]]:
    """File → {size, sha256} of what holds a model. Of one made `inside` this build its own manifest tells."""
    known = model.manifest.get("files") if inside is not None and inside in model.path.parents else None
    files = weight_files(model)
    named = {Path(os.path.relpath(file, model.folder)).as_posix(): file for file in files}
    with console.progress("hashing", sum(file.stat().st_size for file in files), unit="bytes") as meter:
        return {
            name: dict(known[name])
            if isinstance(known, dict) and name in known
            else {"size": file.stat().st_size, "sha256": sha256_of(file, meter.advance)}
            for name, file in named.items()
        }


def _tokenizer(folder: Path, carried: Mapping[str, Any]) -> dict[str, Any]:
    """Which of the files carried over turn text into tokens, and where the chat template is. Their digests are under `files`."""
    template = next((name for name in _TEMPLATES if name in carried), "")
    if not template and "tokenizer_config.json" in carried and read_json(folder / "tokenizer_config.json").get("chat_template"):
        template = "tokenizer_config.json"
    return {"files": [name for name in _TOKENIZERS if name in carried], "chat_template": template}
