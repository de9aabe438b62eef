"""Describes an ONNX file from its protobuf alone: external weights are measured, not read, and nothing is executed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..model import Model
from ..need import need
from ..staging import safe_join

_MOST_BYTES = (2 << 30) - 1  # of one protobuf message; larger models keep their weights outside
_AGAIN = "make the file again: `ernie convert … --to onnx --force`"
_PRECISIONS = {"FLOAT": "fp32", "FLOAT16": "fp16", "BFLOAT16": "bf16", "DOUBLE": "fp64"}
#: Constants of these types are shapes, axes and masks, not weights.
_NO_WEIGHTS = ("int64", "int32", "bool", "string", "undefined")


def describe(model: Model) -> dict[str, Any]:
    """Versions, inputs and outputs, operators, weights by dtype and where they lie; `tensors` lists each constant.

    `parameters` counts every constant that is not of an integer type for shapes: RoPE's frequencies, scales and the like too.
    Raises InputError where the file is no ONNX model; external data that is missing or too short is a `problem`.
    """
    file = model.main_file()
    proto = load(file)
    names = {_text(tensor.name) for tensor in proto.graph.initializer}  # up to IR version 3 they were listed as inputs, too
    inputs = [_value(value) for value in proto.graph.input if _text(value.name) not in names]
    tensors = [_tensor(tensor) for tensor in _tensors(proto)]
    sizes = Counter[str]()
    for tensor in tensors:
        sizes[tensor["dtype"]] += tensor["bytes"]
    external, problems = _external(file, tensors)
    weights = [tensor for tensor in tensors if tensor["dtype"] not in _NO_WEIGHTS]
    return {
        "ir_version": proto.ir_version,
        "opsets": {_text(entry.domain) or "ai.onnx": entry.version for entry in proto.opset_import},
        "producer": f"{_text(proto.producer_name)} {_text(proto.producer_version)}".strip(),
        "metadata": {_text(entry.key): _text(entry.value) for entry in proto.metadata_props},
        "inputs": inputs,
        "outputs": [_value(value) for value in proto.graph.output],
        "ops": dict(Counter(_operator(node) for node in _nodes(proto)).most_common()),
        "parameters": sum(math.prod(tensor["shape"]) for tensor in weights),
        "tensor_count": len(tensors),
        "bytes_by_dtype": dict(sizes.most_common()),
        "external_data": external,
        "kv_bytes_per_token": _kv_bytes_per_token(inputs),
        "tensors": tensors,
        "problems": problems + [f"{file.name}: {text}" for tensor in tensors if (text := tensor.pop("problem"))],
    }


def load(file: Path) -> Any:
    """The ModelProto without external data. Raises InputError where the file holds anything else."""
    onnx = need("onnx")
    from google.protobuf.message import DecodeError

    n_bytes = file.stat().st_size
    if n_bytes > _MOST_BYTES:
        raise InputError(
            f"{file}: {n_bytes} bytes: no protobuf file is larger than 2 GB", "is it the weights of an ONNX model? name the .onnx file"
        )
    try:
        proto = onnx.load(str(file), format="protobuf", load_external_data=False)
    except DecodeError as err:
        raise InputError(f"{file}: not an ONNX file, or a damaged one: {err}", _AGAIN) from err
    if not proto.ir_version or not proto.HasField("graph"):
        raise InputError(f"{file}: {'empty' if n_bytes == 0 else 'not an ONNX model: it has no graph'}", _AGAIN)
    return proto


def _nodes(proto: Any) -> Iterator[Any]:
    """Every node: of the graph, of the graphs inside nodes (If, Loop), of local functions. Protobuf limits the nesting to 100."""
    pending = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    while pending:
        node = pending.pop()
        yield node
        pending += [inner for graph in _subgraphs(node) for inner in graph.node]


def _subgraphs(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _tensors(proto: Any) -> Iterator[Any]:
    """Every constant: initializers of all graphs, and tensors in attributes (Paddle's exporter keeps weights in Constant nodes)."""
    yield from proto.graph.initializer
    for node in _nodes(proto):
        for graph in _subgraphs(node):
            yield from graph.initializer
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _operator(node: Any) -> str:
    domain, name = _text(node.domain), _text(node.op_type)
    return name if domain in ("", "ai.onnx") else f"{domain}::{name}"


def _text(value: str | bytes) -> str:
    """Strings that are no UTF-8 come out of protobuf as bytes."""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


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
    facts: dict[str, Any] = {"name": _text(tensor.name), "dtype": dtype, "shape": shape, "bytes": expected, "problem": ""}
    if tensor.data_location == 1:  # EXTERNAL
        where = {_text(entry.key): _text(entry.value) for entry in tensor.external_data}
        facts |= {"file": where.get("location", ""), "offset": _count(where.get("offset", "0"))}
        stored = _count(where.get("length", str(expected)))
    else:
        stored = len(tensor.raw_data) if tensor.HasField("raw_data") else expected  # typed fields are not packed to size
    if min(shape, default=0) < 0 or (bits and stored != expected) or facts.get("offset", 0) < 0:
        facts["problem"] = f"tensor `{facts['name']}`, {dtype} {shape}, takes {expected} bytes and has {stored}"
    return facts


def _count(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 20 else -1


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
        return {"name": _text(value.name), "dtype": (kind or "unknown").removesuffix("_type"), "shape": None}
    tensor = value.type.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") else _text(dim.dim_param) or "?" for dim in tensor.shape.dim]
    return {"name": _text(value.name), "dtype": _data_type(tensor.elem_type)[0], "shape": dims if tensor.HasField("shape") else None}


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
