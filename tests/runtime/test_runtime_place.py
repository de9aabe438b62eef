"""Where ONNX Runtime is to compute, and why: a table over what was asked, what is installed and what the driver shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from ernie_cli import host
from ernie_cli.app import main
from ernie_cli.errors import ErnieError, InputError, MissingError, ResourceError, UsageError
from ernie_cli.nvml import Driver, Gpu
from ernie_cli.runtime import place as places
from ernie_cli.runtime import placement
from ernie_cli.runtime.onnxruntime_session import create_session, translated
from ernie_cli.runtime.open import backends, open_session
from ernie_cli.runtime.place import CPU, CUDA, TENSORRT, Place, choose

CPU_BUILD, GPU_BUILD = [CPU], [TENSORRT, CUDA, CPU]
NONE = Driver(problem="no NVIDIA driver: not found")
T4 = Driver("580.1", "13.0", (Gpu(0, "Tesla T4", None, "7.5", 16 << 30, 15 << 30), Gpu(1, "Tesla T4", None, "7.5", 16 << 30, 15 << 30)))


@pytest.fixture(autouse=True)
def a_plain_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not this one's: no variable hides a GPU, and no board is one."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(host, "board", lambda: "")


@pytest.mark.parametrize(
    ("device", "available", "driver", "title", "why"),
    [
        ("cpu", GPU_BUILD, T4, "cpu", "--device cpu"),
        ("auto", CPU_BUILD, T4, "cpu", "this onnxruntime is built for the CPU"),
        ("auto", GPU_BUILD, NONE, "cpu", "no NVIDIA driver: not found"),
        ("auto", GPU_BUILD, T4, "cuda:0 Tesla T4", "the driver reports Tesla T4"),
        ("cuda", GPU_BUILD, T4, "cuda:0 Tesla T4", "--device cuda"),
        ("cuda:1", GPU_BUILD, T4, "cuda:1 Tesla T4", "--device cuda:1"),
        ("t4", GPU_BUILD, T4, "cuda:0 Tesla T4", "--device t4"),
    ],
)
def test_where_and_why(device: str, available: list[str], driver: Driver, title: str, why: str) -> None:
    found = choose(device, available, driver=driver)
    assert (found.title, found.why) == (title, why)
    assert (found.kind, found.number) == ("cpu", 0) if title == "cpu" else ("cuda", int(title[5]))


@pytest.mark.parametrize(
    ("device", "available", "driver", "error", "says", "hint"),
    [
        ("tpu", GPU_BUILD, T4, UsageError, "cpu or cuda, not `tpu`", "--device auto"),
        ("cuda:x", GPU_BUILD, T4, UsageError, "not `cuda:x`", "--device auto"),
        ("cuda", GPU_BUILD, NONE, MissingError, "no NVIDIA driver", "--device cpu"),
        ("cuda", CPU_BUILD, NONE, MissingError, "no NVIDIA driver", "--device cpu"),
        ("cuda:2", GPU_BUILD, T4, MissingError, "this machine has 2", "--device cpu"),
        ("cuda", CPU_BUILD, T4, MissingError, "built for the CPU", "pip install 'ernie-cli[gpu]'"),
        ("rtx4090", GPU_BUILD, T4, UsageError, "this machine's GPU is a NVIDIA T4", "--device cuda"),
    ],
)
def test_a_gpu_that_was_named_and_is_not_there(
    device: str, available: list[str], driver: Driver, error: type[ErnieError], says: str, hint: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        choose(device, available, driver=driver)
    assert hint in caught.value.hint


def test_hidden_gpus_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert choose("auto", GPU_BUILD, driver=T4).kind == "cpu"
    with pytest.raises(MissingError, match="CUDA_VISIBLE_DEVICES= hides"):
        choose("cuda", GPU_BUILD, driver=T4)


def test_libraries_that_do_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime-gpu is installed, and yet it has no CUDA provider."""
    monkeypatch.setattr(places, "_version", lambda distribution: "1.31.1")
    with pytest.raises(MissingError, match=r"onnxruntime-gpu 1\.31\.1 do not load") as caught:
        choose("cuda", CPU_BUILD, driver=T4)
    assert "ernie-cli[gpu]" in caught.value.hint
    assert "do not load" in choose("auto", CPU_BUILD, driver=T4).why


