"""Whether a predicted engine fits its device and can be built here; where not, what would fit, found with the same predictor.

The device's memory is its profile's. Which sizes an engine has is predict.py's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from .. import console, host
from .. import device as devices
from ..device import Device
from ..errors import ResourceError, UnsupportedError
from ..quant import targets
from ..quant.scheme import schemes
from . import target
from .predict import Foresight, Prediction

if TYPE_CHECKING:
    from ..model import Model
    from .options import Options
    from .shapes import Shapes

#: Of a device's memory, what the system and other programs keep where they share it (Jetson): an assumption.
SHARED_BYTES = 1_500_000_000
#: Predictions of the host's memory were seen to be this share too high at most: only above is a build clearly impossible.
HOST_MARGIN = 0.8
#: What is proposed, each narrower than those before it; fp8 is left out: where it runs, int8 weights are as small.
_NARROWER = ("fp32", "fp16", "int8-weight", "int4")
#: Other precisions → the one above that is as wide. Narrow caches alone leave weights as they are.
_AS_WIDE = {"bf16": "fp16", "int8-kv": "fp16", "fp8-kv": "fp16", "int8": "int8-weight", "fp8": "int8-weight", "fp8-weight": "int8-weight"}
#: Context is tried in steps of so many tokens.
_STEP = 64


def check(prediction: Prediction, device: Device, shapes: Shapes, options: Options) -> None:
    """Raise ResourceError (7) where `device` cannot hold the engine, or this machine cannot build it; warn where it is short of memory."""
    room = device_room(device)
    if room is not None and prediction.device_total > room:
        raise ResourceError(_too_large(prediction, device, room), _what_fits(prediction, device, room, shapes, options))
    _check_host(prediction)
    if prediction.unknown:
        console.info(f"the sizes of {prediction.unknown} values could not be foreseen: more memory than said may be needed")


def device_room(device: Device) -> int | None:
    """Bytes that an engine may take on `device`, None where nobody knows how much memory it has."""
    if device.memory_gb is None or device.kind != "cuda":
        return None
    return int(device.memory_gb * 1e9) - (SHARED_BYTES if device.memory_shared else 0)


def _too_large(prediction: Prediction, device: Device, room: int) -> str:
    size = console.size
    parts = {
        "weights": prediction.weight_bytes,
        "cache": prediction.cache_bytes,
        "activations": max(prediction.activation_bytes.values(), default=0),
        "inputs and outputs": prediction.io_bytes,
    }
    listed = ", ".join(f"{name} {size(n_bytes)}" for name, n_bytes in parts.items() if n_bytes)
    shared = ", which it shares with the processor" if device.memory_shared else ""
    return f"{device.name} cannot hold this engine: {size(prediction.device_total)} ({listed}) of {size(room)}{shared}"


def _what_fits(prediction: Prediction, device: Device, room: int, shapes: Shapes, options: Options) -> str:
    """The largest context, the largest batch, the nearest precision: each alone, with all else as it was."""
    foresight = prediction.foresight
    found = []
    if context := _context(foresight, room, shapes, options):
        found.append(f"--context {context}")
    if batch := _batch(foresight, room, shapes, options):
        found.append(f"--batch {batch}" if _slots(shapes) else f"at most {batch} rows (--shape)")
    if precision := _precision(foresight, device, room, options):
        found.append(f"--precision {precision}")
    if found:
        return f"these would fit: {', or '.join(found)}"
    like = [each for each in map(devices.load, devices.names()) if _built_alike(device, each, foresight.precision)]
    larger = [each for each in like if (device_room(each) or 0) >= prediction.device_total]
    if not larger:
        return f"no device that ernie knows holds it: choose {'smaller shapes (--shape)' if options.shapes else 'a smaller model'}"
    nearest = min(larger, key=lambda each: device_room(each) or 0)
    return f"no shorter context, smaller batch or narrower precision fits: --device {nearest.name}"


def _built_alike(device: Device, other: Device, precision: str) -> bool:
    """Whether the command for `device` is one for `other`, too: compiled for by the same library, and able to run `precision`."""
    known = all(each.compute_capability in target.RTX for each in (device, other))
    return (known or device.compute_capability == other.compute_capability) and (
        precision not in schemes() or precision in targets.able(other)
    )


def _context(foresight: Foresight, room: int, shapes: Shapes, options: Options) -> int:
    """The largest context in steps of 64, below the one that was asked for; 0 where none fits, or the model has none."""

    def total(steps: int) -> int:
        return foresight.at(foresight.shapes(replace(options, context=_STEP * steps, chunk=None))).device_total

    return _STEP * _largest(total, room, -(-_slots(shapes) // _STEP)) if foresight.has_axis("slots") else 0


def _batch(foresight: Foresight, room: int, shapes: Shapes, options: Options) -> int:
    """The largest batch below the one that was asked for, 0 where none fits."""
    ranges = [each for profile in shapes.profiles for each in profile.shapes.values()]
    rows = max((most[0] for least, _, most in ranges if most and least[0] != most[0]), default=1)
    if not _slots(shapes):
        return _largest(lambda n: foresight.at(_with_rows(shapes, rows, n)).device_total, room, rows)
    if not foresight.has_axis("batch"):
        return 0
    return _largest(lambda n: foresight.at(foresight.shapes(replace(options, batch=n))).device_total, room, options.batch)


def _precision(foresight: Foresight, device: Device, room: int, options: Options) -> str:
    """The nearest narrower precision that `device` runs and that fits, "" where there is none."""
    if foresight.quantised:
        return ""
    known = _AS_WIDE.get(foresight.precision, foresight.precision or "fp32")
    begin = _NARROWER.index(known) + 1
    able = {"fp16", *targets.able(device)}
    narrower = (name for name in _NARROWER[begin:] if name in able)
    return next((name for name in narrower if (total := _total(foresight.model, name, options)) is not None and total <= room), "")


def _total(model: Model, precision: str, options: Options) -> int | None:
    """What an engine in another precision takes on the device, None where the model cannot be given that one."""
    try:
        other = Foresight(model, precision)
        return other.at(other.shapes(options)).device_total
    except UnsupportedError:
        return None


def _largest(total: Callable[[int], int], room: int, below: int) -> int:
    """The largest number below `below` whose `total` is no more than `room`, 0 where 1 is too much. Totals grow with the number.

    They do so nearly evenly: a straight line between two known ones meets the room close to where it is full.
    """
    if below <= 1 or (low := total(1)) > room:
        return 0
    good, bad, high = 1, below, total(below)
    for turn in itertools.count():
        if bad - good <= 1:
            return good
        share = (room - low) / max(high - low, 1) if turn < 4 else 0.5
        middle = min(max(good + int(share * (bad - good)), good + 1), bad - 1)
        found = total(middle)
        good, low, bad, high = (middle, found, bad, high) if found <= room else (good, low, middle, found)
    raise AssertionError("unreachable")


def _slots(shapes: Shapes) -> int:
    """Slots of a decoder's cache, 0 for other models."""
    return shapes.fixed.get("slots", 0)


def _with_rows(shapes: Shapes, before: int, rows: int) -> Shapes:
    """The same with at most `rows` where there were at most `before` along the first axis."""

    def cut(shape: tuple[int, ...]) -> tuple[int, ...]:
        return (min(shape[0], rows), *shape[1:]) if shape and shape[0] <= before else shape

    profiles = (
        replace(each, shapes={name: (cut(least), cut(best), cut(most)) for name, (least, best, most) in each.shapes.items()})
        for each in shapes.profiles
    )
    return replace(shapes, profiles=tuple(profiles))


def _check_host(prediction: Prediction) -> None:
    memory, needed = host.memory(), prediction.host_peak_bytes
    size = console.size
    if HOST_MARGIN * needed > memory.total:
        what = f"building this engine takes about {size(needed)} of this machine's memory, it has {size(memory.total)}"
        raise ResourceError(what, "build on a larger machine, or a narrower --precision: no GPU is needed for it")
    if needed > memory.available:
        console.warn(f"building takes about {size(needed)} of memory, {size(memory.available)} are free: it may fail")
