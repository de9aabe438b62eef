"""The precision of an engine is its graph's: which one is wanted, and the graph that has it.

Converting and quantising are route.py's and quant/'s work, rounding to 16 bits narrow.py's.
"""

from __future__ import annotations

import difflib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from .. import nano
from ..errors import UnsupportedError, UsageError
from ..model import Model, write_manifest
from ..quant.scheme import find, schemes
from .options import Options

if TYPE_CHECKING:
    import onnx_ir as ir

FLOATS = ("fp32", "fp16", "bf16")
_DATA = "--data lines.jsonl, arrays.npz or a folder of images"


def wanted(source: Model, options: Options) -> str:
    """fp32, fp16, bf16, or the scheme that the graph has or will have.

    Raises UsageError for a word that is no precision, UnsupportedError for one that this model cannot be given or built in.
    """
    return _both(source, options)[0]


def floats(source: Model, options: Options) -> str:
    """The float type of what no scheme makes narrow: fp32, fp16 or bf16. Raises what `wanted` does."""
    return _both(source, options)[1]


def _both(source: Model, options: Options) -> tuple[str, str]:
    asked = options.precision
    known = (*FLOATS, *schemes())
    if asked is not None and asked not in known:
        near = difflib.get_close_matches(asked, known, 1)
        raise UsageError(
            f"no precision named `{asked}`", f"did you mean --precision {near[0]}?" if near else f"there are {', '.join(known)}"
        )
    if source.format != "onnx":
        kind, rest = asked or "fp16", asked if asked in FLOATS else "fp16"
    else:
        kind, rest = _of_graph(source, asked)
    if rest == "fp32" and options.library != "tensorrt" and is_decoder(source):
        raise UnsupportedError("TensorRT-RTX does not build attention over prompts in fp32", _narrower(kind))
    return kind, rest


def _of_graph(source: Model, asked: str | None) -> tuple[str, str]:
    """(precision, type of what no scheme narrows) that an ONNX model will have."""
    has, rest = own(source)
    if rest == "fp64":
        what = f"{source.path} computes in fp64, which TensorRT has not: it would round everything to fp32"
        raise UnsupportedError(what, f"export the model in float32; as it is, ONNX Runtime runs it: ernie run {source.path}")
    if asked in (None, has):
        return has, rest
    if has in schemes():
        path = source.told("made_from").get("path")
        hint = f"leave --precision out to build it in {has}; for {asked} build what it was made from{f': {path}' if path else ''}"
        raise UnsupportedError(f"{source.path} is quantised already ({has})", hint)
    if asked in FLOATS and has != "fp32":
        hint = f"leave --precision out to build it in {has}; for {asked} convert or export the original again"
        raise UnsupportedError(f"{source.path} computes in {has or 'no floats'}: it is not made {asked}", hint)
    return str(asked), asked if asked in FLOATS else "fp16" if has == "fp32" else rest


def _narrower(kind: str) -> str:
    if kind not in schemes():
        return "--precision fp16"
    return f"ernie convert CHECKPOINT --to onnx --dtype fp16 --kv-cache static, and quantise that: ernie quantize … --to {kind}"


def own(source: Model) -> tuple[str, str]:
    """(the precision of an ONNX model: a float type or a scheme, the float type that most of it has), as its papers or its graph say."""
    from ..parity.hints import facts_of

    said = str(source.told("quantization").get("scheme") or source.precision)
    floats = facts_of(source).precision or "fp32"
    if said in schemes() or said in FLOATS:
        return said, said if said in FLOATS else floats
    return _scheme_in(source) or floats, floats


def _scheme_in(source: Model) -> str:
    """The nearest scheme to what a graph without papers holds, "" where it is not quantised."""
    from ..onnxgraph.load import load
    from ..quant import layers

    model = load(source, known_operators=False)
    if not layers.already(model):
        return ""
    codes = {_codes(node) for node in model.graph.all_nodes() if node.op_type == "DequantizeLinear"}
    kind = "fp8" if any(name.startswith("FLOAT8") for name in codes) else "int4" if codes & {"INT4", "UINT4"} else "int8"
    active = any(node.op_type == "QuantizeLinear" for node in model.graph.all_nodes())
    return kind if active or kind == "int4" else f"{kind}-weight"


def _codes(node: ir.Node) -> str:
    value = node.inputs[0]
    return value.dtype.name if value is not None and value.dtype is not None else ""


def check_data(source: Model, options: Options) -> None:
    """Before any work: raise UsageError for data that is missing, not there or of no use, UnsupportedError for a cache that is none."""
    kind = wanted(source, options)
    if kind not in schemes() or (source.format == "onnx" and own(source)[0] == kind):
        if options.data:
            raise UsageError(f"--data is for precisions that calibrate, and nothing is quantised here ({kind})", "leave --data out")
        return
    if options.data and not Path(options.data).exists():
        raise UsageError(f"--data {options.data}: there is no such file or folder", _DATA)
    if find(kind).needs_data and not options.data and not nano.speaks(source.folder):
        noise = f"for noise: ernie quantize {source.path} --to {kind} --random-calibration, and build what it makes"
        raise UsageError(f"--precision {kind} needs data: the ranges of activations are measured on it", f"{_DATA}; {noise}")
    if find(kind).cache and not is_decoder(source):
        raise UnsupportedError(f"--precision {kind}: {source.path} keeps no keys and values of earlier tokens", "--precision int8-weight")


def is_decoder(source: Model) -> bool:
    """Whether this is an ERNIE decoder: a checkpoint, or its graph."""
    from ..quant.plan import is_decoder

    return is_decoder(source)


def prepare(source: Model, options: Options, folder: Path) -> Model:
    """An ONNX model in the wanted precision: `source` itself where nothing has to change, else made in `folder`, which exists.

    What a scheme leaves in float computes in 16 bits. options.verify: each hop ends in its parity check. Raises what converting,
    quantising and those checks raise.
    """
    kind, rest = _both(source, options)
    made = source
    if source.format != "onnx":
        made = _converted(source, rest, options, folder / "graph")
    elif own(source)[0] == kind:
        return source
    elif own(source)[0] != rest:
        made = _lowered(source, rest, options, folder / "graph")
    if kind in FLOATS:
        return made
    quantized = _quantized(made, kind, options, folder / "quantized")
    if made is not source:
        shutil.rmtree(made.path)  # the engine's file needs the room
    return quantized


def _converted(source: Model, dtype: str, options: Options, out: Path) -> Model:
    from .. import route

    chosen = route.Options(dtype=dtype, kv_cache="static", verify=options.verify)
    return route.convert(source.path, to="onnx", out=out, options=chosen)


def _quantized(source: Model, scheme: str, options: Options, out: Path) -> Model:
    """Through the door of `ernie quantize`, but for the measuring at its end; what was checked before it stays in the record."""
    from ..quant.options import Options as Chosen
    from ..quant.quantize import quantize

    made = quantize(source, scheme, out, Chosen(data=options.data, measure=False))
    known = {name: value for name, value in made.manifest.items() if name != "ernie"}
    return write_manifest(out, **{**known, "checks": [*source.checks, *known.get("checks", [])]})


def _lowered(source: Model, dtype: str, options: Options, out: Path) -> Model:
    """An ONNX model of float32 as float16 or bfloat16: see narrow.py. What it is checked with has the shapes that --shape says."""
    from .narrow import narrow
    from .shapes import best

    decoder = is_decoder(source)
    return narrow(source, dtype, out, decoder=decoder, verify=options.verify, inputs=() if decoder else best(source, options))
