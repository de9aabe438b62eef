"""A model's graph cut down to some of its values, which become its outputs, and fed.

Weights stay in their file. What the values are for is collect.py's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from ... import host
from ...errors import ErnieError, ResourceError, UsageError
from ...model import Model
from ...need import need
from ...runtime.widen import widen

_NUMPY = {
    "float": np.float32,
    "double": np.float64,
    "float8e4m3fn": ml_dtypes.float8_e4m3fn,
    **{name: np.dtype(name) for name in ("float16", "bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))},
}


class Graph:
    """The float graph of an ONNX model, changed in memory: bfloat16 is computed in float32, a decoder's last block computes all tokens."""

    def __init__(self, model: Model) -> None:
        from ...onnxgraph.load import load

        self.file = model.main_file()
        self.model = load(model, known_operators=False)
        widen(self.model)
        self.inputs = {str(value.name) for value in self.model.graph.inputs}
        if "input_ids" in self.inputs and not self.inputs.isdisjoint(("cache.0.key", "past.0.key")):
            see_all_tokens(self.model.graph)

    def in_order(self, wanted: Iterable[str]) -> list[str]:
        """The names sorted by when their values are computed; what comes in is first."""
        left = set(wanted)
        order = [str(value.name) for value in self.model.graph.inputs]
        order += [str(value.name) for node in self.model.graph for value in node.outputs]
        found = [name for name in order if name in left]
        if len(found) < len(left):
            raise ErnieError(f"{self.file}: it computes no value named {', '.join(sorted(left.difference(found))[:3])}")
        return found

    def part(self, names: Sequence[str]) -> Part:
        """What computes the named values, and nothing behind them."""
        outputs = [name for name in names if name not in self.inputs]
        if not outputs:
            return Part(None, self.file, names)
        cut = ir.convenience.extract(self.model.graph, inputs=sorted(self.inputs), outputs=outputs)
        functions = list(self.model.functions.values())
        proto = ir.to_proto(ir.Model(cut, ir_version=self.model.ir_version, functions=functions))
        for value in proto.graph.output:
            value.ClearField("type")  # onnxruntime finds it, whatever the file says of lengths
        return Part(_session(proto.SerializeToString(), self.file), self.file, names)


class Part:
    """A session that gives the named values."""

    def __init__(self, session: Any, file: Path, names: Sequence[str]) -> None:
        self._session, self._file, self._names = session, file, names

    def run(self, feeds: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """(name, value) one by one; each is given up when the next is asked for. Raises UsageError, ResourceError."""
        if self._session is None:
            yield from ((name, np.asarray(feeds[name])) for name in self._names)
            return
        whole = complete(self._session, feeds)
        outputs = [value.name for value in self._session.get_outputs()]
        try:
            values = self._session.run(outputs, whole)
        except Exception as err:  # onnxruntime's exceptions share no base class of their own
            raise _failed(self._file, whole, err) from err
        found = dict(zip(outputs, values, strict=True))
        del values
        for name in self._names:
            yield name, found.pop(name) if name in found else np.asarray(whole[name])


def complete(session: Any, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`feeds` in the types that the session takes, with an empty cache beside the ids of a decoder (see graph/cache.py)."""
    whole = {}
    for value in session.get_inputs():
        dtype = _NUMPY.get(value.type.removeprefix("tensor(").removesuffix(")"), np.float32)
        if value.name in feeds:
            whole[value.name] = np.ascontiguousarray(feeds[value.name].astype(dtype, copy=False))
        elif "input_ids" in feeds and value.name == "positions":
            whole[value.name] = np.zeros(len(feeds["input_ids"]), dtype)
        elif "input_ids" in feeds and value.name.startswith(("cache.", "past.")):
            rows, tokens = feeds["input_ids"].shape
            slots = tokens if value.name.startswith("cache.") else 0
            whole[value.name] = np.zeros((rows, value.shape[1], slots, value.shape[3]), dtype)
    return whole


def see_all_tokens(graph: ir.Graph) -> None:
    """Let a decoder's last block, made for the last token's logits (see graph/dense.py), compute every token: one token per text is
    too few to measure on, and the last one is a special one. Names of values stay."""
    if not any(node.op_type == "Attention" for node in graph):
        return  # rewritten into smaller operators: how it masks can no longer be told
    for node in list(graph):
        if node.op_type == "Gather" and str(node.name).endswith((".last", ".self_attn.mask")):
            was = node.outputs[0]
            same = ir.node("Identity", [node.inputs[0]], name=str(node.name))
            same.outputs[0].name, same.outputs[0].type = was.name, was.type
            ir.convenience.replace_nodes_and_values(graph, node, [node], [same], [was], same.outputs)
        elif node.op_type == "Attention" and (len(node.inputs) < 4 or node.inputs[3] is None):
            node.attributes["is_causal"] = ir.AttrInt64("is_causal", 1)  # left out for a lone last token
        for value in node.outputs:
            value.shape = None  # lengths of 1 that are so no longer


def _session(content: bytes, file: Path) -> Any:
    from ...runtime.onnxruntime_session import translated

    ort = need("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = host.cores()
    # Outputs are never fused away. Higher levels change layouts, which costs as much as it gains where every value is fetched.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(file.parent))
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as err:
        raise translated(file, err) from err


def _failed(file: Path, feeds: Mapping[str, np.ndarray], err: Exception) -> ErnieError:
    text = (str(err).strip().splitlines() or [type(err).__name__])[0]
    if isinstance(err, MemoryError) or "bad_alloc" in text or "Failed to allocate" in text:
        return ResourceError(
            f"{file}: not enough memory to calibrate it: {text}", "shorter texts or smaller pictures, or fewer programs beside it"
        )
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items() if not name.startswith(("cache.", "past.")))
    return UsageError(f"{file}: onnxruntime cannot run it on {shapes}: {text}", "`ernie inspect` shows the inputs")
