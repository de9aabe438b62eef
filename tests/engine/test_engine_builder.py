"""The process that builds: what it leaves, what it says when it cannot, and how its death is told. With TensorRT-RTX, without a GPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from ernie_cli import nano, nvml, route
from ernie_cli.checkpoint.config import read_config
from ernie_cli.engine import builder
from ernie_cli.engine.child import Stillness
from ernie_cli.engine.request import Request
from ernie_cli.engine.shapes import Profile
from ernie_cli.errors import InputError, ResourceError, UnsupportedError, UsageError

pytest.importorskip("tensorrt_rtx_bindings", reason="needs the TensorRT-RTX wheels: pip install 'ernie-cli[rtx]'")

WITHOUT_GPU = pytest.mark.skipif(bool(nvml.read().gpus), reason="these build where there is a GPU")
FLOAT = onnx.TensorProto.FLOAT
ROWS = (Profile("default", {"x": ((1, 32), (4, 32), (8, 32))}),)


def write(file: Path, *nodes: onnx.NodeProto, rows: str | int = "rows", width: int = 32, outputs: tuple[str, ...] = ("y",)) -> Path:
    """Input x, float32 [rows, width], a square weight w."""
    weight = numpy_helper.from_array(np.random.default_rng(0).normal(size=(width, width)).astype(np.float32), "w")
    inputs = [helper.make_tensor_value_info("x", FLOAT, [rows, width])]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("strange", 1)]), file)
    return file


def mlp(file: Path, **more) -> Path:
    product = helper.make_node("MatMul", ["x", "w"], ["h"], name="product")
    return write(file, product, helper.make_node("Relu", ["h"], ["y"], name="relu"), **more)


def request(graph: Path, **more) -> Request:
    return Request(**{"graph": str(graph), "library": "tensorrt-rtx", "capabilities": ("8.9",), "effort": 0, **more})


def test_what_a_build_leaves(tmp_path, capfd):
    built = builder.build(request(mlp(tmp_path / "m.onnx"), profiles=ROWS), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["build.log", "m.onnx", "model.plan"]
    assert built.plan.stat().st_size > 10_000
    log = built.log.read_text()
    assert "VERBOSE: Parsing node: product [MatMul]" in log and "LayerType: " in log
    assert built.parse_seconds > 0 and built.build_seconds > 0 and 50e6 < built.peak_host_bytes < 4e9
    assert built.library["name"] == "tensorrt-rtx" and built.library["version"].startswith("1.")
    assert built.flags == ()
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("fixed", [{"rows": 4}, {}], ids=["by name", "in the file"])
def test_fixed_lengths_need_no_profile(fixed, tmp_path):
    graph = mlp(tmp_path / "m.onnx", rows="rows" if fixed else 4)
    assert builder.build(request(graph, fixed=fixed), tmp_path).plan.is_file()


STRANGE = (
    helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
    helper.make_node("Frobnicate", ["h"], ["i"], name="first", domain="strange"),
    helper.make_node("Relu", ["i"], ["j"], name="relu"),
    helper.make_node("Frobnicate", ["j"], ["k"], name="second", domain="strange"),
    helper.make_node("Twiddle", ["k"], ["y"], domain="strange"),
)


def test_every_refusal_of_the_parser_at_once_with_its_node(tmp_path):
    graph = write(tmp_path / "m.onnx", *STRANGE)
    with pytest.raises(UnsupportedError) as caught:
        builder.build(request(graph, profiles=ROWS), tmp_path)
    for name in ("Frobnicate `first`", "Frobnicate `second`", "Twiddle `y`"):
        assert name in caught.value.message
    assert "product" not in caught.value.message and "relu" not in caught.value.message
    assert not (tmp_path / "model.plan").exists()


def test_problems_without_a_build(tmp_path):
    found = builder.problems(write(tmp_path / "m.onnx", *STRANGE))
    who = ("Frobnicate `first`", "Frobnicate `second`", "Twiddle `y`")
    assert found == [f"{name}: TensorRT knows no such operator" for name in who]
    assert builder.problems(mlp(tmp_path / "good.onnx")) == []


def test_nodes_that_are_refused_for_how_they_are_used_are_all_listed_too(tmp_path):
    """A growing cache: attention with three outputs, which TensorRT knows, but not so. Its parser stops at the first."""
    graph = route.convert(nano.path(), to="onnx", out=tmp_path / "m", options=route.Options(kv_cache="growing", verify=False)).main_file()
    found = builder.problems(graph, {"batch": 1})
    layers = nano_layers()
    assert found == [
        f"Attention `model.layers.{layer}.self_attn.attention`: TensorRT only supports Attention nodes with one output."
        for layer in range(layers)
    ]


def nano_layers() -> int:
    return read_config(nano.path()).num_layers


def test_a_path_that_is_no_text_with_weights_beside_it(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd \xff"))
    folder.mkdir()
    plain = onnx.load(mlp(tmp_path / "m.onnx", rows=4))
    onnx.save(plain, folder / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    assert (folder / "m.data").is_file()
    built = builder.build(request(folder / "m.onnx"), folder)
    assert built.plan.parent == folder and built.plan.is_file()


def test_a_file_that_is_no_graph(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"\x08\x07nonsense")
    with pytest.raises(InputError, match=r"m\.onnx"):
        builder.build(request(tmp_path / "m.onnx"), tmp_path)


def test_no_room_for_the_plan_is_the_systems_error(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        builder.build(request(mlp(tmp_path / "m.onnx"), profiles=ROWS), tmp_path / "absent")


LIMITED = """
import resource, sys
from pathlib import Path
from ernie_cli.engine import builder, child
from ernie_cli.engine.request import Request
from ernie_cli.errors import ErnieError
child._LOOKS = 8  # it often waits for itself for ever: four seconds are proof enough here
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), int(sys.argv[2])))
try:
    builder.build(Request(sys.argv[1], "tensorrt-rtx", ("8.9",), effort=0), Path(sys.argv[1]).parent)