def test_tensorrt_goes_first_only_where_asked() -> None:
    assert [provider if isinstance(provider, str) else provider[0] for provider in choose("cuda", GPU_BUILD, driver=T4).providers()] == [
        CUDA,
        CPU,
    ]
    asked = choose("cuda", GPU_BUILD, driver=T4, tensorrt=True).providers()
    assert [provider if isinstance(provider, str) else provider[0] for provider in asked] == [TENSORRT, CUDA, CPU]
    with pytest.raises(MissingError, match="no TensorRT provider"):
        choose("cuda", [CUDA, CPU], driver=T4, tensorrt=True)


def test_a_gpu_computes_float32_in_float32_and_captures_only_where_told() -> None:
    (_, options), _ = Place("cuda", 1).providers()
    assert options == {"device_id": "1", "use_tf32": "0", "enable_cuda_graph": "0"}
    (_, options), _ = Place("cuda", capture=True).providers()
    assert options["enable_cuda_graph"] == "1"


def test_tensorrt_s_backend_is_never_chosen_by_itself() -> None:
    assert backends()["onnxruntime_tensorrt"].ONLY_ASKED
    assert not hasattr(backends()["onnxruntime"], "ONLY_ASKED")


def test_the_reason_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ERNIE_CACHE", str(tmp_path))
    assert main(["run", "ernie-4.5-nano", "2 + 2 =", "--max-tokens", "1", "-v", "--device", "cpu"]) == 0
    assert "using onnxruntime on cpu (it opens onnx; --device cpu)" in capsys.readouterr().err
    session, _, reason = open_session("ernie-4.5-nano", "auto", "auto", context=8)
    assert session.info.backend == "onnxruntime" and reason == f"it opens onnx; {session.info.why}" and session.info.why


def graph_with(*operators: str) -> ir.Model:
    """A chain of operators over float32 [2]."""
    value = first = ir.val("x", ir.DataType.FLOAT, [2])
    nodes = []
    for operator in operators:
        nodes.append(ir.node(operator, [value]))
        value = nodes[-1].outputs[0]
    value.name, value.type, value.shape = "y", ir.TensorType(ir.DataType.FLOAT), ir.Shape([2])
    return ir.Model(ir.Graph([first], [value], nodes=nodes, opset_imports={"": 20}), ir_version=10)


def test_what_runs_on_the_cpu_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU is told as it is: where it computes all, all nodes are on it."""
    ir.save(graph_with("Sin", "Cos", "Sin"), tmp_path / "m.onnx")
    record = placement.record
    monkeypatch.setattr(placement, "record", lambda options, where: record(options, where, always=True))
    session, where = create_session(tmp_path / "m.onnx", "cpu")
    found = placement.fallen(session)
    if found is None:
        pytest.skip("this onnxruntime does not tell who runs which node (1.25 does)")
    assert where == Place(why="--device cpu") and found.total == 3 and found.by_type == found.arithmetic == {"Sin": 2, "Cos": 1}
    assert str(found) == "3 of 3 nodes run on the CPU: 2 Sin, 1 Cos"
    assert placement.Fallen(9, {"Shape": 2}).arithmetic == {}


def test_a_session_that_was_not_asked_tells_nothing(tmp_path: Path) -> None:
    ir.save(graph_with("Sin"), tmp_path / "m.onnx")
    session, _ = create_session(tmp_path / "m.onnx", "cpu")
    assert placement.fallen(session) is None
    assert session.run(None, {"x": np.zeros(2, np.float32)})[0].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("says", "error"),
    [
        ("CUDA failure 2: out of memory ; GPU=0 ; hostname=x", ResourceError),
        ("Failed to allocate memory for requested buffer of size 4096", ResourceError),
        ("CUDA failure 209: no kernel image is available for execution on the device", MissingError),
        ("Non-zero status code returned while running MatMul node", InputError),
    ],
)
def test_failures_of_a_gpu_in_words(says: str, error: type[ErnieError]) -> None:
    assert type(translated(Path("m.onnx"), RuntimeError(says))) is error
