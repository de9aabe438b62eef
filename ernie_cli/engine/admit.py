"""Everything that must hold before a plan is given to a deserialiser, which is native code that trusts its input.

The papers beside the plan are read, the plan is hashed, and what it was built with is compared with what is here. Nothing here loads
TensorRT or asks a GPU: whoever opens the engine says what it found.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import console
from ..digest import sha256_of
from ..errors import InputError, MissingError
from ..model import Model
from ..staging import MANIFEST
from . import header, record
from .command import rebuild

TITLES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
#: TensorRT-RTX compiles for 8.0, 8.6, 8.9, 12.0 "and later" where it is told nothing, and so does TensorRT for "Ampere and later".
#: https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/cpu-engines.html
_AMPERE = (8, 0)
#: Of one machine architecture, engines of TensorRT-RTX run under both systems (the same page); those of TensorRT under their own.
_EITHER_SYSTEM = ("linux", "windows")


@dataclass(frozen=True)
class Stamp:
    """What the papers say that decides where a plan may be opened. capabilities: () is every one that the library compiles for."""

    plan: Path
    n_bytes: int
    sha256: str
    library: str
    version: str
    version_compatible: bool
    system: str
    capabilities: tuple[str, ...]
    hardware_compatible: str

    @property
    def built_by(self) -> str:
        """ "TensorRT-RTX 1.7.1.116"."""
        return f"{TITLES[self.library]} {self.version}"

    @property
    def built_for(self) -> str:
        """The GPUs, in words."""
        if self.hardware_compatible == "ampere-plus" or not self.capabilities:
            return "GPUs of compute capability 8.0 and later"
        return f"GPUs of compute capability {' and '.join(self.capabilities)}"


def stamp(model: Model) -> Stamp:
    """The stamp of an engine. Raises InputError (3) where its papers are missing, damaged, or do not tell."""
    if not model.manifest:
        papers = model.folder / MANIFEST
        if model.path.is_file() and papers.is_file():
            raise InputError(f"{model.path}: a plan without its papers is not opened", f"name its folder: {model.folder}")
        hint = f"fetch {MANIFEST} from where the engine was built, or build it again: {rebuild(model)}"
        raise InputError(f"{model.path}: an engine without papers: there is no {papers}, so nothing vouches for it", hint)
    plan = model.main_file()
    found, problems = record.conform(model.manifest.get(record.NAME))
    library, target = found["library"], found["target"]
    facts = _facts(model, plan)
    size, digest = facts.get("size"), facts.get("sha256")
    problems += [
        f"{MANIFEST}: {said}"
        for wrong, said in (
            (type(size) is not int, f"it does not say how long {plan.name} is"),
            (not _matches(r"[0-9a-f]{64}", digest), f"it has no sha256 of {plan.name}"),
            (library["name"] not in TITLES, f"the library `{library['name'][:40]}` is none of {', '.join(TITLES)}"),
            (not _matches(r"\d{1,9}(\.\d{1,9}){0,4}\w{0,9}", library["version"]), f"the library's version is `{library['version'][:40]}`"),
            (not _matches(r"[a-z]+-\w+", target["system"]), f"the system is `{target['system'][:40]}`"),
            (not all(_matches(r"\d{1,3}\.\d", each) for each in target["capabilities"]), "its compute capabilities are none"),
        )
        if wrong
    ]
    if problems:
        raise InputError(f"{model.path}: its papers do not say what is needed to open it: {problems[0]}", rebuild(model))
    return Stamp(
        plan, size or 0, digest or "", library["name"], library["version"], target["version_compatible"], target["system"],
        tuple(target["capabilities"]), target["hardware_compatible"],
    )  # fmt: skip


def admit(model: Model, library_version: str, capability: str | None, system: str, *, library: str | None = None) -> None:
    """Return where the plan is whole and may be opened here; nothing native has been called until then.

    library_version: of the library that would open it, as its distribution says. capability: of the GPU ("8.9"), None where there is
    none. system: `this_system()`. library: "tensorrt" or "tensorrt-rtx", None: the one that the papers name.
    Raises InputError (3) for damage, a missing or unusable ernie.json, MissingError (5) where it was built for something else.
    """
    told = stamp(model)
    check_digest(model, told)
    check_header(model, told)
    check_library(model, told, library or told.library, library_version)
    check_system(model, told, system)
    check_capability(model, told, capability)


def this_system() -> str:
    """ "linux-x86_64": the operating system and the machine's architecture, under one name each."""
    machine = platform.machine().lower()
    return f"{platform.system().lower()}-{ {'amd64': 'x86_64', 'arm64': 'aarch64'}.get(machine, machine) }"


