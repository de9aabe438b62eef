"""Reads a legacy program (.pdmodel, a ProgramDesc of framework.proto) without Paddle. Field numbers are that file's."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ..runtime.graphs import TensorSpec
from . import wire
from .program import DTYPES, Op, Program, shape_of

#: VarType.Type of variables that hold a tensor.
_LOD_TENSOR = 7
_DEEPEST = 50
#: The byte that begins Attr.block_idx: reading every attribute takes most of the time otherwise.
_BLOCK_KEY = b"\x60"


@dataclass(frozen=True)
class _Variable:
    name: str
    spec: TensorSpec
    persistable: bool
    is_tensor: bool


def read(file: Path) -> Program:
    """The program in `file`. Raises wire.Damaged where it is no ProgramDesc."""
    blocks: list[memoryview] = []
    version = ""
    for number, value in wire.fields(memoryview(file.read_bytes())):
        if number == 1:
            blocks.append(wire.message(value))
        elif number == 4:
            version = _version(wire.message(value))
    if not blocks:
        raise wire.Damaged("it holds no block")
    variables = {variable.name: variable for variable in _variables(blocks[0])}
    ops = _ops(blocks, 0, 0)
    if not ops:
        raise wire.Damaged("its main block has no operations")
    fetched = [name for op in ops if op.operator == "fetch" for name in op.inputs]
    fed = [name for op in ops if op.operator == "feed" for name in op.outputs]
    kept = [v.spec for v in sorted(variables.values(), key=lambda v: v.name) if v.persistable and v.is_tensor]
    return Program(
        "legacy",
        version,
        tuple(_spec(variables, name) for name in fed),
        tuple(_spec(variables, name) for name in fetched),
        tuple(kept),
        tuple(op for op in ops if op.operator not in ("feed", "fetch")),
    )


def _spec(variables: dict[str, _Variable], name: str) -> TensorSpec:
    return variables[name].spec if name in variables else TensorSpec(name, "", None)


def _version(data: memoryview) -> str:
    """Version { int64 version = 1 }: 3003001 is 3.3.1; 0 means a development build."""
    number = next((wire.number(value) for field, value in wire.fields(data) if field == 1), 0)
    return f"{number // 1000000}.{number // 1000 % 1000}.{number % 1000}" if number > 0 else ""


def _variables(block: memoryview) -> list[_Variable]:
    """BlockDesc { VarDesc vars = 3 }, VarDesc { name = 1, VarType type = 2, bool persistable = 3 }."""
    found = []
    for number, value in wire.fields(block):
        if number != 3:
            continue
        name, kind, dtype, dims, persistable = "", -1, "", None, False
        for field, content in wire.fields(wire.message(value)):
            if field == 1:
                name = wire.text(content)
            elif field == 2:
                kind, dtype, dims = _type(wire.message(content))
            elif field == 3:
                persistable = bool(wire.number(content))
        shape = None if dims is None else shape_of(dims)
        found.append(_Variable(name, TensorSpec(name, dtype, shape), persistable, kind == _LOD_TENSOR))
    return found


def _type(data: memoryview) -> tuple[int, str, list[int] | None]:
    """VarType { Type type = 1, LoDTensorDesc lod_tensor = 3 { TensorDesc tensor = 1 } }."""
    kind, dtype, dims = -1, "", None
    for number, value in wire.fields(data):
        if number == 1:
            kind = wire.number(value)
        elif number == 3:
            for field, content in wire.fields(wire.message(value)):
                if field == 1:
                    dtype, dims = tensor_desc(wire.message(content))
    return kind, dtype, dims


def tensor_desc(data: memoryview) -> tuple[str, list[int]]:
    """TensorDesc { Type data_type = 1, repeated int64 dims = 2 } → (dtype, dims). Raises wire.Damaged for a type nobody knows."""
    kind, dims = -1, []
    for number, value in wire.fields(data):
        if number == 1:
            kind = wire.number(value)
        elif number == 2:
            dims += wire.varints(value)
    if kind not in DTYPES:
        raise wire.Damaged(f"element type {kind}")
    return DTYPES[kind], dims


def _ops(blocks: list[memoryview], index: int, depth: int) -> tuple[Op, ...]:
    """BlockDesc { OpDesc ops = 4 }; inner blocks are named by number in attributes."""
    if not 0 <= index < len(blocks) or depth > _DEEPEST:
        raise wire.Damaged(f"inner block {index} of {len(blocks)}")
    made: list[Op] = []
    numbers: Counter[str] = Counter()
    for number, value in wire.fields(blocks[index]):
        if number == 4:
            made.append(_op(wire.message(value), blocks, depth, numbers))
    return tuple(made)


def _op(data: memoryview, blocks: list[memoryview], depth: int, numbers: Counter[str]) -> Op:
    """OpDesc { Var inputs = 1, Var outputs = 2, string type = 3, Attr attrs = 4 }, Var { parameter = 1, arguments = 2 }."""
    operator, inner = "", []
    inputs: list[str] = []
    outputs: list[str] = []
    for number, value in wire.fields(data):
        if number in (1, 2):
            names = [wire.text(name) for field, name in wire.fields(wire.message(value)) if field == 2]
            (inputs if number == 1 else outputs).extend(names)
        elif number == 3:
            operator = wire.text(value)
        elif number == 4:
            # Attr { int32 block_idx = 12 }; block 0 is the main one, which nothing holds
            if _BLOCK_KEY not in bytes(wire.message(value)):
                continue
            inner += [wire.number(block) for field, block in wire.fields(wire.message(value)) if field == 12]
    numbers[operator] += 1
    blocks_inside = tuple(op for block in inner if block for op in _ops(blocks, block, depth + 1))
    return Op(operator, f"{operator}.{numbers[operator] - 1}", tuple(inputs), tuple(outputs), {}, blocks_inside)
