"""What a quantisation will do, decided before any work: scheme, options that fit it, data, device, place. See quantize.py for the work."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import console, host
from ..errors import ResourceError, UnsupportedError, UsageError
from ..model import Model, check_out, fingerprint, is_up_to_date, work_key
from . import disk, layers
from .layers import Layer
from .options import BLOCKS, Options
from .scheme import Scheme, find
from .source import open_source

if TYPE_CHECKING:
    import onnx_ir as ir

#: What can be quantised: checkpoints are streamed into a graph, ONNX models are read where they lie.
FORMATS = ("hf", "paddle", "onnx")
_SAYS_HOW = "give --data lines.jsonl, arrays.npz or a folder of images (--random-calibration takes noise, and the record says so)"


@dataclass(frozen=True)
class Plan:
    """key: digest of source, scheme, options and this version. bytes_needed: most that the result and the work beside it take."""

    source: Model
    scheme: Scheme
    out: Path
    options: Options
    key: str
    bytes_needed: int
    up_to_date: bool

    def as_dict(self) -> dict[str, Any]:
        """For --json and --dry-run."""
        return {
            "source": str(self.source.path),
            "format": self.source.format,
            "scheme": self.scheme.name,
            "says": self.scheme.says,
            "out": str(self.out),
            "options": asdict(self.options),
            "bytes_needed": self.bytes_needed,
            "up_to_date": self.up_to_date,
        }


def plan(model: str | Path, *, to: str, out: Path, options: Options | None = None) -> Plan:
    """Check everything cheap.

    Raises UsageError for a scheme or options that make no sense, InputError for a broken model, UnsupportedError for a format or
    device that cannot and where there is nothing to quantise, ResourceError where the disk is too full.
    """
    options = options or Options()
    scheme = find(to)
    _check_options(scheme, options)
    source = Model.open(model)
    if source.format not in FORMATS:
        made_from = source.told("made_from").get("path")
        hint = (
            f"ernie convert {source.path} --to onnx" if source.format != "engine" else f"quantise what it was made from: {made_from or '?'}"
        )
        raise UnsupportedError(f"{source.path} is {source.format}: only {', '.join(FORMATS)} can be quantised", hint)
    if scheme.needs_data and not (options.data or options.scales or options.random_calibration or _embedded(source)):
        raise UsageError(f"{to} needs data: the ranges of activations are measured on it", _SAYS_HOW)
    _check_device(scheme, source, options)
    out = out.absolute()
    check_out(source, out)
    given = {name: getattr(options, name) for name in ("data", "eval_data", "scales")}
    files = {name: digest(Path(path)) for name, path in given.items() if path}
    key = work_key(fingerprint(source.path), {"to": to, **asdict(options), "files": files})
    if is_up_to_date(out, key):
        return Plan(source, scheme, out, options, key, 0, True)
    graph = open_source(source)
    chosen_layers(source, graph, scheme, options)
    needed, free = disk.needed(source, graph, scheme, options), host.disk_free(out)
    if needed > free:
        what = f"{out}: up to {console.size(needed)} are needed, {console.size(free)} are free"
        raise ResourceError(what, "free some space, or choose another disk with -o")
    return Plan(source, scheme, out, options, key, needed, False)


def chosen_layers(source: Model, graph: ir.Model, scheme: Scheme, options: Options) -> list[Layer]:
    """The layers of `source`'s graph that scheme, --include and --exclude take.

    Raises UnsupportedError where there are none, or narrow ones already; UsageError for patterns that meet nothing.
    """
    if layers.already(graph):
        path = source.told("made_from").get("path")
        raise UnsupportedError(f"{source.path}: it is quantised already", f"quantise what it was made from{f': {path}' if path else ''}")
    found = layers.find(graph, scheme, options.include, options.exclude)
    if not found and scheme.weight:
        raise UnsupportedError(f"{source.path}: it has no layer that {scheme.name} takes", "`ernie inspect` shows its operators")
    return found


def digest(path: Path) -> str:
    """Changes when a file of data does; of a folder, when the names, sizes or times of its files do: there may be a million."""
    if path.is_file():
        return fingerprint(path)
    facts = sorted((str(file), stat.st_size, stat.st_mtime_ns) for file in path.rglob("*") if (stat := file.stat()))
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def is_decoder(source: Model) -> bool:
    """Whether this is an ERNIE decoder: a checkpoint, or its graph."""
    from .report import files

    return source.format in ("hf", "paddle") or files.is_decoder(source)


def _embedded(source: Model) -> bool:
    """Whether this is the model inside the package, which brings its own lines."""
    from .. import nano

    return nano.speaks(source.folder)


def _check_options(scheme: Scheme, options: Options) -> None:
    blocks = scheme.weight is not None and scheme.weight.block > 0
    name, smooth = scheme.name, options.smooth
    said = [
        (options.block not in BLOCKS, f"--block {options.block}: there are {', '.join(map(str, BLOCKS))}", "--block 32"),
        (options.method != "rtn" and not blocks, f"--method {options.method} is for int4, not {name}", "leave --method out, or --to int4"),
        (options.mix != "none" and not blocks, f"--mix is for int4, not {name}", "leave --mix out, or --to int4"),
        (smooth not in (None, "off") and not scheme.activation, f"--smooth is for int8 and fp8, not {name}", "leave --smooth out"),
        (smooth not in (None, "off", "auto") and not _share(smooth), f"--smooth {smooth}: 0 to 1, or auto", "--smooth 0.5"),
        (options.samples < 1, f"--samples {options.samples} makes no sense", "--samples 128"),
        (bool(options.data) and options.random_calibration, "--data and --random-calibration at once", "leave one out"),
        (bool(options.mean) != bool(options.std), "--mean and --std go together", "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"),
    ]
    for wrong, message, hint in said:
        if wrong:
            raise UsageError(message, hint)
    from .calibrate.observers import observer

    observer(options.observer)
    if options.max_drop is not None:
        from .budget import parse_drop

        parse_drop(options.max_drop)
    if options.method in ("awq", "gptq") and not (options.data or options.random_calibration):
        raise UsageError(f"--method {options.method} needs data: it weighs errors by what flows through", _SAYS_HOW)
    for name in ("data", "eval_data", "scales"):
        path = getattr(options, name)
        if path and not Path(path).exists():
            raise UsageError(f"--{name.replace('_', '-')} {path}: there is no such file or folder", _SAYS_HOW)


def _share(text: str | None) -> bool:
    try:
        return 0 <= float(text or "") <= 1
    except ValueError:
        return False


def _check_device(scheme: Scheme, source: Model, options: Options) -> None:
    if options.device:
        from .. import device
        from .targets import check

        check(scheme, device.load(options.device), str(source.manifest.get("precision", "")))
