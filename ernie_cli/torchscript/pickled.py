"""Reads the pickles in a TorchScript archive by looking at them: no class is imported, no function called, no tensor loaded.

Only the opcodes and globals that torch's own writer uses are known; anything else is an InputError.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError

#: torch's storage classes → (numpy's name, bytes per element).
STORAGES = {
    "DoubleStorage": ("float64", 8),
    "FloatStorage": ("float32", 4),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
    "ComplexFloatStorage": ("complex64", 8),
    "ComplexDoubleStorage": ("complex128", 16),
    "QInt8Storage": ("qint8", 1),
    "QUInt8Storage": ("quint8", 1),
    "QInt32Storage": ("qint32", 4),
    "Float8_e4m3fnStorage": ("float8_e4m3fn", 1),
    "Float8_e5m2Storage": ("float8_e5m2", 1),
}
#: A model of 10,000 tensors takes 600,000.
_MOST_OPCODES = 4_000_000
_MOST_DEPTH = 100
_AGAIN = "save it again: torch.jit.script(module).save('model.pt')"


class _Strange(Exception):
    """What a pickle of torch's never holds."""


@dataclass(frozen=True)
class Global:
    """The name of a class or function, not the thing."""

    name: str


@dataclass
class Tensor:
    """A tensor's description. key: the record that holds its storage; stored: elements of that storage; offset, strides: in elements."""

    key: str
    dtype: str
    itemsize: int
    stored: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] = ()


@dataclass
class Object:
    """An instance of a TorchScript class: its class's name and its attributes."""

    kind: str
    state: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Mark:
    pass


_MARK = _Mark()


def read(content: bytes, where: str) -> Any:
    """The value that a pickle describes, of None, bool, int, float, str, tuple, list, dict, Tensor, Object and Global.

    where: names the record in errors. Raises InputError for anything that torch's writer does not write.
    """
    try:
        return _Reader().read(content)
    except (_Strange, ValueError, IndexError, KeyError, TypeError, OverflowError, AttributeError) as err:
        raise InputError(f"{where}: no pickle of TorchScript's, or a damaged one: {err!s:.200}", _AGAIN) from err


def tensors(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor within `value` with its attribute path (`fc1.weight`, `states.0`), each object visited once.

    Raises InputError where values are nested more deeply than any module is.
    """
    seen: set[int] = set()
    pending = [(path, value, 0)]
    while pending:
        at, here, depth = pending.pop()
        if depth > _MOST_DEPTH:
            raise InputError(f"values nested more than {_MOST_DEPTH} deep: not a model", _AGAIN)
        if isinstance(here, Tensor):
            yield at, here
        if not isinstance(here, Object | tuple | list | dict) or id(here) in seen:
            continue
        seen.add(id(here))
        inner = here.state if isinstance(here, Object) else here if isinstance(here, dict) else dict(enumerate(here))
        below = [(f"{at}.{name}" if at else str(name), part, depth + 1) for name, part in inner.items()]
        pending += reversed(below)


class _Reader:
    """A stack machine over pickletools' opcodes."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def read(self, content: bytes) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            if count > _MOST_OPCODES:
                raise _Strange("too long")
            if opcode.name == "STOP" and len(self.stack) == 1:
                return self.stack.pop()
            step = _STEPS.get(opcode.name)
            if step is None:
                raise _Strange(f"the opcode {opcode.name}")
            step(self, argument)
        raise _Strange("it has no end")

    def above_mark(self) -> list[Any]:
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise _Strange("a missing mark")
        found = self.stack[at + 1 :]
        del self.stack[at:]
        return found

    def fold(self, count: int) -> None:
        parts = [self.stack.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(parts)))

    def set_items(self, pairs: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(pairs) % 2:
            raise _Strange("items for what is no dict")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            target[key if isinstance(key, str | int | float) else f"key {len(target)}"] = value

    def extend(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise _Strange("items for what is no list")
        self.stack[-1].extend(items)

    def new(self) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        if not isinstance(kind, Global) or arguments != ():
            raise _Strange("an object of no class")
        self.stack.append(Object(kind.name))

    def build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], Object):
            raise _Strange("state for what is no object")
        if self.stack[-1].state:
            raise _Strange("an object built twice")
        self.stack[-1].state = state if isinstance(state, dict) else {"state": state}

    def load_storage(self) -> None:
        _, storage, key, _, count = self.stack.pop()
        name = storage.name.rpartition(".")[2]
        if name not in STORAGES or not isinstance(key, str) or not isinstance(count, int) or count < 0:
            raise _Strange(f"a storage of {name!r:.40}")
        self.stack.append((key, *STORAGES[name], count))

    def reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise _Strange("a call of no function")
        self.stack.append(_called(function.name, arguments))