except ErnieError as err:
    print(err.message)
    raise SystemExit(err.exit_code)
"""


def test_memory_that_runs_out(tmp_path):
    """520 MB are what the library takes for itself, and not all of what it needs."""
    graph = mlp(tmp_path / "m.onnx", rows=4, width=2048)
    done = subprocess.run([sys.executable, "-c", LIMITED, graph, str(520 << 20)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 7 and "memory" in done.stdout


@pytest.mark.parametrize(("code", "still"), [("import time; time.sleep(60)", True), ("while True: pass", False)])
def test_a_process_that_waits_for_itself_is_seen(code, still):
    process = subprocess.Popen([sys.executable, "-c", code])
    stillness = Stillness(process.pid)
    time.sleep(0.3)
    looks = [time.sleep(0.05) or stillness.looks() for _ in range(10)]
    process.kill()
    assert (max(looks) > 5) is still
    process.wait()
    assert stillness.looks() == 0  # gone


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [(signal.SIGKILL, ResourceError, "the system ended"), (signal.SIGSEGV, UnsupportedError, r"crashed .*\(SIGSEGV\)")],
)
def test_how_the_process_died_is_told(how, error, said, tmp_path):
    """SIGKILL is what the kernel does when memory runs out."""
    graph = mlp(tmp_path / "m.onnx", rows=4)
    threading.Thread(target=strike, args=(str(tmp_path), how), daemon=True).start()
    with pytest.raises(error, match=said):
        builder.build(request(graph), tmp_path)


def strike(folder: str, how: signal.Signals) -> None:
    while not (found := workers(folder)):
        time.sleep(0.01)
    os.kill(found[0], how)


def workers(folder: str) -> list[int]:
    """Processes that build into `folder` or below: it is among their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if b"engine.worker" in words and folder.encode() in words:
            found.append(int(entry.name))
    return found


# --- what library.py says of TensorRT-RTX 1.7, tried ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"version_compatible": True}, "libnvinfer_lean"),
        pytest.param({"strip_weights": True}, "CUDA_SUCCESS", marks=WITHOUT_GPU),
    ],
)
def test_flags_that_this_library_does_not_take(options, said, tmp_path):
    with pytest.raises(UnsupportedError, match=said):
        builder.build(request(mlp(tmp_path / "m.onnx", rows=4), **options), tmp_path)


def test_flags_that_it_takes(tmp_path):
    """The timing cache it takes, too, and does nothing with it."""
    more = {"weight_streaming": True, "workspace": 1 << 30, "effort": 1, "timing_cache": str(tmp_path / "t.cache")}
    built = builder.build(request(mlp(tmp_path / "m.onnx", rows=4), **more), tmp_path)
    assert built.flags == ("WEIGHT_STREAMING",) and built.plan.is_file()
    assert (tmp_path / "t.cache").stat().st_size < 1000


def test_too_little_workspace_is_said_as_such(tmp_path):
    """Of two products the first must be kept while the second is computed."""
    nodes = (helper.make_node("MatMul", [read, "w"], [made]) for read, made in (("x", "h"), ("h", "y")))
    with pytest.raises(UsageError, match="--workspace: 1 B are too little"):
        builder.build(request(write(tmp_path / "m.onnx", *nodes, rows=512, width=512), workspace=1), tmp_path)
