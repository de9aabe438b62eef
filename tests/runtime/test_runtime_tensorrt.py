"""Engines on an NVIDIA GPU, built there: the Session contract, parity with the graph, CUDA graphs, batches, graph models, what is kept.

Not verified on a machine without a GPU, where all of it is skipped: what is logic is tested in test_tensorrt_layout.py and its neighbours.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import test_contract as contract
from onnx import TensorProto, helper, numpy_helper
from small_decoder import VOCABULARY, write_checkpoint

from ernie_cli import console, named, nvml
from ernie_cli.app import main
from ernie_cli.engine import build as door
from ernie_cli.engine import verify
from ernie_cli.engine.options import Options
from ernie_cli.errors import MissingError, UnsupportedError, UsageError
from ernie_cli.model import Model
from ernie_cli.runtime import Session, onnxruntime, tensorrt
from ernie_cli.runtime.cuda import gpu
from ernie_cli.runtime.graphs import open_graph
from ernie_cli.runtime.tensorrt_decoder import EngineRows

BATCH, CONTEXT = contract.BATCH, contract.CONTEXT
#: Largest difference, as a share of the largest logit, between two ways of computing the same in 16 bits.
CLOSE = 2e-2

pytestmark = pytest.mark.gpu

Build = Callable[..., Model]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """`build(source, **options)`: an engine for this machine's GPU, or a skipped test where that cannot be."""
    if not nvml.read().gpus:
        pytest.skip("no GPU here")
    if importlib.util.find_spec("cuda") is None:
        pytest.skip("cuda-python is not installed")

    def made(source: Path, **options: Any) -> Model:
        try:
            return door.build(source, "auto", tmp_path_factory.mktemp("built") / "engine", Options(**{"effort": 0, **options}))
        except MissingError as err:
            pytest.skip(f"{err.message}: {err.hint}")
        except UnsupportedError as err:  # the library does not take this card
            pytest.xfail(f"this GPU's engines cannot be built here: {err.message}")

    return made


