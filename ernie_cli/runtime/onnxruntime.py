"""ONNX Runtime: decoder graphs on the CPU, and on CUDA where that provider is installed.

Takes both kinds of KV cache by the graph's own inputs (see graph/cache.py). Text and sampling live in generation/.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .. import console, host
from ..errors import InputError, MissingError, ResourceError, UnsupportedError, UsageError
from ..model import Model
from ..need import need
from . import Session, SessionInfo, count
from .cache_types import ARRAYS
from .growing import GrowingRows
from .static import StaticRows
from .widen import widen, widened

if TYPE_CHECKING:
    import onnx_ir as ir

    from .graphs import GraphSession

#: What `open` takes as it is; anything else is converted first.
FORMATS = ("onnx",)
#: Where nobody says --context: enough for a chat, small enough for any laptop.
DEFAULT_CONTEXT = 4096
#: Longer prompts go in pieces: attention holds heads × new tokens × all tokens scores at once.
PREFILL_CHUNK = 512


def open(model: Model, device: str = "auto", *, batch: int = 1, context: int | None = None, threads: int | None = None) -> Session:
    """Open a decoder graph.

    device: auto, cpu or cuda. context: most tokens per row (default: what the model was made for, at most 4096).
    threads: default one per core this process may use. Raises UnsupportedError for graphs that are no decoder,
    InputError for broken files, MissingError where onnxruntime or the provider is not installed.
    """
    file = model.main_file()
    session, where = create_session(file, device, threads, exact=False)
    vocab = _vocabulary(session, file)
    limit = count(model, "max_position_embeddings", DEFAULT_CONTEXT)
    if context is not None and context > limit:
        raise UsageError(f"--context {context} is more than the model's {limit}", f"--context {limit} is the most")
    info = SessionInfo("onnxruntime", where, vocab, context or min(limit, DEFAULT_CONTEXT), batch)
    rows = StaticRows if "positions" in [value.name for value in session.get_inputs()] else GrowingRows
    return DecoderSession(info, rows(session, info), file)


def open_graph(model: Model, device: str = "auto", *, threads: int | None = None, exact: bool = True) -> GraphSession:
    """Open a graph of any kind. Raises what `create_session` does, UnsupportedError for ends that are no tensors of numbers."""
    from .onnxruntime_graph import OnnxGraph

    return OnnxGraph(model, device, threads, exact=exact)


def _vocabulary(session: Any, file: Path) -> int:
    """The width of the logits. Raises UnsupportedError unless the graph's inputs and outputs are those of graph/cache.py."""
    inputs = {value.name: value for value in session.get_inputs()}
    outputs = {value.name: value for value in session.get_outputs()}
    prefix, back = ("cache.", "cache_out.") if "positions" in inputs else ("past.", "present.")
    caches = {name: value for name, value in inputs.items() if name.startswith(prefix)}
    problems = [f"no input `{name}`" for name in ("input_ids", f"{prefix}0.key") if name not in inputs]
    problems += [f"an input `{name}`" for name in inputs if name not in ("input_ids", "positions", *caches)]
    problems += [f"no output `{name}`" for name in ("logits", *(name.replace(prefix, back, 1) for name in caches)) if name not in outputs]
    wrong = [name for name, value in caches.items() if value.type not in ARRAYS or not _fixed(value.shape, 4, 1, 3)]
    problems += [f"`{name}` of another shape or type" for name in wrong]
    if "logits" in outputs and not _fixed(outputs["logits"].shape, len(outputs["logits"].shape), -1):
        problems.append("logits of unknown width")
    if problems:
        what = f"{file}: not a decoder that `ernie convert` made: {', '.join(problems[:4])}"
        raise UnsupportedError(what, f"convert the checkpoint; `ernie inspect {file}` shows what this is")
    return int(outputs["logits"].shape[-1])


def _fixed(shape: Sequence[Any], rank: int, *axes: int) -> bool:
    """Whether a shape has this rank, and a number that memory may hold on these axes."""
    return 0 < rank == len(shape) and all(isinstance(shape[axis], int) and 0 < shape[axis] < 1 << 24 for axis in axes)