def _called(name: str, arguments: tuple[Any, ...]) -> Any:
    """What torch's writer means by a call; nothing is called."""
    if name in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_qtensor", "torch._utils._rebuild_tensor_v3"):
        (key, dtype, itemsize, stored), offset, shape, strides = arguments[:4]
        numbers = (offset, *shape, *strides)
        if not all(isinstance(number, int) and 0 <= number < 1 << 62 for number in numbers) or len(shape) != len(strides):
            raise _Strange("a tensor of impossible shape")
        last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
        if 0 not in shape and stored and last >= stored:
            raise _Strange(f"a tensor of shape {list(shape)!r:.60} in a storage of {stored} elements")
        return Tensor(key, dtype, itemsize, stored, offset, tuple(shape), tuple(strides))
    if name == "torch.jit._pickle.restore_type_tag":
        return arguments[0]
    if name.startswith("torch.jit._pickle.build_"):
        return list(arguments[0])
    if name == "collections.OrderedDict":
        return dict(arguments[0]) if arguments else {}
    if name in ("torch._utils._rebuild_parameter", "torch._utils._rebuild_sparse_tensor", "torch.device", "builtins.complex"):
        return arguments[0] if name.endswith("_rebuild_parameter") else arguments
    raise _Strange(f"a call of {name!r:.60}")


def _push(reader: _Reader, argument: Any) -> None:
    reader.stack.append(argument)


def _constant(value: Any) -> Callable[[_Reader, Any], None]:
    return lambda reader, _: reader.stack.append(value)


_STEPS: dict[str, Callable[[_Reader, Any], None]] = {
    **dict.fromkeys(
        ("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING"),
        _push,
    ),
    "PROTO": lambda reader, argument: None,
    "NONE": _constant(None),
    "NEWTRUE": _constant(True),
    "NEWFALSE": _constant(False),
    "MARK": _constant(_MARK),
    "EMPTY_TUPLE": _constant(()),
    "EMPTY_LIST": lambda reader, _: reader.stack.append([]),
    "EMPTY_DICT": lambda reader, _: reader.stack.append({}),
    "TUPLE": lambda reader, _: reader.stack.append(tuple(reader.above_mark())),
    "TUPLE1": lambda reader, _: reader.fold(1),
    "TUPLE2": lambda reader, _: reader.fold(2),
    "TUPLE3": lambda reader, _: reader.fold(3),
    "APPEND": lambda reader, _: reader.extend([reader.stack.pop()]),
    "APPENDS": lambda reader, _: reader.extend(reader.above_mark()),
    "SETITEM": lambda reader, _: reader.set_items([reader.stack.pop(-2), reader.stack.pop()]),
    "SETITEMS": lambda reader, _: reader.set_items(reader.above_mark()),
    "BINPUT": lambda reader, argument: reader.memo.__setitem__(argument, reader.stack[-1]),
    "LONG_BINPUT": lambda reader, argument: reader.memo.__setitem__(argument, reader.stack[-1]),
    "BINGET": lambda reader, argument: reader.stack.append(reader.memo[argument]),
    "LONG_BINGET": lambda reader, argument: reader.stack.append(reader.memo[argument]),
    "GLOBAL": lambda reader, argument: reader.stack.append(Global(argument.replace(" ", "."))),
    "NEWOBJ": lambda reader, _: reader.new(),
    "BUILD": lambda reader, _: reader.build(),
    "BINPERSID": lambda reader, _: reader.load_storage(),
    "REDUCE": lambda reader, _: reader.reduce(),
}
