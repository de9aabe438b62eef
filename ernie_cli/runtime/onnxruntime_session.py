"""Opens files and graphs in ONNX Runtime at a place, with the options that suit them, and puts its failures into our words.

Which place is place.py's; what the sessions are used for is onnxruntime.py's and onnxruntime_graph.py's.
"""

from __future__ import annotations

import mmap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import console, host
from ..errors import InputError, MissingError, ResourceError, UnsupportedError
from ..need import need
from . import placement
from .place import CUDA, HOST, Place, choose, load_libraries

if TYPE_CHECKING:
    import onnx_ir as ir

#: A graph is handed over in memory as one message, which may have 2 GB; `ernie` keeps larger weights beside it.
_MOST_BYTES = 1 << 30


def place(device: str, *, tensorrt: bool = False) -> Place:
    """See place.choose: for the onnxruntime that is installed. Raises MissingError without one."""
    ort = need("onnxruntime")
    if device != "cpu":
        load_libraries(ort)
        if console.settings.verbosity <= 0:
            ort.set_default_logger_severity(4)  # a provider that does not load is reported in our words
    return choose(device, ort.get_available_providers(), tensorrt=tensorrt)


def create_session(
    file: Path, device: str | Place = "auto", threads: int | None = None, *, graph: ir.Model | None = None, exact: bool = True
) -> tuple[Any, Place]:
    """An onnxruntime InferenceSession, and the place where it computes.

    device: as `place` takes it, or the place itself. With "auto", a GPU whose libraries do not load is left alone, and that is said.
    graph: what to run in the place of what `file` holds; weights in other files stay where they are, beside `file`.
    exact=False: what is computed may be rewritten for the processor: int8 activations in unsigned codes, at least as fine as the file's,
    which x86 kernels need to be quick, and query heads that share keys as rows of one.
    Raises MissingError, InputError, UnsupportedError or ResourceError in place of onnxruntime's own exceptions.
    """
    where = device if isinstance(device, Place) else place(device)
    session = _session(file, where, threads, graph, exact)
    if where.kind == "cuda" and CUDA not in session.get_providers():  # it goes on without
        lacking = ", ".join(load_libraries(need("onnxruntime"))) or "those of CUDA or cuDNN"
        said = f"{where.title} cannot be used: libraries that this onnxruntime wants do not load: {lacking}"
        if device != "auto":
            raise MissingError(said, "pip install 'ernie-cli[gpu]' brings CUDA and cuDNN")
        console.warn(f"{said}; computing on the processor")
        where = replace(HOST, why=said)
        session = _session(file, where, threads, graph, exact)
    placement.say(session, where)
    return session, where


def _session(file: Path, where: Place, threads: int | None, graph: ir.Model | None, exact: bool) -> Any:
    ort = need("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors come as exceptions; warnings are about choices that we made on purpose
    options.intra_op_num_threads = threads or host.cores()
    # Lets a DequantizeLinear + MatMul pair run as one kernel with int8 arithmetic, see the README's table of speeds.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "4")
    # Scales per channel are spread over the longest blocks there are, not over blocks of 32, whose scales cost as much as the arithmetic.
    options.add_session_config_entry("session.qdq_matmulnbits_block_size", "-1")
    placement.record(options, where)
    if where.kind == "cpu" and not exact:
        graph, unsigned = _suited(file, graph, threads or host.cores())
        if unsigned and "vnni" not in " ".join(host.cpu().features):
            # Without VNNI x86 sums int8 products in 16 bits, which overflow. onnxruntime 1.31 breaks weight-only graphs with this option.
            options.add_session_config_entry("session.x64quantprecision", "1")
    if graph is not None:
        _beside(options, file)
    source = str(file) if graph is None else serialised(graph)
    try:
        return ort.InferenceSession(source, options, providers=where.providers(), enable_fallback=0)
    except Exception as err:  # onnxruntime's exceptions share no base class of their own
        again = _again(file, graph, options, err)
        if again is None:
            raise translated(file, err) from err
    if graph is None:
        _beside(options, file)
    try:
        return ort.InferenceSession(again, options, providers=where.providers(), enable_fallback=0)
    except Exception as err:
        raise translated(file, err) from err


def _beside(options: Any, file: Path) -> None:
    """A graph in memory finds its weights where the file is."""
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(file.parent))


