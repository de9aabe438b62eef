"""Rewrites what paddle2onnx 2.1 reads wrongly in a program that Paddle 3.3 itself reads rightly. The model's own file is left alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Operators whose attributes became doubles. paddle2onnx looks for floats: for a number it then silently takes the default
#: (a LeakyReLU of 0.1 becomes one of 0.02), for a list it ends with an exception.
_DOUBLES = (
    "bicubic_interp",
    "bilinear_interp",
    "group_norm",
    "leaky_relu",
    "leaky_relu_",
    "linear_interp",
    "logit",
    "nearest_interp",
    "pad3d",
    "rms_norm",
    "softplus",
    "trilinear_interp",
)


def repaired(file: Path, scratch: Path) -> Path:
    """`file`, or a repaired copy of it in `scratch` where something had to be changed."""
    content = json.loads(file.read_bytes())
    changes = [_as_float(attribute["AT"]) for op in _ops(content["program"]) for attribute in _attributes(op)]
    changes += [_from_the_front(op) for op in _ops(content["program"])]
    if not any(changes):
        return file
    copy = scratch / "repaired.json"
    copy.write_text(json.dumps(content))
    return copy


def _attributes(op: dict[str, Any]) -> list[dict[str, Any]]:
    return (op.get("A") or []) if str(op["#"]).removeprefix("1.") in _DOUBLES else []


def _as_float(attribute: dict[str, Any]) -> bool:
    """Mark a double, or a list of doubles, as floats. Returns whether it was one."""
    if attribute.get("#") == "0.a_f64":
        attribute["#"] = "0.a_f32"
        return True
    inner = attribute.get("D") if attribute.get("#") == "0.a_array" else None
    return True in [_as_float(value) for value in inner or [] if isinstance(value, dict)]  # all of them are to be marked


def _from_the_front(op: dict[str, Any]) -> bool:
    """Count the axis of a `repeat_interleave` from the front: paddle2onnx ends on a negative one. Returns whether it was one."""
    if not str(op["#"]).endswith(".repeat_interleave"):
        return False
    axis = next((each["AT"] for each in op.get("A") or [] if each.get("N") == "axis"), {"D": 0})
    if axis["D"] >= 0:
        return False
    axis["D"] += len(op["O"][0]["TT"]["D"][1])
    return True


def _ops(holder: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for region in holder.get("regions") or []:
        for block in region["blocks"]:
            for op in block["ops"]:
                yield op
                yield from _ops(op)
