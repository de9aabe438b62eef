"""Opening an engine to run it: what is checked before any native code, and what `ernie run` says where it cannot."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_folders import SYSTEM, edit, write_engine

from ernie_cli import nvml
from ernie_cli.app import main
from ernie_cli.engine import admit, library
from ernie_cli.errors import ErnieError, InputError, MissingError, UsageError
from ernie_cli.model import Model
from ernie_cli.runtime import tensorrt, tensorrt_admission, tensorrt_engine
from ernie_cli.runtime.cuda import gpu

RTX = library.find("tensorrt-rtx", gpu=False)
pytestmark = [
    pytest.mark.skipif(RTX is None, reason="TensorRT-RTX is not installed"),
    pytest.mark.skipif(admit.this_system() != SYSTEM, reason=f"the papers here are of {SYSTEM}"),
]
OPENERS = [tensorrt.open, tensorrt.open_graph]


@pytest.fixture
def engine(tmp_path: Path) -> Model:
    return write_engine(tmp_path / "engine", version=RTX.version if RTX else "")


@pytest.fixture
def nothing_native(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("native code was reached")

    monkeypatch.setattr(tensorrt_engine, "need", refuse)
    monkeypatch.setattr(gpu, "take", refuse)


def shorten(folder: Path) -> None:
    plan = folder / "model.plan"
    plan.write_bytes(plan.read_bytes()[:-7])


def flip(folder: Path) -> None:
    content = bytearray((folder / "model.plan").read_bytes())
    content[5000] ^= 4
    (folder / "model.plan").write_bytes(content)


@pytest.mark.usefixtures("nothing_native")
@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize(
    ("damage", "capability", "kind", "said"),
    [
        (shorten, "8.9", InputError, "truncated"),
        (flip, "8.9", InputError, "damaged"),
        (lambda folder: (folder / "ernie.json").unlink(), "8.9", InputError, "without papers"),
        (lambda folder: (folder / "model.plan").unlink(), "8.9", InputError, "no such file"),
        (lambda folder: edit(folder, lambda told: told["engine"]["library"].update(version="1.2.0.54")), "8.9", MissingError, "1.2.0.54"),
        (lambda folder: edit(folder, lambda told: told["engine"]["library"].update(name="tensorrt")), "8.9", MissingError, "TensorRT"),
        (lambda folder: edit(folder, lambda told: told["engine"].update(flags=["STRIP_PLAN"])), "8.9", UsageError, "weights were left out"),
        (lambda folder: None, "9.0", MissingError, "built for GPUs of compute capability 8.9"),
        (lambda folder: None, None, MissingError, "no NVIDIA GPU"),
    ],
)
def test_nothing_native_sees_what_is_not_admitted(
    engine: Model,
    opener: Callable[[Model], Any],
    damage: Callable[[Path], Any],
    capability: str | None,
    kind: type[ErnieError],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tensorrt_admission, "capability", lambda index: capability)
    damage(engine.path)
    with pytest.raises(kind, match=said) as raised:
        opener(Model.open(engine.path))
    assert raised.value.hint


@pytest.mark.usefixtures("nothing_native")
@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("device", ["cpu", "gpu", "cuda:x", "jetson-thor"])
def test_devices_that_run_no_engine(engine: Model, opener: Callable[..., Any], device: str) -> None:
    with pytest.raises(UsageError):
        opener(engine, device)


@pytest.mark.skipif(bool(nvml.read().gpus), reason="there is a GPU here")
@pytest.mark.parametrize("damage", [None, flip])
def test_on_the_command_line(engine: Model, damage: Callable[[Path], None] | None, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(engine.path.parent / "x.npz", x=np.zeros((1, 16), np.float16))
    if damage:
        damage(engine.path)
    for words in (["hi", "--raw"], ["--inputs", str(engine.path.parent / "x.npz")]):
        assert main(["run", str(engine.path), *words]) == (3 if damage else 5)
        said = capsys.readouterr().err
        assert "hint: " in said and ("damaged" in said if damage else "no NVIDIA GPU is seen here" in said)


@pytest.mark.skipif(bool(nvml.read().gpus), reason="there is a GPU here")
def test_past_the_papers_cuda_is_asked(engine: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """With cuda-python installed it is the driver that is missing, without it cuda-python: said before TensorRT is loaded."""
    monkeypatch.setattr(tensorrt_admission, "capability", lambda index: "8.9")
    monkeypatch.setattr(tensorrt_engine, "need", lambda module: pytest.fail("TensorRT was loaded"))
    wanted = "driver" if importlib.util.find_spec("cuda") else "cuda-python"
    with pytest.raises(MissingError, match=wanted):
        tensorrt.open(engine)
