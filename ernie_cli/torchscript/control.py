"""If, Loop, Scan and SequenceMap as TorchScript statements: conditions are decided and bodies repeated at run time, nothing is traced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .node import Unmapped, literal
from .ops.control_parts import at_axis, no_steps, stacked, steps_of
from .types import dtype_text

FOREVER = 2**63 - 1


def write_if(writer: Any, node: Any) -> None:
    """`if bool(condition):`, both branches assigning the node's outputs."""
    names = [writer.name(value, "If") for value in node.outputs]
    branches = [node.attributes[key].value for key in ("then_branch", "else_branch")]
    condition = writer.fact(node.inputs[0]).const
    if condition is not None:
        branches = [branches[0 if condition.reshape(-1)[0] else 1]]
    else:
        writer.line(f"if bool({writer.variable(node.inputs[0])}):")
    for number, branch in enumerate(branches):
        if number:
            writer.line("else:")
        writer.indent += len(branches) > 1
        writer.body(branch)
        for name, value, source in zip(names, node.outputs, branch.outputs, strict=True):
            writer.kinds[id(value)] = _wider(writer.kinds[id(value)], writer.kinds.get(id(source), "tensor"))
            writer.line(f"{_typed(writer, name, value)} = {writer.variable(source)}")
        if not node.outputs:
            writer.line("pass")
        writer.indent -= len(branches) > 1


def write_loop(writer: Any, node: Any) -> None:
    """`while i < trips and go:` with the carried values as variables and the scanned ones as lists."""
    body = node.attributes["body"].value
    limit, go = (node.inputs[i] if i < len(node.inputs) else None for i in (0, 1))
    carried = len(body.inputs) - 2
    state = [writer.name(value, "Loop") for value in node.outputs[:carried]]
    for name, value, source, inner in zip(state, node.outputs, node.inputs[2:], body.inputs[2:], strict=False):
        writer.kinds[id(value)] = _wider(writer.kind(value, ""), writer.kind(inner, ""))
        writer.line(f"{_typed(writer, name, value)} = {writer.variable(source)}")
    rows = [writer.names.new(f"rows_{value.name}") for value in body.outputs[1 + carried :]]
    for name in rows:
        writer.line(f"{name}: List[Tensor] = []")
    count, proceed, trips = (writer.names.new(name) for name in ("i", "go", "trips"))
    writer.line(f"{count} = 0")
    writer.line(f"{proceed} = {'True' if go is None else f'bool({writer.variable(go)})'}")
    writer.line(f"{trips} = {FOREVER if limit is None else f'int({writer.variable(limit)}.item())'}")
    writer.line(f"while {count} < {trips} and {proceed}:")
    writer.indent += 1
    writer.line(f"{writer.name(body.inputs[0], 'Loop')} = torch.tensor({count}, dtype=torch.int64, device={writer.device})")
    writer.line(f"{writer.name(body.inputs[1], 'Loop')} = torch.tensor({proceed}, dtype=torch.bool, device={writer.device})")
    for inner, name, value in zip(body.inputs[2:], state, node.outputs, strict=False):
        writer.alias(inner, name)
        writer.kinds[id(inner)] = writer.kinds[id(value)]
    writer.body(body)
    for name, value in zip(rows, body.outputs[1 + carried :], strict=True):
        writer.line(f"{name}.append({writer.variable(value)})")
    writer.line(f"{proceed} = bool({writer.variable(body.outputs[0])})")
    _carry(writer, state, body.outputs[1 : 1 + carried], node.outputs)
    writer.line(f"{count} = {count} + 1")
    writer.indent -= 1
    _stack(writer, rows, node.outputs[carried:], body.outputs[1 + carried :], [0] * len(rows), [0] * len(rows))


