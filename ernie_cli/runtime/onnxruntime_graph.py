"""ONNX graphs of any kind on ONNX Runtime: named arrays in, named arrays out, and every value in between.

Sessions, providers and the words for their failures come from onnxruntime.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import console, host
from ..errors import ErnieError, InputError, ResourceError, UnsupportedError, UsageError
from ..model import Model
from ..need import need
from . import onnxruntime_session
from .graphs import Step, TensorSpec, check_feeds

if TYPE_CHECKING:
    import onnx_ir as ir

#: What may pass between numpy and onnxruntime's Python API; bfloat16 passes as float32.
_TYPES = ("float32", "float64", "float16", "bfloat16", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
#: `steps` keeps at most this share of free memory in values, and this many values in its first run: their sizes are only known then.
_STEPS_SHARE, _FIRST_STEPS, _GROWTH = 0.25, 64, 8


class OnnxGraph:
    """A GraphSession over one .onnx file, external data beside it."""

    backend = "onnxruntime"

    def __init__(self, model: Model, device: str, threads: int | None, *, exact: bool = True, tensorrt: bool = False) -> None:
        from ..onnxgraph.load import load

        self.file = model.main_file()
        graph = load(model, known_operators=False).graph
        fixed = set(graph.initializers)  # up to IR version 3 every weight was listed as an input, too
        self.inputs = tuple(_spec(value, self.file) for value in graph.inputs if value.name not in fixed)
        self.outputs = tuple(_spec(value, self.file) for value in graph.outputs)
        self._threads = threads
        self._session, self.device = _opened(self.file, device, threads, wide=self._narrow(), exact=exact, tensorrt=tensorrt)

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See GraphSession.run."""
        results = self._values(self._session, [spec.name for spec in self.outputs], feeds)
        return {
            spec.name: np.asarray(value).astype(_numpy(spec.dtype), copy=False) for spec, value in zip(self.outputs, results, strict=True)
        }

    def steps(self, feeds: Mapping[str, np.ndarray]) -> Iterator[Step]:
        """See GraphSession.steps. Large models run several times, for a part of their values each, so that memory holds them."""
        from ..onnxgraph.load import load
        from .widen import widen

        check_feeds(self.inputs, feeds)
        model = load(Model(self.file, "onnx"), known_operators=False)
        widen(model)
        nodes = [node for node in model.graph if any(value.name for value in node.outputs)]
        budget, count = host.memory().available * _STEPS_SHARE, _FIRST_STEPS
        dead: set[str] = set()
        while nodes:
            part = nodes[:count]
            names = [name for node in part for name in _names(node.outputs) if dead.isdisjoint(_reads(node))]
            try:
                values = self._seen(model, names, dead, feeds)
            except (UsageError, InputError):  # one of these nodes cannot be computed: find it, and go on without what needs it
                if count > 1 and len(part) > 1:
                    count = len(part) // 2
                    continue
                values = {}
            nodes = nodes[count:]
            for node in part:
                reads = _reads(node)
                for name in _names(node.outputs):
                    dead |= set() if name in values else {name}
                    yield Step(name, _operator(node), reads, values.pop(name, None))
            n_bytes = max(1, sum(value.nbytes for value in values.values() if value is not None))
            count = max(1, int(min(len(part) * budget / n_bytes, _GROWTH * len(part))))

    def close(self) -> None:
        """See GraphSession.close."""
        self._session = None

    def _seen(self, model: ir.Model, names: Sequence[str], dead: set[str], feeds: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The values called `names`, None for what is no tensor."""
        if not names:
            return {}
        found = self._values(_all_seen(model, self.file, names, dead, self._threads), names, feeds)
        return {name: value if isinstance(value, np.ndarray) else None for name, value in zip(names, found, strict=True)}

    def _narrow(self) -> bool:
        return any(spec.dtype == "bfloat16" for spec in (*self.inputs, *self.outputs))

    def _values(self, session: Any, names: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[Any]:
        check_feeds(self.inputs, feeds)
        wide = {name: np.asarray(array.astype(np.float32) if array.dtype.name == "bfloat16" else array) for name, array in feeds.items()}
        try:
            return list(session.run(list(names), wide, _quiet()))
        except Exception as err:  # onnxruntime's exceptions share no base class of their own
            text = str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
            if isinstance(err, MemoryError) or "bad_alloc" in text or "Failed to allocate" in text:
                raise ResourceError(
                    f"{self.file}: not enough memory to run it: {text}", "smaller inputs, or fewer programs beside it"
                ) from err
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
            raise UsageError(f"{self.file}: onnxruntime cannot run it on {shapes}: {text}", "`ernie inspect` shows the inputs") from err


def _numpy(dtype: str) -> np.dtype[Any]:
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def _spec(value: ir.Value, file: Path) -> TensorSpec:
    """Raises UnsupportedError for what is no tensor of numbers."""
    ir = need("onnx_ir")
    if not isinstance(value.type, ir.TensorType):
        kind = "no type" if value.type is None else f"the type {value.type}"
        raise UnsupportedError(
            f"{file}: `{value.name}` has {kind}: only tensors can be fed and compared", "give the graph tensors at its ends"
        )
    dtype = value.type.dtype.name.lower()
    dtype = {"float": "float32", "double": "float64"}.get(dtype, dtype)
    if dtype not in _TYPES:
        raise UnsupportedError(f"{file}: `{value.name}` is of {dtype}, which no array here can hold", f"there are {', '.join(_TYPES)}")
    if value.shape is None:
        return TensorSpec(str(value.name), dtype, None)
    return TensorSpec(str(value.name), dtype, tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape))


def _opened(file: Path, device: str, threads: int | None, *, wide: bool, exact: bool, tensorrt: bool) -> tuple[Any, str]:
    """A session and its device's name; `wide`: with every bfloat16 made float32, which numpy and onnxruntime can hand each other.

    exact: see create_session.
    """
    from .widen import widen

    model = None
    if wide:
        model = need("onnx_ir").load(file)
        widen(model)
        console.detail("computing bfloat16 in float32: numpy has no bfloat16 for onnxruntime to take")
    where = onnxruntime_session.place(device, tensorrt=True) if tensorrt else device
    session, found = onnxruntime_session.create_session(file, where, threads, graph=model, exact=exact)
    if device == "auto":
        console.detail(f"using onnxruntime on {found.title} ({found.why})")
    return session, found.title


def _all_seen(model: ir.Model, file: Path, names: Sequence[str], dead: set[str], threads: int | None) -> Any:
    """A session of the same graph up to the last of `names`, nothing fused, whose outputs they are; onnxruntime finds their types.

    dead: values that cannot be computed; the nodes that make or need them are left out.
    """
    ir = need("onnx_ir")
    proto = ir.to_proto(model)
    gone, kept = set(dead), []
    for node, described in zip(model.graph, proto.graph.node, strict=True):
        if gone.isdisjoint(_reads(node)) and gone.isdisjoint(_names(node.outputs)):
            kept.append(described)
        else:
            gone.update(_names(node.outputs))
        if names[-1] in described.output:
            break
    chosen = [type(node).FromString(node.SerializeToString()) for node in kept]
    del proto.graph.node[:], proto.graph.output[:]
    proto.graph.node.extend(chosen)
    for name in names:
        proto.graph.output.add().name = name
    return _as_written(proto.SerializeToString(), file, threads)


def _as_written(content: bytes, file: Path, threads: int | None) -> Any:
    """A session on the CPU that computes every node by itself."""
    ort = need("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or host.cores()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(file.parent))
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as err:
        translated = onnxruntime_session.translated(file, err)
        raise translated if isinstance(translated, ErnieError) else err from err


def _names(values: Sequence[ir.Value]) -> list[str]:
    return [value.name for value in values if value.name]


def _quiet() -> Any:
    """onnxruntime prints what it also raises, and asking what a model takes is no mishap."""
    options = need("onnxruntime").RunOptions()
    options.log_severity_level = 4
    return options


def _operator(node: ir.Node) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def _reads(node: ir.Node) -> tuple[str, ...]:
    """Names of a node's inputs, those that only its subgraphs read included."""
    names = [str(value.name) for value in node.inputs if value is not None]
    inner = [graph for attribute in node.attributes.values() for graph in _subgraphs(attribute)]
    for graph in inner:
        own = {str(value.name) for value in (*graph.inputs, *graph.initializers.values())}
        own |= {str(value.name) for each in graph for value in each.outputs}
        names += [name for each in graph for name in _reads(each) if name not in own]
        names += [str(value.name) for value in graph.outputs if value.name not in own]
    return tuple(dict.fromkeys(names))


def _subgraphs(attribute: Any) -> list[Any]:
    ir = need("onnx_ir")
    if attribute.type == ir.AttributeType.GRAPH:
        return [attribute.value]
    return list(attribute.value) if attribute.type == ir.AttributeType.GRAPHS else []