def create_session(
    file: Path, device: str = "auto", threads: int | None = None, *, graph: ir.Model | None = None, exact: bool = True
) -> tuple[Any, str]:
    """An onnxruntime InferenceSession on the best provider there is, and the device's name for people.

    graph: what to run in the place of what `file` holds; weights in other files stay where they are, beside `file`.
    exact=False: int8 activations may be held in unsigned codes, at least as fine as the file's, which x86 kernels need to be quick.
    Raises MissingError, InputError or ResourceError in place of onnxruntime's own exceptions.
    """
    ort = need("onnxruntime")
    provider, where = _provider(ort, device)
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors come as exceptions; warnings are about choices that we made on purpose
    options.intra_op_num_threads = threads or host.cores()
    # Lets a DequantizeLinear + MatMul pair run as one kernel with int8 arithmetic, see the README's table of speeds.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "4")
    # Scales per channel are spread over the longest blocks there are, not over blocks of 32, whose scales cost as much as the arithmetic.
    options.add_session_config_entry("session.qdq_matmulnbits_block_size", "-1")
    if where == "cpu" and not exact and (unsigned := _unsigned(file, graph)) is not None:
        graph = unsigned
        if "vnni" not in " ".join(host.cpu().features):
            # Without VNNI x86 sums int8 products in 16 bits, which overflow. onnxruntime 1.31 breaks weight-only graphs with this option.
            options.add_session_config_entry("session.x64quantprecision", "1")
    if graph is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(file.parent))
    source = str(file) if graph is None else _serialised(graph)
    try:
        return ort.InferenceSession(source, options, providers=[provider]), where
    except Exception as err:  # onnxruntime's exceptions share no base class of their own
        again = _again(file, graph, options, err) if where == "cpu" else None
        if again is None:
            raise _translated(file, err) from err
    if graph is None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(file.parent))
    try:
        return ort.InferenceSession(again, options, providers=[provider]), where
    except Exception as err:
        raise _translated(file, err) from err


def _unsigned(file: Path, graph: ir.Model | None) -> ir.Model | None:
    """The graph with pairs that x86 kernels are quick at (see quant/activations_unsigned.py); None where it has none to change."""
    from ..quant.activations_unsigned import make_unsigned, rewritten

    if graph is None:
        return rewritten(file)
    return graph if make_unsigned(graph) else None


def _again(file: Path, graph: ir.Model | None, options: Any, err: Exception) -> str | bytes | None:
    """What can be loaded in the place of what could not: None where nothing can."""
    if "float8" in str(err):
        # It fuses any Q/DQ pairs around a MatMul into an operator that takes 8-bit integers alone (1.24 to 1.31).
        console.detail("computing fp8 in float32: onnxruntime has no fp8 arithmetic for the CPU")
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        return str(file) if graph is None else _serialised(graph)
    if type(err).__name__ != "NotImplemented":
        return None
    wide = widened(file) if graph is None else _serialised(graph) if widen(graph) else None
    if wide is not None:
        console.detail("computing bfloat16 in float32: onnxruntime has no bfloat16 kernels for the CPU")
    return wide


def _serialised(graph: ir.Model) -> bytes:
    return bytes(need("onnx_ir").to_proto(graph).SerializeToString())


def _provider(ort: Any, device: str) -> tuple[str, str]:
    available = ort.get_available_providers()
    wanted = device.split(":")[0]
    if wanted not in ("auto", "cpu", "cuda"):
        raise UsageError(f"the onnxruntime backend runs on cpu or cuda, not `{device}`", "--device auto chooses")
    if wanted == "cuda" and "CUDAExecutionProvider" not in available:
        raise MissingError("this onnxruntime has no CUDA provider", "pip uninstall onnxruntime; pip install 'ernie-cli[gpu]'")
    if wanted != "cpu" and "CUDAExecutionProvider" in available:
        return "CUDAExecutionProvider", "cuda"
    return "CPUExecutionProvider", "cpu"


