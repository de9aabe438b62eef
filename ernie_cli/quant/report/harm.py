"""How much harm each layer does when it alone is quantised: measured, since its SQNR does not tell how much its noise matters.

One graph holds every layer twice, as the float model has it and as the quantised one does, and a number says which of the latter
runs. What is done about harm is budget.py's.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from ... import console
from ...errors import InputError, UnsupportedError
from ...model import Model
from .files import fit_together, is_decoder, weight_bytes
from .quality import power

if TYPE_CHECKING:
    from ..calibrate.graph import Graph

Feeds = Mapping[str, np.ndarray]
#: Most samples looked at, and tokens of each text: harm differs by factors between layers, so few will do.
SAMPLES, TOKENS = 12, 64
#: The input that says which layer runs as quantised; -1: none.
_WHICH = "ernie.which"
#: Quantised weights travel inside the graph, whose format ends at 2 GB.
_MOST_BYTES = 1_800_000_000


def harm(before: Model, after: Model, layers: Sequence[str], data: Iterable[Feeds], *, seconds: float = 60.0) -> dict[str, float]:
    """For each layer what it costs when the others stay in float: of decoders the mean KL in nats, of others the noise in the worst
    output over its signal. Higher is worse. {} where memory or `seconds` do not allow it.

    before, after: ONNX models with values of the same names; `before` is the float one, with smoothing folded into it. layers: names
    of `after`'s nodes. data: feeds, of decoders `input_ids` alone. As many samples are looked at as `seconds` allow.
    """
    from ..calibrate.graph import Graph

    if not fit_together((before, after)) or weight_bytes(after) > _MOST_BYTES:
        console.detail("layers are not tried one by one: the model is too large")
        return {}
    try:
        double = _Double(Graph(before), Graph(after), layers)
    except (InputError, UnsupportedError) as err:
        console.detail(f"layers cannot be tried one by one: {err.message}")
        return {}
    compare = _kl if is_decoder(before) else _noise
    samples = [_short(feeds) for feeds in itertools.islice(data, SAMPLES)]
    sums = dict.fromkeys(double.layers, 0.0)
    done, start = 0, time.perf_counter()
    with console.progress("trying layers one by one", len(samples) * len(sums)) as meter:
        for feeds in samples:
            want = double.run(feeds, -1)
            spent = time.perf_counter() - start
            if spent * (1 + (1 / done if done else len(sums))) > seconds:
                break
            for number, name in enumerate(double.layers):
                sums[name] += compare(want, double.run(feeds, number))
                meter.advance(1)
            done += 1
    if not done:
        console.detail(f"layers are not tried one by one: that would take more than {seconds:.0f} s")
    return {name: value / done for name, value in sums.items()} if done else {}


def _short(feeds: Feeds) -> Feeds:
    """A text cut to its first tokens."""
    return {name: array[:, :TOKENS] if name == "input_ids" else array for name, array in feeds.items()}


def _kl(want: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray]) -> float:
    from ...evaluate import likelihood

    ours, theirs = (each["logits"].reshape(-1, each["logits"].shape[-1]) for each in (got, want))
    return float(likelihood.measure(targets=theirs.argmax(-1), logits=ours, reference=theirs)["kl"].mean())


def _noise(want: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray]) -> float:
    """Of the output that suffers most."""
    floats = [name for name, array in want.items() if array.dtype.kind == "f"]
    pairs = [(want[name].astype(np.float64), got[name].astype(np.float64)) for name in floats]
    return max((power(ours - theirs) / max(power(ours), 1e-30) for ours, theirs in pairs), default=0.0)


class _Double:
    """The float graph in which each layer has its quantised form beside it. layers: those that both models have."""

    def __init__(self, before: Graph, after: Graph, layers: Sequence[str]) -> None:
        from ...runtime.onnxruntime import create_session
        from ..opset import raise_opset

        raise_opset(before.model, after.model.opset_imports[""])
        self.graph, self.file = before.model.graph, before.file
        graph = self.graph
        found = (*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs))
        self.values = {str(value.name): value for value in found}
        theirs = {str(node.name or node.outputs[0].name): node for node in after.model.graph}  # as layers are named, see layers.py
        self.layers = [name for name in layers if name in theirs and self._twin(theirs[name]) is not None]
        which = ir.Value(name=_WHICH, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(()))
        graph.inputs.append(which)
        for number, name in enumerate(self.layers):
            twin = self._twin(theirs[name])
            assert twin is not None
            self._double(twin, theirs[name], number, which)
        self.outputs = [str(value.name) for value in graph.outputs if not str(value.name).startswith(("cache_out.", "present."))]
        self.session, _ = create_session(before.file, graph=before.model)

    def run(self, feeds: Feeds, which: int) -> dict[str, np.ndarray]:
        """The outputs with one layer quantised (-1: none). Raises InputError where the graph does not take the feeds."""
        from ..calibrate.graph import complete

        whole = complete(self.session, {**feeds, _WHICH: np.array(which, np.int64)})
        try:
            return dict(zip(self.outputs, self.session.run(self.outputs, whole), strict=True))
        except Exception as err:  # onnxruntime's exceptions share no base class of their own
            text = (str(err).strip().splitlines() or [type(err).__name__])[0]
            raise InputError(f"{self.file}: onnxruntime cannot run it on the data: {text}", "`ernie inspect` shows the inputs") from err

    def _twin(self, other: ir.Node) -> ir.Node | None:
        """What gives in the float graph what a layer gives in the other. Not always the layer: a normalisation may be folded into it."""
        value = self.values.get(str(other.outputs[0].name))
        node = value.producer() if value is not None else None
        return node if node is not None and len(node.outputs) == 1 else None

    def _double(self, node: ir.Node, other: ir.Node, number: int, which: ir.Value) -> None:
        """If(which == number) the other model's form of this node, else its own."""
        name = f"{_WHICH}.{number}"
        mine = ir.node("Constant", [], {"value_int": number}, name=name)
        mine.outputs[0].name = f"{name}.number"
        same = ir.node("Equal", [which, mine.outputs[0]], name=f"{name}.equal")
        same.outputs[0].name = f"{name}.here"
        own = _copy(node, list(node.inputs), f"{name}.own")
        brought: list[ir.Value] = []
        quantised = list(self._with_pairs(other, name, brought))
        # Constants stand where they are used: onnxruntime 1.31 fuses DequantizeLinear + MatMul there, and fails to find outer ones.
        then = ir.Graph([], [quantised[-1].outputs[0]], nodes=quantised, initializers=brought, name=f"{name}.then")
        branches = {"then_branch": then, "else_branch": ir.Graph([], [own.outputs[0]], nodes=[own], name=f"{name}.else")}
        either = ir.node("If", [same.outputs[0]], branches, name=f"{name}.if")
        old = node.outputs[0]
        either.outputs[0].name, either.outputs[0].type, either.outputs[0].shape = old.name, old.type, old.shape
        ir.convenience.replace_nodes_and_values(self.graph, node, [node], [mine, same, either], [old], [either.outputs[0]])
        self.values[str(old.name)] = either.outputs[0]

    def _with_pairs(self, node: ir.Node, prefix: str, brought: list[ir.Value]) -> Iterator[ir.Node]:
        """A node of the other model, and before it all that leads to it from values that the float model has: its Q and DQ nodes.

        Constants that it has not go to `brought`.
        """
        inputs: list[ir.Value | None] = []
        for at, value in enumerate(node.inputs):
            if value is None or str(value.name) in self.values:
                inputs.append(None if value is None else self.values[str(value.name)])
                continue
            made = value.producer()
            if made is not None:
                before = list(self._with_pairs(made, f"{prefix}.{at}", brought))
                yield from before
                inputs.append(before[-1].outputs[0])
            else:
                brought.append(_constant(f"{prefix}.{at}", value))
                inputs.append(brought[-1])
        yield _copy(node, inputs, prefix)


def _constant(name: str, like: ir.Value) -> ir.Value:
    """The same constant under another name, in memory."""
    assert like.const_value is not None, like.name
    tensor = ir.tensor(like.const_value.numpy(), dtype=like.const_value.dtype, name=name)
    return ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()), const_value=tensor)


def _copy(node: ir.Node, inputs: Sequence[ir.Value | None], name: str) -> ir.Node:
    attributes: list[Any] = list(node.attributes.values())
    copied = ir.Node(node.domain, node.op_type, inputs, attributes, num_outputs=1, name=name)
    copied.outputs[0].name = f"{name}.out"
    copied.outputs[0].type = node.outputs[0].type
    return copied
