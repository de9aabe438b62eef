"""Puts right what paddle2onnx writes wrongly into an ONNX graph, and gives its inputs, outputs and axes their names."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..need import need
from ..runtime.graphs import TensorSpec
from .program import Program


def stack_states(graph: Any, program: Program) -> int:
    """The last states of a recurrent operator of several layers are all layers', not only the last one's, as paddle2onnx has it.

    Returns how many were put right. Each state is [layers × directions, batch, hidden].
    """
    made = {name: node for node in graph.node for name in node.output}
    rnns = [op for op in program.walk() if op.operator == "pd_op.rnn"]
    changed = 0
    for number, op in enumerate(rnns):
        layers = int(op.attributes.get("num_layers") or 1)
        for state in range(2) if layers > 1 else ():
            node = made.get(f"p2o.pd_op.rnn.{number}.2_{state}")
            if node is not None and node.op_type == "Identity" and node.input[0] in made:
                _stack(graph, node, made, layers, 1 + state)
                changed += 1
    return changed


def _stack(graph: Any, identity: Any, made: dict[str, Any], layers: int, output: int) -> None:
    """Make `identity` the concatenation of output number `output` of the recurrent node before it and of those below that."""
    onnx = need("onnx")
    cells = _cells(made[identity.input[0]], made)[:layers]
    for index, cell in enumerate(cells):
        while len(cell.output) <= output:
            cell.output.append("")
        if not cell.output[output]:
            cell.output[output] = f"{identity.output[0]}.layer{len(cells) - 1 - index}"
    identity.op_type = "Concat"
    identity.input[:] = [cell.output[output] for cell in reversed(cells)]
    identity.attribute.append(onnx.helper.make_attribute("axis", 0))


def _cells(node: Any, made: dict[str, Any]) -> list[Any]:
    """The recurrent nodes from `node` down to the first layer, along what each takes as its sequence."""
    found = []
    while node is not None:
        if node.op_type in ("LSTM", "GRU", "RNN"):
            found.append(node)
        elif node.op_type not in ("Reshape", "Transpose", "Squeeze", "Identity", "Concat"):
            break
        node = made.get(node.input[0]) if node.input else None
    return found


def best_first(graph: Any, program: Program) -> int:
    """Paddle suppresses among the best `nms_top_k` boxes of each class; paddle2onnx keeps that many of what was suppressed among all.

    Here all scores but the best ones are put out of reach before. Returns how many operators were put right.
    """
    limits = [int(op.attributes.get("nms_top_k") or -1) for op in program.walk() if op.operator == "pd_op.multiclass_nms3"]
    found = [index for index, node in enumerate(graph.node) if node.op_type == "NonMaxSuppression"]
    if len(limits) != len(found):
        return 0
    changes = [(index, limit) for index, limit in zip(found, limits, strict=True) if limit > 0]
    for index, limit in reversed(changes):  # from the end, so that the indices stay
        for node in reversed(_only_best(graph.node[index], limit)):
            graph.node.insert(index, node)
    return len(changes)


def _only_best(nms: Any, limit: int) -> list[Any]:
    """Nodes that put -inf in place of all but the `limit` best scores of each class, and make `nms` take these."""
    onnx = need("onnx")
    make, name, scores = onnx.helper.make_node, f"{nms.output[0]}.best", nms.input[1]

    def constant(values: list[Any], suffix: str, dtype: Any) -> Any:
        tensor = onnx.numpy_helper.from_array(np.asarray(values, dtype=dtype))
        return make("Constant", [], [f"{name}.{suffix}"], value=tensor)

    nms.input[1] = f"{name}.scores"
    lowest = onnx.numpy_helper.from_array(np.asarray([-np.inf], dtype=np.float32))
    return [
        constant([limit], "limit", np.int64),
        constant([2], "axis", np.int64),
        make("Shape", [scores], [f"{name}.shape"]),
        make("Gather", [f"{name}.shape", f"{name}.axis"], [f"{name}.boxes"], axis=0),
        make("Min", [f"{name}.limit", f"{name}.boxes"], [f"{name}.k"]),
        make("TopK", [scores, f"{name}.k"], [f"{name}.values", f"{name}.index"], axis=2),
        make("ConstantOfShape", [f"{name}.shape"], [f"{name}.lowest"], value=lowest),
        make("ScatterElements", [f"{name}.lowest", f"{name}.index", f"{name}.values"], [f"{name}.scores"], axis=2),
    ]


def repeat_each(graph: Any, program: Program) -> int:
    """`repeat_interleave` by a number repeats each element of its axis; paddle2onnx writes a Tile of another rank. Returns how many."""
    made = {name: node for node in graph.node for name in node.output}
    repeats = [int(op.attributes["repeats"]) for op in program.walk() if op.operator == "pd_op.repeat_interleave"]
    changed = 0
    for number, times in enumerate(repeats):
        joined = made.get(f"p2o.pd_op.repeat_interleave.{number}.0")
        tile = made.get(joined.input[0]) if joined is not None and joined.op_type == "Concat" else None
        if joined is None or tile is None or tile.op_type != "Tile":
            continue
        split = made.get(tile.input[0])  # into single elements, where the length is known
        data = split.input[0] if split is not None and split.op_type == "Split" else tile.input[0]
        at = list(graph.node).index(joined)
        for node in reversed(_each(data, joined, times)):
            graph.node.insert(at, node)
        for node in (*(made[name] for name in joined.input), joined):
            graph.node.remove(node)
        changed += 1
    return changed


def _each(data: str, joined: Any, times: int) -> list[Any]:
    """Nodes that gather every element of `data` `times` times, along the axis and under the name of `joined`."""
    onnx = need("onnx")
    make, name, axis = onnx.helper.make_node, joined.output[0], joined.attribute[0].i

    def constant(tag: str, value: Any) -> Any:
        return make("Constant", [], [f"{name}.{tag}"], value=onnx.numpy_helper.from_array(np.asarray(value, np.int64)))

    return [
        *(constant(tag, value) for tag, value in (("axis", axis), ("times", times), ("zero", 0), ("one", 1))),
        make("Shape", [data], [f"{name}.shape"]),
        make("Gather", [f"{name}.shape", f"{name}.axis"], [f"{name}.length"]),
        make("Mul", [f"{name}.length", f"{name}.times"], [f"{name}.longer"]),
        make("Range", [f"{name}.zero", f"{name}.longer", f"{name}.one"], [f"{name}.places"]),
        make("Div", [f"{name}.places", f"{name}.times"], [f"{name}.index"]),
        make("Gather", [data, f"{name}.index"], [name], axis=axis),
    ]


def name_outputs(graph: Any, names: list[str]) -> None:
    """Call the outputs `names`, in order."""
    onnx = need("onnx")
    taken = {name for node in graph.node for name in node.output} | {value.name for value in graph.input}
    for value, name in zip(graph.output, names, strict=True):
        if value.name == name:
            continue
        if name in taken:  # a value inside has the name already: let that one go by another
            _rename(graph, name, f"{name}.inner")
        graph.node.append(onnx.helper.make_node("Identity", [value.name], [name], name=f"output.{name}"))
        value.name = name


def _rename(graph: Any, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new


def name_axes(graph: Any, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
    """Give the dynamic axes the names that `inputs` and `outputs` have for them; an axis without one is just unknown."""
    known = {spec.name: spec for spec in (*inputs, *outputs)}
    for value in (*graph.input, *graph.output):
        spec = known.get(value.name)
        shape = value.type.tensor_type.shape
        for axis, dim in enumerate(shape.dim):
            if dim.HasField("dim_value"):
                continue
            dim.Clear()
            name = spec.shape[axis] if spec is not None and spec.shape is not None and len(spec.shape) == len(shape.dim) else None
            if isinstance(name, str):
                dim.dim_param = name