def write_scan(writer: Any, node: Any) -> None:
    """`for i in range(steps):` over slices of the scanned inputs."""
    if (node.version or writer.opset) < 9:
        raise Unmapped("Scan of opset 8, with a batch axis")
    body = node.attributes["body"].value
    scanned = node.attributes["num_scan_inputs"].value
    carried = len(node.inputs) - scanned
    axes, reverse = _ints(node, "scan_input_axes", scanned), _ints(node, "scan_input_directions", scanned)
    state = [writer.name(value, "Scan") for value in node.outputs[:carried]]
    for name, source in zip(state, node.inputs, strict=False):
        writer.line(f"{name} = {writer.variable(source)}")
    sources = [writer.variable(value) for value in node.inputs[carried:]]
    rows = [writer.names.new(f"rows_{value.name}") for value in body.outputs[carried:]]
    for name in rows:
        writer.line(f"{name}: List[Tensor] = []")
    count, steps = writer.names.new("i"), writer.names.new("steps")
    writer.line(f"{steps} = {part(writer, steps_of, sources[0], axes[0])}")
    writer.line(f"for {count} in range({steps}):")
    writer.indent += 1
    for inner, name in zip(body.inputs, state, strict=False):
        writer.alias(inner, name)
    for inner, source, axis, back in zip(body.inputs[carried:], sources, axes, reverse, strict=True):
        index = f"{steps} - 1 - {count}" if back else count
        writer.line(f"{writer.name(inner, 'Scan')} = {part(writer, at_axis, source, axis, index)}")
    writer.body(body)
    for name, value in zip(rows, body.outputs[carried:], strict=True):
        writer.line(f"{name}.append({writer.variable(value)})")
    _carry(writer, state, body.outputs[:carried], node.outputs)
    writer.indent -= 1
    out_axes, out_reverse = _ints(node, "scan_output_axes", len(rows)), _ints(node, "scan_output_directions", len(rows))
    _stack(writer, rows, node.outputs[carried:], body.outputs[carried:], out_axes, out_reverse)


def write_sequence_map(writer: Any, node: Any) -> None:
    """`for i in range(len(sequence)):`, one list per output."""
    body = node.attributes["body"].value
    lists = [writer.name(value, "SequenceMap") for value in node.outputs]
    for name in lists:
        writer.line(f"{name}: List[Tensor] = []")
    count = writer.names.new("i")
    writer.line(f"for {count} in range(len({writer.variable(node.inputs[0])})):")
    writer.indent += 1
    for inner, source in zip(body.inputs, node.inputs, strict=True):
        sequence = writer.kinds.get(id(source)) == "sequence"
        writer.line(f"{writer.name(inner, 'SequenceMap')} = {writer.variable(source)}{f'[{count}]' if sequence else ''}")
    writer.body(body)
    for name, value in zip(lists, body.outputs, strict=True):
        writer.line(f"{name}.append({writer.variable(value)})")
    writer.indent -= 1


#: The operators with subgraphs, and what writes them.
CONTROL: dict[str, Callable[[Any, Any], None]] = {
    "If": write_if,
    "Loop": write_loop,
    "Scan": write_scan,
    "SequenceMap": write_sequence_map,
}


def part(writer: Any, function: Callable[..., Any], *args: Any) -> str:
    """A call of a helper function, as Node.call writes it."""
    name = f"op_{function.__module__.rsplit('.', 1)[-1]}_{function.__name__}"
    writer.out.functions[name] = function
    return f"{name}({', '.join(arg if isinstance(arg, str) else literal(arg) for arg in args)})"


def _typed(writer: Any, name: str, value: Any) -> str:
    return name if writer.kinds[id(value)] == "tensor" else f"{name}: {writer.type_of(value)}"


def _wider(one: str, other: str) -> str:
    """The kind that holds both: an optional one where either is."""
    if one == other:
        return one
    for kind in ("optional_sequence", "optional"):
        if kind in (one, other):
            return "optional_sequence" if "sequence" in (one, other) else kind
    return "sequence"


def _carry(writer: Any, state: Sequence[str], values: Sequence[Any], outputs: Sequence[Any]) -> None:
    """Set all carried variables at once: a body may swap them."""
    new = [writer.variable(value) for value in values]
    moved = [(name, source) for name, source in zip(state, new, strict=True) if name != source]
    if any(source in state for _, source in moved):
        held = [writer.names.new("held") for _ in moved]
        for name, (_, source) in zip(held, moved, strict=True):
            writer.line(f"{name} = {source}")
        moved = [(name, kept) for (name, _), kept in zip(moved, held, strict=True)]
    for name, source in moved:
        writer.line(f"{name} = {source}")


def _stack(
    writer: Any, rows: Sequence[str], outputs: Sequence[Any], inner: Sequence[Any], axes: Sequence[int], reverse: Sequence[int]
) -> None:
    """The lists of rows as tensors along their axes; with no rows at all, an empty one of the right type and rank."""
    for name, value, row, axis, back in zip(rows, outputs, inner, axes, reverse, strict=True):
        fact = writer.fact(row)
        shape = [n if isinstance(n, int) else 0 for n in fact.shape or ()]
        empty = part(writer, no_steps, shape, axis, dtype_text(fact.dtype or "float32"), writer.device)
        writer.line(f"{writer.name(value, 'Loop')} = {part(writer, stacked, name, axis, bool(back), empty)}")


def _ints(node: Any, name: str, count: int) -> list[int]:
    return list(node.attributes[name].value) if name in node.attributes else [0] * count