def _suited(file: Path, given: ir.Model | None, threads: int) -> tuple[ir.Model | None, bool]:
    """The graph as processors are quick at it, None where `file` is that already; and whether it now has unsigned pairs.

    See quant/activations_unsigned.py and shared_heads.py. `given` is changed in place.
    """
    from ..quant.activations_unsigned import make_unsigned
    from . import shared_heads

    if given is not None:
        unsigned, _ = make_unsigned(given), shared_heads.join(given, threads)
        return given, bool(unsigned)
    try:
        graph = _rewritable(file)
        unsigned, joined = (make_unsigned(graph), shared_heads.join(graph, threads)) if graph is not None else (0, 0)
    except Exception as err:  # noqa: BLE001 no common base: OSError, protobuf's, onnx-ir's, ValueError …
        console.detail(f"opened as it stands: {type(err).__name__}: {err}")  # onnxruntime says what is wrong with it
        return None, False
    return (graph if unsigned or joined else None), bool(unsigned)


def _rewritable(file: Path) -> ir.Model | None:
    """The graph of `file` where it may hold what `_suited` changes; weights in other files stay there."""
    size = file.stat().st_size
    if not 0 < size <= _MOST_BYTES:
        console.detail(f"opened as it stands: {size} bytes in one file")
        return None
    with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(b"QuantizeLinear") < 0 and content.find(b"Attention") < 0:
            return None
    graph: ir.Model = need("onnx_ir").load(file)
    return graph


def _again(file: Path, graph: ir.Model | None, options: Any, err: Exception) -> str | bytes | None:
    """What can be loaded in the place of what could not: None where nothing can."""
    from .widen import widen, widened

    if "float8" in str(err):
        # It fuses any Q/DQ pairs around a MatMul into an operator that takes 8-bit integers alone (1.24 to 1.31).
        console.detail("computing fp8 in float32: onnxruntime has no fp8 arithmetic here")
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        return str(file) if graph is None else serialised(graph)
    if type(err).__name__ != "NotImplemented":
        return None
    wide = widened(file) if graph is None else serialised(graph) if widen(graph) else None
    if wide is not None:
        console.detail("computing bfloat16 in float32: onnxruntime lacks bfloat16 kernels for this graph here")
    return wide


def serialised(graph: ir.Model) -> bytes:
    """A graph in memory as onnxruntime takes it."""
    return bytes(need("onnx_ir").to_proto(graph).SerializeToString())


def translated(file: Path, err: Exception) -> Exception:
    """onnxruntime's exception as one of ours, by its class and its first line."""
    text = str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
    kind = type(err).__name__
    if kind == "NotImplemented":
        return UnsupportedError(f"{file}: onnxruntime has no kernel for this graph: {text}", "try --dtype fp32 when converting")
    if "till opset" in text:
        return MissingError(
            f"{file}: this onnxruntime is too old for the graph's opset: {text}", "pip install -U onnxruntime (1.25 or newer)"
        )
    if "bad_alloc" in text or "Failed to allocate" in text or "out of memory" in text:
        return ResourceError(f"{file}: not enough memory to run it: {text}", "close other programs, or convert with --dtype fp16")
    if "install TensorRT libraries" in text:
        return MissingError(f"{file}: the TensorRT libraries that this onnxruntime wants do not load", "pip install 'ernie-cli[gpu]'")
    if "CUDA failure" in text or "CUBLAS failure" in text or "CUDNN failure" in text:
        return MissingError(f"{file}: the GPU does not run it: {text}", "--device cpu")
    return InputError(f"{file}: onnxruntime cannot run it: {text}", "convert the model again; `ernie inspect` shows what the file is")
