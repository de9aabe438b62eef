"""Follows small vectors of ints (shapes, mostly) through a graph as texts, so that rules write `x.reshape([batch, 12, -1])` with
ints where ONNX computes with tensors. What is not understood stays a tensor; nothing is frozen that the graph does not freeze."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Longer vectors are no shapes.
LONGEST = 32


@dataclass(frozen=True)
class Items:
    """texts: one expression per element, a literal or a variable's name. rank: 0 for a single number, 1 for a vector."""

    texts: tuple[str, ...]
    rank: int


class Shapes:
    """What is known of each value, by its id. `line` writes a statement, `name` makes a variable."""

    def __init__(self, line: Callable[[str], None], name: Callable[[str], str]) -> None:
        self._line, self._name = line, name
        self._known: dict[int, Items] = {}
        self._sizes: set[str] = set()

    def get(self, value: Any) -> Items | None:
        return None if value is None else self._known.get(id(value))

    def set_constant(self, value: Any, array: np.ndarray) -> None:
        if array.dtype.kind in "iub" and array.ndim <= 1 and array.size <= LONGEST:
            self._known[id(value)] = Items(tuple(str(n) for n in array.reshape(-1).tolist()), array.ndim)

    def follow(self, node: Any, variable: str, shape: Sequence[Any] | None, constants: Sequence[np.ndarray | None]) -> None:
        """Learn what a node makes. variable, shape: of its first input. constants: of all inputs, where known."""
        rule = _RULES.get(node.op_type)
        if rule is None or not node.outputs:
            return
        made = self.size_of(node, variable, shape) if node.op_type == "Shape" else rule(self, node, constants)
        if made is not None and len(made.texts) <= LONGEST:
            self._known[id(node.outputs[0])] = made

    def size_of(self, node: Any, variable: str, shape: Sequence[Any] | None) -> Items | None:
        """Shape: lengths that are fixed, and variables for the others."""
        if shape is None or "." in variable:
            return None
        begin = node.attributes["start"].value if "start" in node.attributes else 0
        end = node.attributes["end"].value if "end" in node.attributes else None
        texts = []
        for axis in range(len(shape))[begin:end]:
            length = shape[axis]
            if isinstance(length, int):
                texts.append(str(length))
            else:
                texts.append(self.number(f"{variable}_size{axis}", f"{variable}.size({axis})"))
                self._sizes.add(texts[-1])
        return Items(tuple(texts), 1)

    def number(self, wish: str, text: str) -> str:
        """A variable for a computed int."""
        name = self._name(wish)
        self._line(f"{name} = {text}")
        return name

    def two(self, node: Any, sign: str) -> Items | None:
        """Elementwise arithmetic of ints, vectors with vectors or with one number."""
        a, b = self.get(node.inputs[0]), self.get(node.inputs[1])
        if a is None or b is None:
            return None
        count = max(len(a.texts), len(b.texts))
        if {len(a.texts), len(b.texts)} - {1, count}:
            return None
        pairs = [(a.texts[i % len(a.texts)], b.texts[i % len(b.texts)]) for i in range(count)]
        texts = [self._calculated(node, sign, left, right) for left, right in pairs]
        return None if None in texts else Items(tuple(text for text in texts if text is not None), max(a.rank, b.rank))

    def _calculated(self, node: Any, sign: str, left: str, right: str) -> str | None:
        if _is_literal(left) and _is_literal(right):
            x, y = int(left), int(right)
            if sign == "//" and (x < 0 or y <= 0):
                return None
            return str({"+": x + y, "-": x - y, "*": x * y, "//": x // y if y else 0}[sign])
        if sign == "//" and not (left in self._sizes and _is_literal(right) and int(right) > 0):
            return None  # ONNX cuts towards zero, // goes down: the same for lengths only
        made = self.number(node.outputs[0].name or "n", f"{left} {sign} {right}")
        if sign != "-" and all(text in self._sizes or (_is_literal(text) and int(text) >= 0) for text in (left, right)):
            self._sizes.add(made)
        return made

    def equal(self, left: str, right: str) -> str | None:
        """ "True" or "False" where that is certain: a length is never negative."""
        if _is_literal(left) and _is_literal(right):
            return str(int(left) == int(right))
        literal, other = (left, right) if _is_literal(left) else (right, left)
        return "False" if _is_literal(literal) and int(literal) < 0 and other in self._sizes else None


def _is_literal(text: str) -> bool:
    return text.removeprefix("-").isdigit()


def _ints(constant: np.ndarray | None) -> list[int] | None:
    return None if constant is None else [int(n) for n in constant.reshape(-1)]


def _gather(shapes: Shapes, node: Any, constants: Sequence[np.ndarray | None]) -> Items | None:
    source, at = shapes.get(node.inputs[0]), constants[1]
    if source is None or source.rank != 1 or at is None or at.ndim > 1:
        return None
    places = [int(n) for n in at.reshape(-1)]
    if any(not -len(source.texts) <= place < len(source.texts) for place in places):
        return None
    return Items(tuple(source.texts[place] for place in places), at.ndim)


def _slice(shapes: Shapes, node: Any, constants: Sequence[np.ndarray | None]) -> Items | None:
    source = shapes.get(node.inputs[0])
    if source is None or source.rank != 1:
        return None
    if len(node.inputs) == 1:
        begin, end, step = (_ints(np.array(node.attributes[name].value)) for name in ("starts", "ends", "ends"))
        step = [1]
    else:
        begin, end = _ints(constants[1]), _ints(constants[2])
        given = len(node.inputs) > 4 and node.inputs[4] is not None
        step = _ints(constants[4]) if given else [1]
    if begin is None or end is None or step is None or len(begin) != 1:
        return None
    return Items(source.texts[slice(begin[0], end[0], step[0])], 1)


def _concat(shapes: Shapes, node: Any, constants: Sequence[np.ndarray | None]) -> Items | None:
    parts = [shapes.get(value) for value in node.inputs]
    if any(part is None or part.rank != 1 for part in parts):
        return None
    return Items(tuple(text for part in parts if part is not None for text in part.texts), 1)


def _as_rank(rank: int | None) -> Callable[[Shapes, Any, Sequence[np.ndarray | None]], Items | None]:
    """The same numbers, as a vector or as a single one."""

    def rule(shapes: Shapes, node: Any, constants: Sequence[np.ndarray | None]) -> Items | None:
        source = shapes.get(node.inputs[0])
        if source is None or (rank is not None and (len(source.texts) != 1 or (node.op_type == "Unsqueeze" and source.rank))):
            return None
        return Items(source.texts, source.rank if rank is None else rank)

    return rule


def _reshape(shapes: Shapes, node: Any, constants: Sequence[np.ndarray | None]) -> Items | None:
    source, shape = shapes.get(node.inputs[0]), constants[1] if len(constants) > 1 else None
    if source is None or shape is None or shape.size > 1:
        return None
    return Items(source.texts, shape.size) if shape.size or len(source.texts) == 1 else None


def _cast(shapes: Shapes, node: Any, constants: Sequence[np.ndarray | None]) -> Items | None:
    source = shapes.get(node.inputs[0])
    return source if node.attributes["to"].value in (6, 7) else None  # INT32, INT64


def _constant_of_shape(shapes: Shapes, node: Any, constants: Sequence[np.ndarray | None]) -> Items | None:
    source = shapes.get(node.inputs[0])
    value = node.attributes["value"].value.numpy() if "value" in node.attributes else np.zeros(1, np.float32)
    if source is None or value.dtype.kind != "i" or len(source.texts) != 1 or not _is_literal(source.texts[0]):
        return None
    count = int(source.texts[0])
    return Items((str(int(value.reshape(-1)[0])),) * count, 1) if count <= LONGEST else None


def _equal(shapes: Shapes, node: Any, constants: Sequence[np.ndarray | None]) -> Items | None:
    a, b = shapes.get(node.inputs[0]), shapes.get(node.inputs[1])
    if a is None or b is None or len(a.texts) != len(b.texts):
        return None
    texts = [shapes.equal(left, right) for left, right in zip(a.texts, b.texts, strict=True)]
    return None if None in texts else Items(tuple(str(text) for text in texts), max(a.rank, b.rank))


def _where(shapes: Shapes, node: Any, constants: Sequence[np.ndarray | None]) -> Items | None:
    which, a, b = (shapes.get(value) for value in node.inputs)
    if which is None or a is None or b is None or not len(which.texts) == len(a.texts) == len(b.texts):
        return None
    if set(which.texts) - {"True", "False"}:
        return None
    return Items(tuple(x if w == "True" else y for w, x, y in zip(which.texts, a.texts, b.texts, strict=True)), a.rank)


_RULES: dict[str, Callable[[Shapes, Any, Sequence[np.ndarray | None]], Items | None]] = {
    "Shape": lambda shapes, node, constants: None,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Squeeze": _as_rank(0),
    "Unsqueeze": _as_rank(1),
    "Identity": _as_rank(None),
    "Reshape": _reshape,
    "Cast": _cast,
    "ConstantOfShape": _constant_of_shape,
    "Equal": _equal,
    "Where": _where,
    "Add": lambda shapes, node, constants: shapes.two(node, "+"),
    "Sub": lambda shapes, node, constants: shapes.two(node, "-"),
    "Mul": lambda shapes, node, constants: shapes.two(node, "*"),
    "Div": lambda shapes, node, constants: shapes.two(node, "//"),
}