@pytest.fixture(scope="module")
def decoder(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The tiny decoder: rows and slots as the contract has them, prompts in pieces of 8."""
    source = write_checkpoint(tmp_path_factory.mktemp("decoder") / "hf")
    return build(source, precision="fp16", context=CONTEXT, batch=BATCH, chunk=8, verify=False)


# --- the contract -----------------------------------------------------------------------------------------------------


def near(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(found - expected).max() <= CLOSE * np.abs(expected).max()


@pytest.fixture(autouse=True)
def in_16_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "same", near)


globals().update({name: test for name, test in vars(contract).items() if name.startswith("test_") and "every_backend" not in name})


@pytest.fixture(scope="module", params=["engine"])
def opener(decoder: Model) -> contract.Open:
    return lambda **settings: tensorrt.open(decoder, **{"batch": BATCH, "context": CONTEXT, **settings})


@pytest.fixture(scope="module")
def kept(opener: contract.Open) -> Iterator[Session]:
    opened = opener()
    yield opened
    opened.close()


@pytest.fixture
def session(kept: Session) -> Session:
    for row in range(BATCH):
        kept.truncate(row, 0)
    return kept


# --- decoders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8-weight", "int8", "int4", "fp8"])
def test_the_engine_is_the_model_it_was_built_from(build: Build, precision: str) -> None:
    made = build(named.resolve(named.EMBEDDED), precision=precision, context=256, batch=2)
    check = made.manifest["checks"][-1]
    print(f"\n{precision}: {json.dumps(check)}")
    assert check["passed"] is True and check["against"].startswith("tensorrt (cuda:0")


def test_rows_at_positions_of_their_own_say_what_the_graph_says(decoder: Model) -> None:
    from ernie_cli.engine.origin import graph_of

    engine = tensorrt.open(decoder, batch=BATCH)
    with graph_of(decoder) as graph:
        cpu = onnxruntime.open(graph, "cpu", batch=BATCH, context=CONTEXT)
        rng = np.random.default_rng(0)
        for row, length in enumerate((3, 17, 9)):  # prompts longer than a piece, too
            text = rng.integers(0, VOCABULARY, (1, length))
            near(engine.step(text, [row]), cpu.step(text, [row]))
        for rows in ([0, 1, 2], [0, 2], [1], [0, 1, 2], [1, 2], [0, 1, 2]):
            tokens = rng.integers(0, VOCABULARY, (len(rows), 1))
            near(engine.step(tokens, rows), cpu.step(tokens, rows))
        for session in (engine, cpu):
            session.truncate(1, 5)
        tokens = rng.integers(0, VOCABULARY, (3, 4))
        near(engine.step(tokens), cpu.step(tokens))
        cpu.close()
    engine.close()


def rows_of(session: Session) -> EngineRows:
    rows = session._rows  # type: ignore[attr-defined]
    assert isinstance(rows, EngineRows)
    return rows


def test_the_decode_step_is_a_cuda_graph(decoder: Model, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "settings", console.Settings(verbosity=1))
    captured, plain = tensorrt.open(decoder, batch=BATCH), tensorrt.open(decoder, batch=BATCH)
    rows_of(plain)._tried = True  # never to be captured
    for token in range(12):
        ids = np.full((BATCH, 1), token)
        np.testing.assert_array_equal(captured.step(ids), plain.step(ids))
    assert not rows_of(plain).captured
    assert rows_of(captured).captured, capsys.readouterr().err
    captured.step(np.arange(10)[None], [1])  # a prompt in between uses the same scratch memory
    plain.step(np.arange(10)[None], [1])
    np.testing.assert_array_equal(captured.step(ids), plain.step(ids))
    captured.close()
    plain.close()


def test_fewer_rows_and_slots_than_it_was_built_for(decoder: Model) -> None:
    session = tensorrt.open(decoder, batch=1, context=10)
    assert (session.info.batch, session.info.context, session.info.backend) == (1, 10, "tensorrt")
    assert session.step(np.arange(10)[None]).shape == (1, VOCABULARY)
    with pytest.raises(UsageError, match="context of 10"):
        session.step(np.array([[1]]))
    session.close()


@pytest.mark.parametrize("settings", [{"batch": BATCH + 1}, {"context": CONTEXT + 1}])
def test_more_than_it_was_built_for(decoder: Model, settings: dict[str, int]) -> None:
    with pytest.raises(UsageError) as raised:
        tensorrt.open(decoder, **settings)  # type: ignore[arg-type]
    assert "build it again" in raised.value.hint


def test_closing_gives_memory_back(decoder: Model) -> None:
    tensorrt.open(decoder).close()  # libraries keep what they load the first time
    before, _ = gpu.memory()
    for _ in range(3):
        session = tensorrt.open(decoder, batch=BATCH)
        session.step(np.zeros((BATCH, 20), np.int64))
        session.close()
    assert gpu.memory()[0] >= before - (32 << 20)


def test_compiled_kernels_are_kept_beside_the_engine(decoder: Model) -> None:
    """TensorRT-RTX only: the other library compiles when it builds."""
    session = tensorrt.open(decoder)
    session.step(np.zeros((1, 3), np.int64))
    session.close()
    if decoder.manifest["engine"]["library"]["name"] != "tensorrt-rtx":
        pytest.skip("this library has no runtime cache")
    (file,) = decoder.path.glob("runtime-*.cache")
    file.write_bytes(file.read_bytes()[:-1])
    session = tensorrt.open(decoder)
    expected = session.step(np.zeros((1, 3), np.int64))
    session.close()
    whole = file.read_bytes()
    session = tensorrt.open(decoder)
    np.testing.assert_array_equal(session.step(np.zeros((1, 3), np.int64)), expected)
    session.close()
    assert file.read_bytes() == whole


def test_the_words_are_the_same(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    """`ernie run` on the embedded model, whose answers are sure enough for any rounding."""
    made = build(named.resolve(named.EMBEDDED), precision="fp16", context=256)
    capsys.readouterr()
    said: dict[str, Any] = {}
    for model, where in ((str(made.path), "auto"), (named.EMBEDDED, "cpu")):
        assert main(["run", model, "12 + 30 = ?", "--device", where, "--json"]) == 0
        said[where] = json.loads(capsys.readouterr().out)
    assert said["auto"]["text"] == said["cpu"]["text"]
    assert main(["build", "--verify", str(made.path)]) == 0
    assert "passed" in capsys.readouterr().out


# --- graph models -----------------------------------------------------------------------------------------------------


def net(folder: Path, *, places: bool = False) -> Path:
    """x [batch, 3, h, w] → convolution, mean → y [batch, 5]; places: and where they are positive, as many columns as there are."""
    weight = numpy_helper.from_array(np.random.default_rng(0).normal(size=(5, 3, 3, 3)).astype(np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], "conv"), helper.make_node("GlobalAveragePool", ["c"], ["p"], "mean")]
    nodes += [helper.make_node("Flatten", ["p"], ["y"], "flat")]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, "h", "w"])
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])]
    if places:
        nodes += [helper.make_node("Relu", ["y"], ["r"], "positive"), helper.make_node("NonZero", ["r"], ["where"], "where")]
        outputs += [helper.make_tensor_value_info("where", TensorProto.INT64, [2, "found"])]
    folder.mkdir()
    graph = helper.make_graph(nodes, "net", [x], outputs, [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "model.onnx")
    return folder


@pytest.fixture(scope="module")
def vision(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Model:
    source = net(tmp_path_factory.mktemp("vision") / "onnx")
    return build(source, shapes=("x:1x3x16x16,4x3x32x32,8x3x48x48",), verify=False)


@pytest.mark.parametrize("size", [(1, 3, 16, 16), (8, 3, 48, 48), (3, 3, 17, 40), (1, 3, 16, 16)])
def test_any_shape_it_was_built_for(vision: Model, size: tuple[int, ...]) -> None:
    x = np.random.default_rng(1).normal(size=size).astype(np.float32)
    session, cpu = tensorrt.open_graph(vision), open_graph(Model.open(vision.manifest["made_from"]["path"]), device="cpu")
    for _ in range(2):
        near(session.run({"x": x})["y"], cpu.run({"x": x})["y"])
    session.close()
    cpu.close()


def test_outputs_whose_size_only_the_run_tells(build: Build, tmp_path: Path) -> None:
    """TensorRT-RTX 1.7 does not build NonZero."""
    session = tensorrt.open_graph(build(net(tmp_path / "onnx", places=True), shapes=("x:1x3x16x16,4x3x16x16,8x3x16x16",), verify=False))
    for batch in (8, 1, 4):
        found = session.run({"x": np.random.default_rng(batch).normal(size=(batch, 3, 16, 16)).astype(np.float32)})
        np.testing.assert_array_equal(found["where"], np.nonzero(np.maximum(found["y"], 0)))
    session.close()


def test_other_shapes_are_refused_with_the_range(vision: Model) -> None:
    session = tensorrt.open_graph(vision)
    with pytest.raises(UsageError, match="1x3x16x16 to 8x3x48x48") as raised:
        session.run({"x": np.zeros((9, 3, 32, 32), np.float32)})
    assert "--shape x:1x3x16x16,4x3x32x32,9x3x48x48" in raised.value.hint
    session.close()


def test_float32_is_float32(vision: Model) -> None:
    """The gate of fp32: TF32 would not pass it."""
    record = verify.check(vision, Model.open(vision.manifest["made_from"]["path"]))
    assert record["passed"] and record["limits"]["precision"] == "fp32" and len(record["at_other_shapes"]) == 2


def test_on_the_command_line(vision: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "x.npz", x=np.ones((2, 3, 20, 20), np.float32))
    assert main(["run", str(vision.path), "--inputs", str(tmp_path / "x.npz"), "-o", str(tmp_path / "y.npz"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["backend"] == "tensorrt" and told["device"].startswith("cuda:0 ")
    assert np.load(tmp_path / "y.npz")["y"].shape == (2, 5)
