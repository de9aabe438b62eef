"""The builder's verbose log, read: layers of the engine with the ONNX nodes in them, memory, inputs and outputs.

Knows no graph: what became of each node is layers.py's affair. Written for what TensorRT-RTX 1.7 says with
ProfilingVerbosity.DETAILED; TensorRT 10 and 11 say nearly the same, and what they leave out stays empty.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError

#: TensorRT's words for types → ours. Versions before 11 put them into a longer description of the format.
TYPES = {
    "Float": "fp32", "FP32": "fp32", "Half": "fp16", "FP16": "fp16", "BFloat16": "bf16", "BF16": "bf16", "FP8": "fp8", "E8M0": "e8m0",
    "FP4": "fp4", "Int64": "int64", "INT64": "int64", "Int32": "int32", "INT32": "int32", "Int8": "int8", "INT8": "int8", "Int4": "int4",
    "INT4": "int4", "UInt8": "uint8", "UINT8": "uint8", "Bool": "bool", "BOOL": "bool",
}  # fmt: skip

#: Types of numbers that take a byte or less.
NARROW = ("int8", "fp8", "int4", "fp4")

_SEVERITY = re.compile(r"(?:(?:VERBOSE|INFO|WARNING|ERROR|INTERNAL_ERROR): |\[[VIWEF]\] )")
_LAYER = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<type>.*?), Inputs: \[(?P<inputs>.*?)\](?:, Constants: \[(?P<constants>.*?)\])?"
    r", Outputs: \[(?P<outputs>|.*?\} ?)\],(?: .*?,)?? TacticName: (?P<tactic>.*?)(?:, TacticValue: \w+)?"
    r", StreamId: \d+,(?: .*?,)?? Metadata: ?(?P<metadata>.*)"
)
_TENSOR = re.compile(
    r" Name: (?P<name>.*?), IOMode: (?P<mode>\w+), DataType: (?P<type>\w+), Dimensions: \[(?P<shape>[-\d,]*)\], Location: (?P<where>\w+),"
    r".*?ProfileInfo: \[(?P<profiles>.*)\]"
)
_RANGE = re.compile(r"MinShape: \[([-\d,]*)\], OptShape: \[([-\d,]*)\], MaxShape: \[([-\d,]*)\]")
_PARSED = re.compile(r"Parsing node: (?P<node>.*) \[[^\[\]]*\]")
_REGISTERED = re.compile(r"Registering (?:layer|attention): .* for ONNX node: (?P<node>.*)")
_CAST = re.compile(r"(?P<node>.*) \[Cast\] (?:in|out)puts: \[.* -> \([^()]*\)\[(?P<type>\w+)\]\], ?")
_COMPILED = re.compile(r"ForeignNode .* metadata: (?P<metadata>.*)")
_ACTIVATIONS = re.compile(r"Total Activation Memory: (?P<bytes>\d+) bytes")
_WEIGHTS = re.compile(r"Total Weights Memory: (?P<bytes>\d+) bytes")
_PEAK = re.compile(r"\[MemUsageStats\] Peak memory usage during Engine building and serialization: CPU: (?P<mib>\d+) MiB")
_PROFILE = re.compile(r" \[profile (\d+)\]")
_SUBGRAPH = re.compile(r"_(myl\d+)_\d+$")
_DATATYPE = re.compile(r"Datatype: ([^,}]*)")


@dataclass(frozen=True)
class Layer:
    """One layer of the engine. profile: which optimisation profile it serves, from 0. nodes: ONNX names, in the log's order.

    reads, writes: types of its inputs and constants, and of its outputs ("fp16", "int64" …), each once.
    """

    name: str
    type: str
    profile: int
    nodes: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    tactic: str


@dataclass(frozen=True)
class Tensor:
    """An input or output of the engine. shape: −1 where free; ranges: per profile least, best and most, of inputs with free axes."""

    name: str
    mode: str
    dtype: str
    shape: tuple[int, ...]
    ranges: tuple[tuple[tuple[int, ...], ...], ...] = ()


@dataclass
class Log:
    """parsed: nodes the parser saw. registered: those it made layers of. compiled: those given to the compiler, in any profile.

    casts: Cast nodes → the types they read and make, one where they change nothing.
    activation_bytes: per profile. peak_host_bytes: the builder's own figure, rounded to MiB.
    """

    layers: list[Layer] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    parsed: set[str] = field(default_factory=set)
    registered: set[str] = field(default_factory=set)
    compiled: set[str] = field(default_factory=set)
    casts: dict[str, set[str]] = field(default_factory=dict)
    activation_bytes: list[int] = field(default_factory=list)
    weight_bytes: int = 0
    peak_host_bytes: int = 0


def read(file: Path) -> Log:
    """Read a build's log. Raises InputError where it lists no layers: not verbose, not DETAILED, or of a build that failed."""
    found, dumped = Log(), []
    for line in _lines(file):
        if not _note(found, line) and line.startswith("Name: ") and (layer := _LAYER.fullmatch(line)):
            dumped.append(layer.groupdict(default=""))
    if not dumped:
        raise InputError(
            f"{file}: no list of layers in it", "it takes a verbose log of a build that succeeded, with profiling verbosity DETAILED"
        )
    profiles = _profiles(dumped)
    found.layers = [_layer(each, profile) for each, profile in zip(dumped, profiles, strict=True)]
    return found


