"""Describes an ONNX file from its protobuf alone: external weights are measured, not read, and nothing is executed."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from ..model import Model
from ..need import need
from ..onnxgraph.proto import nodes, parse, text
from ..onnxgraph.proto import tensors as every_tensor
from ..staging import safe_join

_PRECISIONS = {"FLOAT": "fp32", "FLOAT16": "fp16", "BFLOAT16": "bf16", "DOUBLE": "fp64"}
#: Constants of these types are shapes, axes and masks, not weights.
_NO_WEIGHTS = ("int64", "int32", "bool", "string", "undefined")


def describe(model: Model) -> dict[str, Any]:
    """Versions, inputs and outputs, operators, weights by dtype and where they lie; `tensors` lists each constant.

    `parameters` counts every constant that is not of an integer type for shapes: RoPE's frequencies, scales and the like too.
    Raises InputError where the file is no ONNX model; external data that is missing or too short is a `problem`.
    """
    file = model.main_file()
    proto = parse(file)
    names = {text(tensor.name) for tensor in proto.graph.initializer}  # up to IR version 3 they were listed as inputs, too
    inputs = [_value(value) for value in proto.graph.input if text(value.name) not in names]
    tensors = [_tensor(tensor) for tensor in every_tensor(proto)]
    sizes = Counter[str]()
    for tensor in tensors:
        sizes[tensor["dtype"]] += tensor["bytes"]
    external, problems = _external(file, tensors)
    weights = [tensor for tensor in tensors if tensor["dtype"] not in _NO_WEIGHTS]
    return {
        "ir_version": proto.ir_version,
        "opsets": {text(entry.domain) or "ai.onnx": entry.version for entry in proto.opset_import},
        "producer": f"{text(proto.producer_name)} {text(proto.producer_version)}".strip(),
        "metadata": {text(entry.key): text(entry.value) for entry in proto.metadata_props},
        "inputs": inputs,
        "outputs": [_value(value) for value in proto.graph.output],
        "ops": dict(Counter(_operator(node) for node in nodes(proto)).most_common()),
        "parameters": sum(math.prod(tensor["shape"]) for tensor in weights),
        "tensor_count": len(tensors),
        "bytes_by_dtype": dict(sizes.most_common()),
        "external_data": external,
        "kv_bytes_per_token": _kv_bytes_per_token(inputs),
        "tensors": tensors,
        "problems": problems + [f"{file.name}: {problem}" for tensor in tensors if (problem := tensor.pop("problem"))],
    }


def _operator(node: Any) -> str:
    domain, name = text(node.domain), text(node.op_type)
    return name if domain in ("", "ai.onnx") else f"{domain}::{name}"


def _data_type(number: int) -> tuple[str, int]:
    """(name, bits per element) of an ONNX element type; onnx-ir knows newer ones than an old onnx does."""
    ir = need("onnx_ir")
    try:
        data_type = ir.DataType(number)
        return _PRECISIONS.get(data_type.name) or data_type.name.lower(), data_type.bitwidth
    except (ValueError, TypeError):  # a number nobody knows, or a type without a width (strings)
        return {0: "undefined", 8: "string"}.get(number, f"type {number}"), 0


def _tensor(tensor: Any) -> dict[str, Any]:
    """name, dtype, shape, bytes; where external: file, offset; `problem` where it holds other than its shape asks for."""
    dtype, bits = _data_type(tensor.data_type)
    shape = list(tensor.dims)
    expected = (math.prod(shape) * bits + 7) // 8
    facts: dict[str, Any] = {"name": text(tensor.name), "dtype": dtype, "shape": shape, "bytes": expected, "problem": ""}
    if tensor.data_location == 1:  # EXTERNAL
        where = {text(entry.key): text(entry.value) for entry in tensor.external_data}
        facts |= {"file": where.get("location", ""), "offset": _count(where.get("offset", "0"))}
        stored = _count(where.get("length", str(expected)))
    else:
        stored = len(tensor.raw_data) if tensor.HasField("raw_data") else expected  # typed fields are not packed to size
    if min(shape, default=0) < 0 or (bits and stored != expected) or facts.get("offset", 0) < 0:
        facts["problem"] = f"tensor `{facts['name']}`, {dtype} {shape}, takes {expected} bytes and has {stored}"
    return facts


def _count(number: str) -> int:
    return int(number) if number.isdecimal() and len(number) < 20 else -1


def _external(file: Path, tensors: list[dict[str, Any]]) -> tuple[dict[str, int | None], list[str]]:
    """(external file → its bytes, None where it is missing; problems). Raises InputError for a name that leaves the folder."""
    ends: dict[str, int] = {}
    for tensor in tensors:
        if "file" in tensor:
            ends[tensor["file"]] = max(ends.get(tensor["file"], 0), tensor["offset"] + tensor["bytes"])
    found: dict[str, int | None] = {}
    problems = []
    for name, end in ends.items():
        data = safe_join(file.parent, name)
        found[name] = data.stat().st_size if data.is_file() else None
        if found[name] is None:
            problems.append(f"{name}: the external data of {file.name} is missing")
        elif (found[name] or 0) < end:
            problems.append(f"{name}: truncated: {found[name]} bytes where {file.name} reads up to {end}")
    return found, problems


def _value(value: Any) -> dict[str, Any]:
    """name, dtype and shape (numbers, names of dynamic axes, "?"; None where no shape is given) of an input or output."""
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return {"name": text(value.name), "dtype": (kind or "unknown").removesuffix("_type"), "shape": None}
    tensor = value.type.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") else text(dim.dim_param) or "?" for dim in tensor.shape.dim]
    return {"name": text(value.name), "dtype": _data_type(tensor.elem_type)[0], "shape": dims if tensor.HasField("shape") else None}


def _kv_bytes_per_token(inputs: list[dict[str, Any]]) -> int | None:
    """From the cache inputs [batch, heads, tokens, head_dim], named ….key and ….value; None where there are none."""
    widths = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "float8e4m3fn": 1}
    per_token = [
        value["shape"][1] * value["shape"][3] * widths[value["dtype"]]
        for value in inputs
        if value["name"].rpartition(".")[2] in ("key", "value") and value["dtype"] in widths
        if value["shape"] and len(value["shape"]) == 4 and all(isinstance(value["shape"][axis], int) for axis in (1, 3))
    ]
    return sum(per_token) or None
