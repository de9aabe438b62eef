"""Nothing reaches a deserialiser unless the plan is whole and was built for this library, system and GPU; refusals say why, in words."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_folders import FULL, RTX, SYSTEM, edit, write_engine

from ernie_cli.app import main
from ernie_cli.engine.admit import admit, stamp, this_system
from ernie_cli.errors import InputError, MissingError
from ernie_cli.inspect import look
from ernie_cli.inspect.render import render
from ernie_cli.model import Model

PLAN_BYTES = 100_000


@pytest.fixture
def engine(tmp_path: Path) -> Model:
    return write_engine(tmp_path / "engine")


def flip(bit: int) -> Callable[[Path], None]:
    def change(plan: Path) -> None:
        content = bytearray(plan.read_bytes())
        content[bit // 8] ^= 1 << bit % 8
        plan.write_bytes(content)

    return change


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "first bit": (flip(0), "its sha256 is"),
    "a bit in the middle": (flip(PLAN_BYTES * 4 + 3), "its sha256 is"),
    "last bit": (flip(PLAN_BYTES * 8 - 1), "its sha256 is"),
    "truncated by one byte": (lambda plan: plan.write_bytes(plan.read_bytes()[:-1]), "truncated: 99999 bytes"),
    "half of it": (lambda plan: plan.write_bytes(plan.read_bytes()[: PLAN_BYTES // 2]), "truncated: 50000 bytes"),
    "empty": (lambda plan: plan.write_bytes(b""), "truncated: 0 bytes"),
    "longer": (lambda plan: plan.write_bytes(plan.read_bytes() + b"x"), "too long: 100001 bytes"),
    "gone": (lambda plan: plan.unlink(), "no such file"),
    "a folder": (lambda plan: (plan.unlink(), plan.mkdir()), "no such file"),
    "a pipe": (lambda plan: (plan.unlink(), os.mkfifo(plan)), "no such file"),
    "no papers": (lambda plan: (plan.parent / "ernie.json").unlink(), "an engine without papers"),
    "papers cut off": (lambda plan: os.truncate(plan.parent / "ernie.json", 1000), "not valid JSON"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_refused(name: str, engine: Model) -> None:
    change, said = DAMAGE[name]
    change(engine.path / "model.plan")
    with pytest.raises(InputError, match=said) as caught:
        admit(Model.open(engine.path), RTX, "8.9", SYSTEM)
    assert str(engine.path) in caught.value.message and caught.value.hint


def test_a_whole_plan_is_admitted(engine: Model) -> None:
    admit(engine, RTX, "8.9", SYSTEM)
    assert stamp(engine).plan == engine.path / "model.plan"


def test_a_plan_is_not_opened_without_its_folder(engine: Model) -> None:
    with pytest.raises(InputError, match="without its papers"):
        admit(Model.open(engine.path / "model.plan"), RTX, "8.9", SYSTEM)


RTX_BUILT: dict[str, Any] = {"library": "tensorrt-rtx"}
FULL_BUILT: dict[str, Any] = {"library": "tensorrt"}
PLUS = {**FULL_BUILT, "hardware_compatible": "ampere-plus"}
SAME = {**FULL_BUILT, "hardware_compatible": "same-capability"}
LATER = {**FULL_BUILT, "version_compatible": True}
#: How it was built, what is here (version, capability, system), and words of the refusal, "" where it is admitted.
MATRIX = [
    (RTX_BUILT, (RTX, "8.9", SYSTEM), ""),
    (RTX_BUILT, ("1.7.1.117", "8.9", SYSTEM), r"built by TensorRT-RTX 1\.7\.1\.116, and 1\.7\.1\.117 is installed here"),
    (RTX_BUILT, ("", "8.9", SYSTEM), "and none is installed here"),
    ({**RTX_BUILT, "version_compatible": True}, ("1.8.0.1", "8.9", SYSTEM), "the very release that built it"),
    (RTX_BUILT, (RTX, "8.6", SYSTEM), r"built for GPUs of compute capability 8\.9, and this GPU's is 8\.6"),
    (RTX_BUILT, (RTX, "12.0", SYSTEM), r"this GPU's is 12\.0"),
    (RTX_BUILT, (RTX, None, SYSTEM), "no NVIDIA GPU is seen here"),
    ({**RTX_BUILT, "capabilities": ("8.6", "8.9")}, (RTX, "8.6", SYSTEM), ""),
    ({**RTX_BUILT, "capabilities": ("8.6", "8.9")}, (RTX, "12.0", SYSTEM), r"8\.6 and 8\.9"),
    ({**RTX_BUILT, "capabilities": ()}, (RTX, "12.0", SYSTEM), ""),
    ({**RTX_BUILT, "capabilities": ()}, (RTX, "8.0", SYSTEM), ""),
    ({**RTX_BUILT, "capabilities": ()}, (RTX, "7.5", SYSTEM), r"8\.0 and later, and this GPU's is 7\.5"),
    (RTX_BUILT, (RTX, "8.9", "windows-x86_64"), ""),
    (RTX_BUILT, (RTX, "8.9", "linux-aarch64"), "built under Linux on x86_64, and this is Linux on aarch64"),
    (FULL_BUILT, (FULL, "8.9", SYSTEM), ""),
    (FULL_BUILT, (FULL, "8.9", "windows-x86_64"), "and this is Windows on x86_64"),
    (FULL_BUILT, ("10.14.0.1", "8.9", SYSTEM), r"TensorRT 10\.13\.3\.9, and 10\.14\.0\.1"),
    (FULL_BUILT, (FULL, "9.0", SYSTEM), r"this GPU's is 9\.0"),
    (SAME, (FULL, "8.9", SYSTEM), ""),
    (SAME, (FULL, "8.6", SYSTEM), r"this GPU's is 8\.6"),
    (PLUS, (FULL, "8.6", SYSTEM), ""),
    (PLUS, (FULL, "12.0", SYSTEM), ""),
    (PLUS, (FULL, "7.5", SYSTEM), r"8\.0 and later"),
    (LATER, (FULL, "8.9", SYSTEM), ""),
    (LATER, ("10.14.0.1", "8.9", SYSTEM), ""),
    (LATER, ("11.3.0.14", "8.9", SYSTEM), ""),
    (LATER, ("10.12.0.36", "8.9", SYSTEM), "later releases"),
    (LATER, ("12.0.0.1", "8.9", SYSTEM), "the next major version"),
]


@pytest.mark.parametrize(("built", "here", "said"), MATRIX)
def test_what_runs_where(built: dict[str, Any], here: tuple[str, str | None, str], said: str, tmp_path: Path) -> None:
    model = write_engine(tmp_path / "engine", **built)
    if not said:
        return admit(model, *here)
    with pytest.raises(MissingError, match=said) as caught:
        admit(model, *here)
    assert caught.value.exit_code == 5 and "tag" not in caught.value.message
    return None


def test_the_other_library_does_not_open_it(engine: Model) -> None:
    with pytest.raises(MissingError, match=r"built by TensorRT-RTX 1\.7\.1\.116, which TensorRT 10\.13\.3\.9 does not open"):
        admit(engine, FULL, "8.9", SYSTEM, library="tensorrt")


def test_the_way_out_is_the_command_that_built_it_for_the_gpu_that_is_here(tmp_path: Path) -> None:
    model = write_engine(tmp_path / "my engine", shapes=("x:1x16,4x16,8x16",), precision="int8", workspace=2_000_000_000, refit=True)
    with pytest.raises(MissingError) as caught:
        admit(model, RTX, "8.6", SYSTEM)
    expected = (
        f"ernie build '{tmp_path}/my engine-onnx' --device auto --precision int8 --shape x:1x16,4x16,8x16 --workspace 2000000000 --refit"
    )
    assert caught.value.hint == f"{expected} -o '{tmp_path}/my engine' --force"
    (model.path / "model.plan").write_bytes(b"")
    with pytest.raises(InputError, match="truncated") as damaged:
        admit(model, RTX, "8.9", SYSTEM)
    assert "--device rtx4090" in damaged.value.hint


# --- ernie.json, edited by hand -----------------------------------------------------------------------------------------

ODD = [None, True, -1, 1e300, float("nan"), 10**40, "", "../../x", "\x1b[31m\0\ud800", "9" * 5000, [], [[]], {}, {"a": {"b": []}}]


def paths(value: Any, start: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [start, *(path for name, each in inner for path in paths(each, (*start, name)))]


def put(told: Any, path: tuple[Any, ...], value: Any) -> None:
    for name in path[:-1]:
        told = told[name]
    told[path[-1]] = value


def test_no_edit_of_the_papers_crashes_admission_or_inspection(engine: Model, capsys: Any) -> None:
    """Every value of ernie.json in turn replaced by something odd: refused or harmless, never a bug."""
    text = (engine.path / "ernie.json").read_text()
    refused = 0
    for number, path in enumerate(paths(json.loads(text))[1:]):
        for odd in ODD[number % 7 :: 7]:
            told = json.loads(text)
            put(told, path, odd)
            (engine.path / "ernie.json").write_text(json.dumps(told))
            refused += not_a_bug(lambda: admit(Model.open(engine.path), RTX, "8.9", SYSTEM))
            refused += not_a_bug(lambda: render(look(engine.path)))
        if number % 25 == 0:  # all the way to the terminal
            for more in ([], ["--layers"], ["--json"]):
                assert main(["inspect", str(engine.path), "-q", *more]) != 1, (path, odd, capsys.readouterr().err)
    assert refused > 50


def not_a_bug(work: Callable[[], Any]) -> bool:
    """Whether it is refused, in one of the ways that are meant to be."""
    try:
        work()
    except (InputError, MissingError) as err:
        assert err.message and err.hint
        return True
    return False


@pytest.mark.parametrize("key", ["engine", "files", "main", "format"])
def test_missing_keys(key: str, engine: Model) -> None:
    model = edit(engine.path, lambda told: told.pop(key) and None)
    if key in ("main", "format"):  # the folder itself tells
        return admit(model, RTX, "8.9", SYSTEM)
    with pytest.raises(InputError, match="its papers do not say"):
        admit(model, RTX, "8.9", SYSTEM)
    return None


@pytest.mark.parametrize("place", ["../elsewhere.plan", "/etc/passwd", "a/../../b", "C:\\x"])
def test_the_plan_never_lies_outside_the_folder(place: str, engine: Model) -> None:
    model = edit(engine.path, lambda told: told | {"main": place})
    with pytest.raises(InputError, match="would leave the folder"):
        admit(model, RTX, "8.9", SYSTEM)


def test_a_name_that_no_file_can_have(engine: Model) -> None:
    model = edit(engine.path, lambda told: told | {"main": "x" * 300})
    with pytest.raises(InputError, match="longer than any file's"):
        admit(model, RTX, "8.9", SYSTEM)


@pytest.mark.parametrize("depth", [101, 450, 900])
def test_papers_nested_without_end(depth: int, engine: Model, capsys: Any) -> None:
    text = (engine.path / "ernie.json").read_text()
    (engine.path / "ernie.json").write_text(text.replace('"checks": []', f'"checks": {"[" * depth}{"]" * depth}', 1))
    for words in (["inspect"], ["inspect", "--json"], ["run", "hello"]):
        assert main([words[0], str(engine.path), *words[1:]]) == 3
    assert capsys.readouterr().err.count("deep") == 3


#: The first bytes of a plan of TensorRT-RTX 1.7.1 for 8.6 and 8.9.
START = struct.pack("<4sIQQ4B4sQ", b"vtrt", 0, 2, 48, 1, 7, 1, 116, b"vtrt", 0b1100)


@pytest.mark.parametrize(
    ("version", "capabilities", "said"),
    [
        (RTX, ("8.6", "8.9"), ""),
        (RTX, (), ""),
        (RTX, ("8.9",), r"itself: for 8\.6 and 8\.9"),
        ("1.8.0.1", ("8.6", "8.9"), r"itself: built by TensorRT-RTX 1\.7\.1\.116"),
    ],
)
def test_papers_that_the_plan_itself_contradicts(version: str, capabilities: tuple[str, ...], said: str, tmp_path: Path) -> None:
    model = write_engine(tmp_path / "engine", version=version, capabilities=capabilities, plan=START)
    if not said:
        return admit(model, version, "8.9", SYSTEM)
    with pytest.raises(InputError, match=said):
        admit(model, version, "8.9", SYSTEM)
    return None


def test_this_system_is_spelt_one_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "AMD64")
    monkeypatch.setattr("platform.system", lambda: "Windows")
    assert this_system() == "windows-x86_64"


# --- through the door that runs engines ---------------------------------------------------------------------------------

#: Runs commands in one process and says which native libraries it has loaded in the end.
_SCRIPT = """
import json, sys
from ernie_cli.app import main
codes = [main(words) for words in json.loads(sys.argv[1])]
libraries = ("tensorrt", "tensorrt_rtx_bindings", "tensorrt_rtx", "cuda.bindings.runtime", "cuda.cudart")
native = [name for name in libraries if name in sys.modules]
print("RESULT", json.dumps([codes, native]))
"""


def in_one_process(*commands: list[str]) -> tuple[list[int], list[str], str]:
    """(exit codes, native libraries loaded, stderr)."""
    done = subprocess.run([sys.executable, "-c", _SCRIPT, json.dumps(commands)], capture_output=True, text=True, check=True)
    result = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    codes, loaded = json.loads(result.removeprefix("RESULT "))
    return codes, loaded, done.stderr


def test_running_what_is_refused_loads_nothing_native(tmp_path: Path) -> None:
    """Damage of every kind (3), then an engine of another release (5): whoever opens engines must ask first."""
    folders = [write_engine(tmp_path / str(number)).path for number in range(len(DAMAGE))]
    for folder, (change, _) in zip(folders, DAMAGE.values(), strict=True):
        change(folder / "model.plan")
    folders.append(write_engine(tmp_path / "older", version="1.2.3.4").path)
    codes, loaded, errors = in_one_process(*(["run", str(folder), "hello"] for folder in folders))
    assert codes == [3] * len(DAMAGE) + [5], errors
    assert not loaded
    assert "Traceback" not in errors and errors.count("error: ") == len(folders)
    assert "TensorRT-RTX 1.2.3.4" in errors