def _translated(file: Path, err: Exception) -> Exception:
    text = str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
    kind = type(err).__name__
    if kind == "NotImplemented":
        return UnsupportedError(f"{file}: onnxruntime has no kernel for this graph: {text}", "try --dtype fp32 when converting")
    if "till opset" in text:
        return MissingError(
            f"{file}: this onnxruntime is too old for the graph's opset: {text}", "pip install -U onnxruntime (1.24 or newer)"
        )
    if "bad_alloc" in text or "Failed to allocate" in text:
        return ResourceError(f"{file}: not enough memory to run it: {text}", "close other programs, or convert with --dtype fp16")
    return InputError(f"{file}: onnxruntime cannot run it: {text}", "convert the model again; `ernie inspect` shows what the file is")


class Rows(Protocol):
    """What keeps the caches of a DecoderSession's rows."""

    def step(self, tokens: np.ndarray, rows: list[int], lengths: list[int]) -> np.ndarray:
        """tokens int64 [n, S] → logits float32 [n, V] or [n, S, V]; `lengths` is how much of each row still counts."""
        ...

    def close(self) -> None: ...


class DecoderSession:
    """The Session contract over rows of one kind: checks what comes in, leaves the cache to `rows`."""

    def __init__(self, info: SessionInfo, rows: Rows, file: Path) -> None:
        self.info = info
        self._rows = rows
        self._file = file
        self._lengths = [0] * info.batch

    def step(self, tokens: np.ndarray, rows: Sequence[int] | None = None) -> np.ndarray:
        """See Session.step. Rows run together wherever the cache can, long prompts in chunks."""
        chosen = list(range(self.info.batch)) if rows is None else list(rows)
        tokens = np.asarray(tokens, dtype=np.int64)
        self._check(tokens, chosen)
        for start in range(0, tokens.shape[1], PREFILL_CHUNK):
            chunk = np.ascontiguousarray(tokens[:, start : start + PREFILL_CHUNK])
            try:
                logits = self._rows.step(chunk, chosen, [self._lengths[row] for row in chosen])
            except Exception as err:
                if not type(err).__module__.startswith("onnxruntime"):
                    raise
                raise _translated(self._file, err) from err
            for row in chosen:
                self._lengths[row] += chunk.shape[1]
        last = logits[:, -1] if logits.ndim == 3 else logits  # a graph made with --all-logits gives [n, S, V]
        if last.shape != (len(chosen), self.info.vocab_size):
            what = f"{self._file}: its logits are {list(last.shape)}, not [{len(chosen)}, {self.info.vocab_size}] as it says"
            raise InputError(what, "convert the model again")
        return last

    def length(self, row: int = 0) -> int:
        return self._lengths[row]

    def truncate(self, row: int = 0, length: int = 0) -> None:
        if not 0 <= length <= self._lengths[row]:
            raise UsageError(f"row {row} holds {self._lengths[row]} tokens: cannot keep {length}")
        self._lengths[row] = length

    def close(self) -> None:
        self._rows.close()

    def _check(self, tokens: np.ndarray, rows: list[int]) -> None:
        if tokens.ndim != 2 or len(tokens) != len(rows) or tokens.shape[1] < 1:
            raise UsageError(f"tokens of shape {list(tokens.shape)} for {len(rows)} rows: [rows, 1 or more] is needed")
        if tokens.min() < 0 or tokens.max() >= self.info.vocab_size:
            bad = int(tokens.min() if tokens.min() < 0 else tokens.max())
            raise UsageError(f"token id {bad} is outside the vocabulary of {self.info.vocab_size}", "is it the right tokenizer?")
        longest = max(self._lengths[row] for row in rows) + tokens.shape[1]
        if longest > self.info.context:
            raise UsageError(f"{longest} tokens do not fit the context of {self.info.context}", "a larger --context, or a shorter prompt")
