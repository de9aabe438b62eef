"""Describes a TorchScript archive from its records alone: code is read as text, pickles are looked at, nothing is run; no torch."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ..checkpoint.quote import short
from ..errors import InputError
from ..model import Model
from ..torchscript.archive import Archive, opened, verify
from ..torchscript.contents import Contents, contents

_PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64"}
#: Tensors of these types are indices and masks, not weights.
_NO_WEIGHTS = ("int64", "int32", "int16", "bool")
#: `torch.add(` and `ops.torchvision.nms(`, as torch writes calls of operators; `__torch__.torch.nn…` is a function of the model.
_CALL = re.compile(r"(?<![\w.])(?:torch\.(\w+)|ops\.(\w+)\.(\w+))\(")
#: Newer archives keep the version in .data/.
_FACTS = ("version", ".data/version", "byteorder")
_METHOD = re.compile(r"^  def (\w+)\(", re.MULTILINE)


def describe(model: Model) -> dict[str, Any]:
    """Kind (traced or scripted), methods, inputs and outputs as far as the file tells, operators as often as the code names
    them, parameters, bytes by dtype; `tensors` lists weights by attribute path, and the code's constants.

    Raises InputError where the file is no TorchScript or is damaged so that nothing can be said; records that are missing, too
    short or not as their checksums say are `problems`.
    """
    with opened(model.main_file()) as archive:
        found = contents(archive)
        code = archive.code()
        problems = [f"{archive.file.name}: {tensor.problem}" for tensor in found.tensors if tensor.problem]
        try:
            verify(archive)
        except InputError as err:
            problems.append(err.message.removeprefix(f"{archive.file}: "))
        facts = _facts(archive)
    root = _root_code(found, code)
    sizes = Counter[str]()
    for tensor in _unshared(found):
        sizes[_PRECISIONS.get(tensor.dtype, tensor.dtype)] += tensor.n_bytes
    return {
        **facts,
        "kind": "traced" if found.traced is not None else "scripted",
        "root_class": found.root_class,
        "methods": _METHOD.findall(root),
        "inputs": _inputs(model, found, root),
        "outputs": model.manifest.get("outputs") or _outputs(root),
        "ops": dict(Counter(_operators(code)).most_common()),
        "parameters": sum(math.prod(tensor.shape) for tensor in _unshared(found) if tensor.dtype not in _NO_WEIGHTS),
        "tensor_count": len(found.tensors),
        "bytes_by_dtype": dict(sizes.most_common()),
        "tensors": [
            {
                "name": tensor.name,
                "dtype": _PRECISIONS.get(tensor.dtype, tensor.dtype),
                "shape": list(tensor.shape),
                "bytes": tensor.n_bytes,
                "file": tensor.record,
            }
            for tensor in found.tensors
        ],
        "notes": _notes(facts, found),
        "problems": problems,
    }


def _facts(archive: Archive) -> dict[str, Any]:
    """Version of the archive's format, and byte order. The release of torch that wrote it is not in the file."""
    read = {name: archive.read(name)[:40].decode(errors="replace").strip() for name in _FACTS if archive.has(name)}
    version = read.get("version") or read.get(".data/version", "")
    return {"archive_version": int(version) if version.isdecimal() else None, "byteorder": read.get("byteorder", "")}


def _notes(facts: Mapping[str, Any], found: Contents) -> list[str]:
    made = "made by torch.jit.trace" if found.traced is not None else "scripted (or traced by a torch before 2.3, or frozen)"
    # byteorder has been written since torch 2.1 (pytorch PR 103096)
    written = f"archive version {facts['archive_version']}, {'torch 2.1 or newer' if facts['byteorder'] else 'torch 2.0 or older'}"
    return [f"TorchScript, {made}; {written}"]


def _unshared(found: Contents) -> Iterator[Any]:
    """Each tensor once: tied weights lie in one record."""
    seen: set[tuple[str, tuple[int, ...]]] = set()
    for tensor in found.tensors:
        if (tensor.record, tensor.shape) not in seen:
            seen.add((tensor.record, tensor.shape))
            yield tensor


def _operators(code: Mapping[str, str]) -> Iterator[str]:
    for text in code.values():
        for plain, space, name in _CALL.findall(text):
            yield f"aten::{plain}" if plain else f"{space}::{name}"


def _root_code(found: Contents, code: Mapping[str, str]) -> str:
    """The source of the module's own class: `__torch__.a.b.Net` is class Net in __torch__/a/b.py."""
    place, _, name = found.root_class.rpartition(".")
    text = code.get(f"{place.replace('.', '/')}.py", "")
    start = re.search(rf"^class {re.escape(name)}\(", text, re.MULTILINE)
    if not start:
        return ""
    end = re.search(r"^class ", text[start.end() :], re.MULTILINE)
    return text[start.start() : start.end() + end.start() if end else len(text)]


def _inputs(model: Model, found: Contents, root: str) -> list[dict[str, Any]]:
    """Of forward: from the manifest, else names and types from the code with dtypes and shapes from the trace."""
    if model.manifest.get("inputs"):
        return list(model.manifest["inputs"])
    typed = _arguments(root)
    traced = found.traced if found.traced is not None and len(found.traced) == len(typed) else (None,) * len(typed)
    return [
        {"name": short(name), "dtype": seen.dtype, "shape": list(seen.shape or ())}
        if seen
        else {"name": short(name), "dtype": short(kind), "shape": None}
        for (name, kind), seen in zip(typed, traced, strict=True)
    ]


def _arguments(root: str) -> list[tuple[str, str]]:
    """(name, type) of forward's arguments without self."""
    head = _head(root)
    return [(name, kind.strip()) for name, kind in re.findall(r"(?:^|,)\s*(\w+)\s*:\s*([^,=\[]+(?:\[[^=]*?\])?)", head)][1:]


def _head(root: str) -> str:
    """What stands between the brackets of `def forward(…)`."""
    start = re.search(r"^  def forward\(", root, re.MULTILINE)
    end = re.search(r"\) -> .*:$", root[start.end() :], re.MULTILINE) if start else None
    return root[start.end() : start.end() + end.start()] if start and end else ""


def _outputs(root: str) -> list[dict[str, Any]]:
    """The type that forward gives, as one entry."""
    start = re.search(r"^  def forward\(", root, re.MULTILINE)
    end = re.search(r"\) -> (.*):$", root[start.end() :], re.MULTILINE) if start else None
    return [{"name": "output", "dtype": short(end[1]), "shape": None}] if end else []
