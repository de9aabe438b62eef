"""What a build will do, decided before any work: device, library, precision, shapes, memory, place. See build.py for the work."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import device as devices
from .. import host
from ..device import Device
from ..errors import ResourceError, UnsupportedError
from ..model import Model, check_out, fingerprint, is_up_to_date, work_key
from .library import Library
from .options import Options

if TYPE_CHECKING:
    from .predict import Prediction
    from .shapes import Shapes

#: What an engine can be built from: checkpoints become a graph first.
FORMATS = ("hf", "paddle", "onnx")


@dataclass(frozen=True)
class Plan:
    """why: the reason for the library. capabilities: of the GPUs it is built for, () is every one that the library compiles for.

    precision: of the engine ("fp16", "int8" …). prediction: sizes in bytes. key: digest of source, options and versions.
    """

    source: Model
    device: Device
    library: Library
    why: str
    capabilities: tuple[str, ...]
    options: Options
    precision: str
    shapes: Shapes
    prediction: Prediction
    out: Path
    key: str
    up_to_date: bool

    def as_dict(self) -> dict[str, Any]:
        """For --json and --dry-run."""
        return {
            "source": str(self.source.path),
            "format": self.source.format,
            "device": self.device.name,
            "library": {"name": self.library.name, "version": self.library.version, "why": self.why},
            "capabilities": list(self.capabilities),
            "precision": self.precision,
            "shapes": asdict(self.shapes),
            "prediction": self.prediction.as_dict(),
            "options": asdict(self.options),
            "out": str(self.out),
            "up_to_date": self.up_to_date,
        }


def plan(model: str | Path, *, device: str, out: Path, options: Options | None = None) -> Plan:
    """Check everything cheap, and that the engine will fit the device and the build this machine.

    Raises UsageError for options that make no sense, InputError for a broken model, UnsupportedError for a format, precision or
    flag that device or library lack, MissingError without a library, ResourceError where memory or disk will not do.
    """
    from ..quant import plan as quant
    from . import library, precision, predict, target

    options = options or Options()
    source = Model.open(model)
    if source.format not in FORMATS:
        made_from = source.told("made_from").get("path")
        hint = f"ernie convert {source.path} --to onnx" if source.format != "engine" else f"build what it was made from: {made_from or '?'}"
        raise UnsupportedError(f"{source.path} is {source.format}: engines are built from {', '.join(FORMATS)}", hint)
    check_out(source, out)
    described = devices.load(device)
    chosen, why = library.choose(options.library)
    library.check(chosen, options)
    capabilities = target.capabilities(described, chosen, options)
    kind = precision.wanted(source, options)
    precision.check_data(source, options)
    target.check(described, kind, str(source.told("quantization").get("scheme", "")), precision.floats(source, options))
    foresight = predict.Foresight(source, kind)
    lengths = foresight.shapes(options)
    foreseen = foresight.at(lengths)
    data = quant.digest(Path(options.data)) if options.data else ""
    given = {
        "device": device,
        "library": [chosen.name, chosen.version],
        "calibrated on": data,
        "shapes": asdict(lengths),
        **asdict(options),
    }
    key = work_key(fingerprint(source.path), given)
    made = Plan(source, described, chosen, why, capabilities, options, kind, lengths, foreseen, out.absolute(), key, False)
    if is_up_to_date(made.out, key):
        return Plan(**{**vars(made), "up_to_date": True})
    predict.check(foreseen, described, lengths, options)
    _check_disk(made)
    return made


def _check_disk(plan: Plan) -> None:
    from .. import console

    needed, free = plan.prediction.disk_bytes, host.disk_free(plan.out)
    if needed > free:
        what = f"{plan.out}: up to {console.size(needed)} are needed while it is built, {console.size(free)} are free"
        raise ResourceError(what, "free some space, or choose another disk with -o")
