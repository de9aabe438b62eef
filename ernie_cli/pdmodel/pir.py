"""Reads a PIR program (model.json of Paddle 3) without Paddle. What cannot be one raises ValueError; files.py words it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..runtime.graphs import TensorSpec
from .program import Op, Program, shape_of

#: The first part of compressed names: dialects, in the order in which Paddle numbers them.
_DIALECTS = {"0": "builtin", "1": "pd_op", "2": "cf", "3": "custom_op", "4": "pd_dist"}
_DTYPES = {
    "bool": "bool",
    "i8": "int8",
    "ui8": "uint8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "f16": "float16",
    "bf16": "bfloat16",
    "f32": "float32",
    "f64": "float64",
    "c64": "complex64",
    "c128": "complex128",
    "f8e4m3fn": "float8_e4m3fn",
    "f8e5m2": "float8_e5m2",
}
#: Operations that are part of the format, not of the computation.
_FRAME = ("builtin.parameter", "pd_op.data", "pd_op.feed", "pd_op.fetch", "builtin.shadow_output")


def is_program(file: Path) -> bool:
    """Whether a .json is a PIR program: they begin with {"base_code": …}, which no config or tokenizer does."""
    with file.open("rb") as handle:
        head = handle.read(256)
    return b'"base_code"' in head and b'"pir"' in head


def read(file: Path) -> Program:
    """The program in `file`. Raises ValueError (KeyError, TypeError and the like among them) where it is none."""
    content = json.loads(file.read_bytes())
    block = content["program"]["regions"][0]["blocks"][0]
    reader = _Reader()
    ops = tuple(reader.ops(block["ops"], 0))
    if not reader.outputs:
        raise ValueError("it has no outputs")
    outputs = [spec for _, spec in sorted(reader.outputs, key=lambda entry: entry[0])]
    parameters = tuple(sorted(reader.parameters, key=lambda spec: spec.name))
    version = f"PIR version {content['base_code'].get('version', '?')}"
    return Program("pir", version, tuple(reader.inputs), tuple(outputs), parameters, ops)


class _Reader:
    """Walks the blocks and remembers what each value is called."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.inputs: list[TensorSpec] = []
        self.outputs: list[tuple[int, TensorSpec]] = []
        self.parameters: list[TensorSpec] = []
        self._numbers: Counter[str] = Counter()

    def ops(self, entries: list[dict[str, Any]], depth: int) -> Iterator[Op]:
        """The operations of one block; inputs, outputs and parameters are set aside."""
        if depth > 50:
            raise ValueError("blocks lie more than 50 deep in each other")
        for entry in entries:
            operator = _operator(entry["#"])
            made = self._op(operator, entry, depth)
            if operator not in _FRAME:
                yield made

    def _op(self, operator: str, entry: dict[str, Any], depth: int) -> Op:
        results = entry.get("O") or []
        results = results if isinstance(results, list) else [results]
        inputs = tuple(self.names.get(int(value["%"]), "") for value in entry.get("I") or [] if value["%"])
        if operator == "builtin.parameter":
            return self._parameter(entry, results[0])
        attributes = {one["N"]: _plain(one["AT"]) for one in entry.get("A") or []}
        name = f"{operator}.{self._numbers[operator]}"
        self._numbers[operator] += 1
        if operator in ("pd_op.data", "pd_op.feed"):
            return self._input(operator, str(attributes["name"]), results[0])
        outputs = []
        for index, value in enumerate(results):
            outputs.append(self._named(value, f"{name}.{index}"))
        if operator in ("pd_op.fetch", "builtin.shadow_output"):
            self._output(attributes, entry, inputs, results)
        inner = [op for region in entry.get("regions") or [] for block in region["blocks"] for op in self._inner(block, name, depth)]
        return Op(operator, name, inputs, tuple(outputs), attributes, tuple(inner))

    def _inner(self, block: dict[str, Any], name: str, depth: int) -> Iterator[Op]:
        for index, value in enumerate(block.get("args") or []):
            self._named(value, f"{name}.argument{index}")
        return self.ops(block["ops"], depth + 1)

    def _named(self, value: Any, name: str) -> str:
        if isinstance(value, dict) and value.get("%"):
            self.names[int(value["%"])] = name
        return name

    def _parameter(self, entry: dict[str, Any], value: dict[str, Any]) -> Op:
        name = entry["A"][3] if len(entry["A"]) > 3 else ""
        if not isinstance(name, str) or not name:
            raise ValueError("a parameter without a name")
        self.names[int(value["%"])] = name
        if (entry.get("OA") or [1])[0]:  # persistable; the others are made when the program runs and are not in the file
            self.parameters.append(_tensor(name, value))
        return Op("builtin.parameter", name, (), (name,))

    def _input(self, operator: str, name: str, value: dict[str, Any]) -> Op:
        self.names[int(value["%"])] = name
        self.inputs.append(_tensor(name, value))
        return Op(operator, name, (), (name,))

    def _output(self, attributes: dict[str, Any], entry: dict[str, Any], inputs: tuple[str, ...], results: list[Any]) -> None:
        name = str(attributes.get("name") or attributes.get("output_name") or (inputs[0] if inputs else ""))
        spec = _tensor(name, results[0]) if results else TensorSpec(name, "", None)
        self.outputs.append((int(attributes.get("col", len(self.outputs))), spec))


def _operator(short: str) -> str:
    """ "1.conv2d" → "pd_op.conv2d"; "p" is the parameter's own abbreviation."""
    if short == "p":
        return "builtin.parameter"
    dialect, _, name = short.partition(".")
    return f"{_DIALECTS.get(dialect, dialect)}.{name}"


def _plain(attribute: dict[str, Any]) -> Any:
    """The attribute's value where it is a number, a text or a list of such; None for the rest."""
    value = attribute.get("D")
    if isinstance(value, list):
        return [_plain(one) if isinstance(one, dict) else one for one in value]
    return value if isinstance(value, (str, int, float, bool)) else None


def _tensor(name: str, value: dict[str, Any]) -> TensorSpec:
    """{"TT": {"#": "0.t_dtensor", "D": [{"#": "0.t_f32"}, [-1, 3], "NCHW", [], 0]}}."""
    kind = value["TT"]
    if not str(kind["#"]).endswith("t_dtensor"):
        return TensorSpec(name, "", None)
    element, lengths = kind["D"][0], kind["D"][1]
    if not all(isinstance(length, int) for length in lengths):
        raise ValueError(f"`{name}` has the shape {lengths!r:.80}")
    dtype = str(element["#"]).rpartition("t_")[2]
    return TensorSpec(name, _DTYPES.get(dtype, ""), shape_of(lengths))