def _lines(file: Path) -> Iterator[str]:
    """Lines without the severity. Nothing but a line feed ends one: metadata holds other separators."""
    with file.open(encoding="utf-8", errors="replace", newline="\n") as text:
        for line in text:
            severity = _SEVERITY.match(line)
            yield line[severity.end() if severity else 0 :].rstrip("\n")


def _note(found: Log, line: str) -> bool:
    """Take what one line says, unless it is about a layer."""
    for start, (pattern, take) in _LINES.items():
        if line.startswith(start):
            match = pattern.fullmatch(line)
            if match:
                take(found, match)
            return match is not None
    match = _CAST.fullmatch(line) if " [Cast] " in line else None
    if match:
        found.casts.setdefault(match["node"], set()).add(match["type"])
    return match is not None


def names(metadata: str) -> tuple[str, ...]:
    """The ONNX names in "[ONNX Layer: a]␟[ONNX Layer: b]". The separator is one of two control characters, by version none."""
    entries = re.split(r"[\x1e\x1f]|(?<=\])(?=\[ONNX Layer: )", metadata)
    return tuple(entry[len("[ONNX Layer: ") : -1] for entry in entries if entry.startswith("[ONNX Layer: ") and entry.endswith("]"))


def _profiles(dumped: list[dict[str, str]]) -> list[int]:
    """Which profile each layer serves: names of its tensors carry it beyond the first, at least at the border of its subgraph."""
    own = [_PROFILE.search(each["name"] + each["inputs"] + each["outputs"]) for each in dumped]
    groups = [match[1] if (match := _SUBGRAPH.search(each["name"])) else "" for each in dumped]
    of_group = {group: int(tag[1]) for group, tag in zip(groups, own, strict=True) if tag and group}
    return [int(tag[1]) if tag else of_group.get(group, 0) for group, tag in zip(groups, own, strict=True)]


def _layer(said: Mapping[str, str], profile: int) -> Layer:
    reads, writes = _types(said["inputs"] + said["constants"]), _types(said["outputs"])
    return Layer(said["name"], said["type"], profile, names(said["metadata"]), reads, writes, said["tactic"])


def _types(tensors: str) -> tuple[str, ...]:
    said = [next((TYPES[word] for word in text.split() if word in TYPES), text.strip()) for text in _DATATYPE.findall(tensors)]
    return tuple(dict.fromkeys(said))


def _tensor(said: Mapping[str, str]) -> Tensor:
    shape = _shape(said["shape"])
    ranges = tuple(tuple(_shape(each) for each in found) for found in _RANGE.findall(said["profiles"])) if -1 in shape else ()
    return Tensor(said["name"], said["mode"].lower(), TYPES.get(said["type"], said["type"]), shape, ranges)


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(each) for each in text.split(",") if each)


#: How a line starts → what it looks like, and what is taken from it.
_LINES: Mapping[str, tuple[re.Pattern[str], Callable[[Log, re.Match[str]], None]]] = {
    "Parsing node: ": (_PARSED, lambda found, match: found.parsed.add(match["node"])),
    "Registering ": (_REGISTERED, lambda found, match: found.registered.add(match["node"])),
    "ForeignNode ": (_COMPILED, lambda found, match: found.compiled.update(names(match["metadata"]))),
    " Name: ": (_TENSOR, lambda found, match: found.tensors.append(_tensor(match.groupdict()))),
    "Total Activation ": (_ACTIVATIONS, lambda found, match: found.activation_bytes.append(int(match["bytes"]))),
    "Total Weights ": (_WEIGHTS, lambda found, match: setattr(found, "weight_bytes", int(match["bytes"]))),
    "[MemUsageStats] ": (_PEAK, lambda found, match: setattr(found, "peak_host_bytes", int(match["mib"]) << 20)),
}
