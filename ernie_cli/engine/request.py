"""What the process that builds is told, as data that goes through JSON. Who decides it is build.py, who does it worker.py."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .options import Flags
from .shapes import Profile


@dataclass(frozen=True)
class Request(Flags):
    """graph: the .onnx file. library: "tensorrt" or "tensorrt-rtx". capabilities: ("8.9",), () is every one that the library
    compiles for; `tensorrt` compiles for the GPU at hand alone. fixed: name of an axis → its length. The flags are those of options.py.
    """

    graph: str
    library: str
    capabilities: tuple[str, ...] = ()
    fixed: Mapping[str, int] = field(default_factory=dict)
    profiles: tuple[Profile, ...] = ()

    def as_json(self) -> str:
        """What `from_json` reads."""
        return json.dumps({**asdict(self), "profiles": [{"name": each.name, "shapes": dict(each.shapes)} for each in self.profiles]})

    @classmethod
    def from_json(cls, text: str) -> Request:
        """The request that `as_json` wrote, and nothing else: the two processes are one program."""
        told: dict[str, Any] = json.loads(text)
        profiles = tuple(
            Profile(each["name"], {name: _ranges(shapes) for name, shapes in each["shapes"].items()}) for each in told["profiles"]
        )
        return cls(**{**told, "capabilities": tuple(told["capabilities"]), "profiles": profiles})


def _ranges(shapes: list[list[int]]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    least, best, most = (tuple(shape) for shape in shapes)
    return least, best, most
