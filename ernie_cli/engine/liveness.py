"""How much memory the values between nodes take at most at one moment, with what a compiler fuses not counted. Knows no library's log."""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

#: What needs its inputs in memory and writes its output there: products, sums over axes, what moves windows or rows.
HEAVY = {
    "MatMul", "Gemm", "Conv", "ConvTranspose", "Attention", "Einsum", "MatMulInteger", "ConvInteger", "LSTM", "GRU", "RNN",
    "RMSNormalization", "LayerNormalization", "InstanceNormalization", "GroupNormalization", "Softmax", "LogSoftmax", "ReduceMean",
    "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ArgMax", "ArgMin", "TopK", "CumSum", "MaxPool",
    "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "Resize", "Upsample", "GridSample", "RoiAlign", "Gather", "GatherND",
    "GatherElements", "ScatterND", "ScatterElements", "NonZero", "NonMaxSuppression", "If", "Loop", "Scan",
}  # fmt: skip
#: What gives its input another name, or is computed where it is read.
VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Dropout", "DequantizeLinear"}
#: What writes into memory that it is given, at once.
_IN_PLACE = {"TensorScatter"}
#: What a product or convolution does on the way out, without a value in between.
_AFTER = {
    **dict.fromkeys(("MatMul", "Gemm"), frozenset(("Add", "Cast"))),
    **dict.fromkeys(("Conv", "ConvTranspose"), frozenset(("Add", "Relu", "Clip", "LeakyRelu", "PRelu", "Sigmoid", "HardSwish", "Mul"))),
}


Size = Callable[[ir.Value], int | None]


@dataclass(frozen=True)
class Live:
    """peak: bytes. at: the node where they are needed. values: how many have memory of their own; convolved: those of convolutions
    in float. unknown: how many values have sizes that nobody knows, counted as none.
    """

    peak: int
    at: str
    values: int
    convolved: int
    unknown: int


def peak(graph: ir.Graph, size: Size, scratch: Callable[[ir.Node], Sequence[int]] = lambda _node: ()) -> Live:
    """The most bytes that values made in `graph` take together, in the order that its nodes stand in.

    Each lies at the lowest place that is free when it is made, and stays there, so that gaps are left: a compiler plans memory
    like that. Inputs, outputs and constants of the graph lie elsewhere and do not count. size: of a value, None where it is not
    known. scratch: pieces that a node needs for itself.
    """
    constant = _constants(graph)
    nodes = [node for node in graph if not all(value in constant for value in node.outputs)]
    kept = _kept(nodes)
    last, done = _last_uses(nodes, kept)
    pieces: dict[int, list[int]] = defaultdict(list)
    for index, node in enumerate(nodes):
        inner = max((peak(each, size, scratch).peak for each in _inner(node)), default=0)
        pieces[done[index]] = max(pieces[done[index]], [*scratch(node), inner], key=sum)  # what is computed there as one needs it once
    arena, unknown = Arena(), 0
    at = ""
    for index, node in enumerate(nodes):
        before = arena.end
        for value in (each for each in node.outputs if each in kept):
            found = size(value)
            unknown += found is None
            arena.put(found or 0, last.get(value, index))
        for piece in pieces[index]:
            arena.put(piece, index)
        arena.free(index)
        at = str(node.name or node.op_type) if arena.end > before else at
    convolved = sum(node.op_type in ("Conv", "ConvTranspose") and not is_dequantized(node.inputs[0]) for node in nodes)
    return Live(arena.end, at, len(kept), min(convolved, len(kept)), unknown)


def is_dequantized(value: ir.Value | None) -> bool:
    """Whether it is codes made wide."""
    node = None if value is None else value.producer()
    return node is not None and node.op_type == "DequantizeLinear"


class Arena:
    """Memory in which blocks are put at the lowest place that is free. end: how far it ever reached, in bytes."""

    def __init__(self) -> None:
        self._blocks: list[tuple[int, int, int]] = []  # first byte, byte after the last, when it is given back: sorted
        self.end = 0

    def put(self, n_bytes: int, until: int) -> None:
        """A block that lives up to and including the moment `until`."""
        begin = 0
        for start, stop, _ in self._blocks:
            if start - begin >= n_bytes:
                break
            begin = stop
        bisect.insort(self._blocks, (begin, begin + n_bytes, until))
        self.end = max(self.end, begin + n_bytes)

    def free(self, moment: int) -> None:
        """Give back what lived until `moment`."""
        self._blocks = [block for block in self._blocks if block[2] > moment]


def _constants(graph: ir.Graph) -> set[ir.Value]:
    """Values that are known before the engine runs, as dequantised weights are."""
    found = set(graph.initializers.values()) - set(graph.inputs)
    for node in graph:
        if not _inner(node) and all(value is None or value in found for value in node.inputs):
            found |= set(node.outputs)
    return found


def _last_uses(nodes: list[ir.Node], kept: set[ir.Value]) -> tuple[dict[ir.Value, int], list[int]]:
    """(value → the last node that needs it in memory, when each node is computed): one that keeps nothing, where its result is needed."""
    last: dict[ir.Value, int] = {}
    done = list(range(len(nodes)))
    for index in reversed(range(len(nodes))):
        node = nodes[index]
        if node.op_type not in _IN_PLACE and not any(value in kept for value in node.outputs):
            done[index] = max([index, *(last.get(value, index) for value in node.outputs)])
        for value in _read(node):
            last[value] = max(last.get(value, 0), done[index])
    return last, done


def _kept(nodes: list[ir.Node]) -> set[ir.Value]:
    """Values with memory of their own: read in several places, or by what needs them whole; not what a reader takes up at once."""
    found: set[ir.Value] = set()
    taken: set[ir.Node] = set()  # what is computed on the way out of a product already: no second one ends there
    for node in reversed(nodes):
        for value in node.outputs:
            if value.is_graph_output() or node.op_type in VIEWS | _IN_PLACE:
                continue
            readers = _readers(value)
            after = readers[0] if len(readers) == 1 else None
            if node.op_type in HEAVY:
                joins = after is not None and after.op_type in _AFTER.get(node.op_type, ()) and after not in taken
                if joins and after is not None:
                    taken.add(after)
            else:
                joins = (after is None and not readers) or (after is not None and after.op_type not in HEAVY)
            if not joins:
                found.add(value)
    return found


def _readers(value: ir.Value) -> list[ir.Node]:
    """Who computes with it, under whatever name it goes by then."""
    found: dict[ir.Node, None] = {}
    pending = [value]
    while pending:
        for node, _ in pending.pop().uses():
            if node.op_type in VIEWS and not any(each.is_graph_output() for each in node.outputs):
                pending += node.outputs
            else:
                found[node] = None
    return list(found)


def _read(node: ir.Node) -> list[ir.Value]:
    """What a node reads, its subgraphs included."""
    own = [value for value in node.inputs if value is not None]
    return own + [value for graph in _inner(node) for each in graph.all_nodes() for value in each.inputs if value is not None]


def _inner(node: ir.Node) -> list[ir.Graph]:
    return [each.as_graph() for each in node.attributes.values() if each.type == ir.AttributeType.GRAPH]
