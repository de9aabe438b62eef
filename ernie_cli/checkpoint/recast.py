"""Rewrites a checkpoint in the other layout: bit for bit, one tensor at a time, checked before and after.

The table of `layout` says what goes where, `writer` makes the weight files, `carry` the rest. Staging is the route's matter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import console
from ..digest import facts_of
from ..errors import InputError
from ..model import Model, read_json, write_manifest
from ..staging import write_file
from .bands import Bands
from .carry import carry
from .compare import check_same
from .layout import Layout
from .quote import short
from .reader import Checkpoint
from .safetensors_file import DTYPES
from .spelling import config_json, tokenizer_config_json
from .writer import write_checkpoint

if TYPE_CHECKING:
    from ..route import Options

#: What transformers and PaddleFormers expect under `format` in a file's header.
_KIND: dict[Layout, str] = {"hf": "pt", "paddle": "np"}
_PRECISION = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
_TOKENIZER = "tokenizer_config.json"


def recast(model: Model, out: Path, target: Layout, options: Options) -> Model:
    """Fill the folder `out` with the checkpoint `model` in the layout `target`, and a manifest.

    Raises InputError for what is wrong with the source, before anything is written but for NaN and infinite weights;
    QualityError where the result does not hold the same weights.
    """
    source = Checkpoint.open(model.path)
    if source.layout == target:
        raise InputError(f"{source.folder}: its tensors are in the {target} layout already", "is its ernie.json another model's?")
    bands = Bands(source, target)
    specs = bands.specs()
    console.detail(f"{source.folder}: {source.layout} layout, {len(source.entries)} tensors → {len(specs)}")
    with console.progress(f"{source.layout} → {target}", sum(spec.n_bytes for spec in specs), unit="bytes") as meter:
        bands.advance = meter.advance
        files = write_checkpoint(out, specs, bands.fill, kind=_KIND[target], max_shard_bytes=_shard_limit(source, options))
    dtype = DTYPES[specs[0].dtype].name
    files |= _write_json(out, "config.json", config_json(source.config, dtype, target))
    files |= _beside(source, out, target, model.path)
    _say_skipped(source)
    return write_manifest(
        out,
        format=target,
        architecture=source.config.model_type,
        precision=_PRECISION[dtype],
        files=files,
        checks=[
            check_same(Checkpoint.open(out), source) if options.verify else {"name": "same weights", "passed": None, "why": "--no-verify"}
        ],
        skipped_tensors=list(source.skipped),
    )


def weight_bytes(model: Model) -> int:
    """Bytes of all weights of a checkpoint, which no change of layout changes. Raises what `Checkpoint.open` raises."""
    return sum(entry.n_bytes for entry in Checkpoint.open(model.path).entries.values())


def _shard_limit(source: Checkpoint, options: Options) -> int | None:
    """One file stays one file, whatever its size, unless a limit was asked for."""
    files = {entry.file for entry in source.entries.values()}
    return None if len(files) == 1 and options.max_shard_bytes == type(options).max_shard_bytes else options.max_shard_bytes


def _beside(source: Checkpoint, out: Path, target: Layout, path: Path) -> dict[str, Any]:
    """Tokenizer, chat template, licence and the like; tokenizer_config.json in the target's spelling."""
    files, left = carry(path, out, rewritten=("config.json", _TOKENIZER))
    if (source.folder / _TOKENIZER).is_file():
        old = read_json(source.folder / _TOKENIZER)
        new = tokenizer_config_json(old, target)
        if new == old:  # then its bytes stay as they are, too
            write_file(out / _TOKENIZER, (source.folder / _TOKENIZER).read_bytes())
            files[_TOKENIZER] = facts_of(out / _TOKENIZER)
        else:
            files |= _write_json(out, _TOKENIZER, new)
    if left:
        console.warn(f"not carried over: {', '.join(map(short, left))}")
    return files


def _write_json(out: Path, name: str, content: dict[str, Any]) -> dict[str, Any]:
    write_file(out / name, json.dumps(content, indent=2) + "\n")
    return {name: facts_of(out / name)}


def _say_skipped(source: Checkpoint) -> None:
    if source.skipped:
        console.warn(f"skipped {len(source.skipped)} tensors that the decoder does not use: {', '.join(map(short, source.skipped))}")
