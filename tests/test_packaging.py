"""What is installed is what is in the repository: packages, profiles, catalogue, the embedded model; and its metadata."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from ernie_cli import __version__
from ernie_cli.need import EXTRAS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
MAPPED = ("commands", "converters", "profiles")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
OPTIONAL: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]


def sources() -> Iterator[tuple[str, Path]]:
    """(where a file of the package is installed, where it lies in the repository) for all that people need at run time."""
    for top in ("ernie_cli", *MAPPED):
        for file in sorted((ROOT / top).rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                inside = file.relative_to(ROOT).as_posix()
                yield (inside if top == "ernie_cli" else f"ernie_cli/{inside}"), file


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive, built from a copy of the tree without fetching anything."""
    tree, out = tmp_path_factory.mktemp("tree") / "ernie", tmp_path_factory.mktemp("dist")
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("ernie_cli", *MAPPED):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    build = "import sys; from setuptools import build_meta as b; out = sys.argv[1]; b.build_wheel(out); b.build_sdist(out)"
    subprocess.run([sys.executable, "-c", build, str(out)], cwd=tree, check=True, capture_output=True)
    return out


def test_every_folder_is_a_listed_package() -> None:
    on_disk = {file.parent.relative_to(ROOT).as_posix().replace("/", ".") for file in (ROOT / "ernie_cli").rglob("__init__.py")}
    on_disk |= {f"ernie_cli.{name}" for name in MAPPED}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == on_disk


def test_every_folder_with_code_has_an_init() -> None:
    folders = {file.parent for file in (ROOT / "ernie_cli").rglob("*.py")} | {ROOT / name for name in MAPPED}
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").is_file()]


def test_wheel_holds_every_file(dist: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        installed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert installed == {name for name, _ in sources()}


def test_nothing_generic_lands_beside_the_package(dist: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {"ernie_cli", f"ernie_cli-{__version__}.dist-info"}


def test_source_archive_holds_every_file(dist: Path) -> None:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {file.relative_to(ROOT).as_posix() for _, file in sources()} <= held
    assert {"pyproject.toml", "LICENSE", "README.md"} <= held


def test_wheel_stays_small(dist: Path) -> None:
    assert next(dist.glob("*.whl")).stat().st_size < 6e6  # the embedded model may take 4 MB of it


def test_wheel_runs_from_its_own_folder(dist: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path)
    code = "import sys; sys.path.insert(0, ''); from ernie_cli import device; print(device.__file__, device.load('h200').title, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines() == [str(tmp_path / "ernie_cli" / "device.py"), "NVIDIA H200 SXM 141 GB"]


# --- what is asked for --------------------------------------------------------------------------------------------------


def requirements(name: str) -> dict[str, Requirement]:
    """Requirements of an extra ("" = base) by name, without those for another Python."""
    listed = map(Requirement, OPTIONAL[name] if name else PROJECT["project"]["dependencies"])
    return {found.name: found for found in listed if found.marker is None or found.marker.evaluate()}


def test_every_extra_that_errors_name_exists() -> None:
    assert {extra for extra in EXTRAS.values() if extra} <= set(OPTIONAL)


def test_the_two_runtimes_are_never_asked_for_together() -> None:
    assert "onnxruntime" in requirements("cpu") and "onnxruntime-gpu" in requirements("gpu")
    assert not [name for name in OPTIONAL if {"onnxruntime", "onnxruntime-gpu"} <= set(requirements(name))]
    assert "onnxruntime" not in requirements("")


def test_only_gpu_asks_for_what_needs_the_vendor_s_index() -> None:
    assert [extra for extra in OPTIONAL if "tensorrt" in requirements(extra)] == ["gpu"]


@pytest.mark.parametrize("version", ["1.16.1", "1.17.0", "1.23.2"])
def test_base_takes_the_oldest_and_the_newest_onnx(version: str) -> None:
    assert version in requirements("")["onnx"].specifier


def test_paddle_holds_onnx_where_paddle2onnx_needs_it() -> None:
    pin = requirements("paddle")["onnx"].specifier
    assert "1.17.0" in pin and "1.16.1" in pin and "1.18.0" not in pin


def test_python() -> None:
    assert PROJECT["project"]["requires-python"] == ">=3.10"
    assert PROJECT["tool"]["mypy"]["python_version"] == "3.10" and PROJECT["tool"]["ruff"]["target-version"] == "py310"


# --- constraints.txt ----------------------------------------------------------------------------------------------------

PINS = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]


def test_constraints_are_exact_and_name_no_place() -> None:
    assert all(re.fullmatch(r"==[^,]+", str(pin.specifier)) and pin.url is None for pin in PINS)
    assert "torch==2.13.0" in map(str, PINS)


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_constraints_pin_once_per_python(python: str) -> None:
    names = [pin.name.lower() for pin in PINS if pin.marker is None or pin.marker.evaluate({"python_version": python})]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("extra", ["", "cpu", "torch", "dev"])
def test_constraints_satisfy_the_ranges(extra: str) -> None:
    pins = {pin.name.lower(): pin.specifier for pin in PINS if pin.marker is None or pin.marker.evaluate()}
    for name, wanted in requirements(extra).items():
        if name != "ernie-cli":
            assert _version(pins[name.lower()]) in wanted.specifier, name


def _version(pin: SpecifierSet) -> str:
    return next(iter(pin)).version