def check_digest(model: Model, told: Stamp) -> None:
    """Raise InputError unless the plan is byte for byte the one that was built. It is read once, in pieces."""
    again = f"copy it again from where it was built, or {rebuild(model)}"
    size = told.plan.stat().st_size
    if size != told.n_bytes:
        what = "truncated" if size < told.n_bytes else "too long"
        raise InputError(f"{told.plan}: {what}: {size} bytes where {MANIFEST} says {told.n_bytes}", again)
    with console.progress("checking the plan", size, unit="bytes") as meter:
        found = sha256_of(told.plan, meter.advance)
    if found != told.sha256:
        raise InputError(
            f"{told.plan}: damaged, or not the plan that was built: its sha256 is {found[:12]}…, {MANIFEST} says {told.sha256[:12]}…", again
        )


def check_header(model: Model, told: Stamp) -> None:
    """Raise InputError where the plan's own first bytes, if they can be read, contradict the papers: those were edited, then."""
    found = header.read(told.plan)
    if found is None:
        return
    said = ""
    if found.library != told.library or _numbers(found.version)[:3] != _numbers(told.version)[:3]:
        said = f"built by {TITLES[found.library]} {found.version}"
    elif told.capabilities and set(told.capabilities) <= set(header.GPUS) and set(told.capabilities) != set(found.capabilities):
        said = f"for {' and '.join(found.capabilities) or 'no GPU that is known'}"
    if said:
        what = f"{model.path}: {MANIFEST} says {told.built_by} for {told.built_for}, and {told.plan.name} itself: {said}"
        raise InputError(what, f"fetch both from where it was built, or {rebuild(model)}")


def check_library(model: Model, told: Stamp, library: str, version: str) -> None:
    """Raise MissingError unless `library` of `version` opens what the papers' library wrote."""
    if library != told.library:
        raise MissingError(
            f"{model.path}: built by {told.built_by}, which {TITLES.get(library, library)} {version} does not open", rebuild(model)
        )
    if version == told.version:
        return
    here = f"{model.path}: built by {told.built_by}, and {version or 'none'} is installed here"
    if not told.version_compatible or told.library != "tensorrt":  # TensorRT-RTX has no such promise
        raise MissingError(f"{here}: an engine runs on the very release that built it", rebuild(model))
    built, runs = _numbers(told.version), _numbers(version)
    if runs < built or runs[:1] > (built[0] + 1,):
        why = "a version-compatible engine runs on later releases of its own and the next major version"
        raise MissingError(f"{here}: {why}", rebuild(model))


def check_system(model: Model, told: Stamp, system: str) -> None:
    """Raise MissingError unless a plan of the papers' system can run under `system`."""
    (built_os, _, built_machine), (here_os, _, here_machine) = told.system.partition("-"), system.partition("-")
    either = told.library == "tensorrt-rtx" and {built_os, here_os} <= set(_EITHER_SYSTEM)
    if built_machine != here_machine or (built_os != here_os and not either):
        what = f"{model.path}: built under {_spoken(told.system)}, and this is {_spoken(system)}: engines do not move between them"
        raise MissingError(what, f"build it here: {rebuild(model)}")


def check_capability(model: Model, told: Stamp, capability: str | None) -> None:
    """Raise MissingError unless the GPU is one of those the plan was compiled for."""
    if capability is None:
        raise MissingError(f"{model.path}: an engine for {told.built_for}, and no NVIDIA GPU is seen here", "`ernie doctor` says why")
    exact = capability in told.capabilities
    level = told.hardware_compatible == "ampere-plus" or not told.capabilities
    if not (exact or (level and _numbers(capability) >= _AMPERE)):
        raise MissingError(f"{model.path}: built for {told.built_for}, and this GPU's is {capability}", rebuild(model, "auto"))


def _facts(model: Model, plan: Path) -> dict[str, Any]:
    files = model.manifest.get("files")
    facts = files.get(plan.relative_to(model.folder).as_posix()) if isinstance(files, dict) else None
    return facts if isinstance(facts, dict) else {}


def _matches(pattern: str, value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII) is not None


def _numbers(version: str) -> tuple[int, ...]:
    """ "10.12.0.36.post1" → (10, 12, 0, 36, 1)."""
    return tuple(int(each) for each in re.findall(r"\d+", version, re.ASCII)) or (0,)


def _spoken(system: str) -> str:
    name, _, machine = system.partition("-")
    return f"{ {'linux': 'Linux', 'windows': 'Windows', 'darwin': 'macOS'}.get(name, name) } on {machine}"
