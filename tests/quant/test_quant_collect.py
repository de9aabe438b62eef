"""What flows through a graph reaches its statistic: every value, all tokens, in as many passes as memory wants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from ernie_cli import nano, route
from ernie_cli.errors import ErnieError, InputError, UsageError
from ernie_cli.model import Model
from ernie_cli.quant.calibrate.collect import collect
from ernie_cli.quant.calibrate.graph import Graph, complete

RNG = np.random.default_rng(0)


class Kept:
    """A statistic that keeps all."""

    def __init__(self, nbytes: int = 8) -> None:
        self.nbytes = nbytes
        self.arrays: list[np.ndarray] = []

    def add(self, value: np.ndarray) -> None:
        self.arrays.append(np.array(value))


class Counted(list[Any]):
    """Data that know how often they were gone through."""

    passes = 0

    def __iter__(self) -> Any:
        self.passes += 1
        return super().__iter__()


def save(folder: Path, nodes: list[Any], inputs: dict[str, Any], weights: dict[str, np.ndarray], outside: bool = False) -> Model:
    given = [helper.make_tensor_value_info(name, *described) for name, described in inputs.items()]
    made = [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    proto = helper.make_model(
        helper.make_graph(nodes, "g", given, made, constants), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )
    folder.mkdir(exist_ok=True)
    more = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0} if outside else {}
    onnx.save_model(proto, str(folder / "model.onnx"), **more)
    return Model.open(folder)


def cnn(folder: Path, outside: bool = False) -> Model:
    """Conv → BatchNormalization → Relu → pool → Gemm: what a runtime fuses."""
    names = [f"n{at}" for at in range(4)]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["conv"], "conv", pads=[1] * 4),
        helper.make_node("BatchNormalization", ["conv", *names], ["normed"], "norm"),
        helper.make_node("Relu", ["normed"], ["active"], "relu"),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "v"], ["y"], "head"),
    ]
    weights = {"w": RNG.normal(size=(8, 3, 3, 3)), "v": RNG.normal(size=(8, 4)), **{name: RNG.uniform(0.5, 2, size=8) for name in names}}
    constants = {name: array.astype(np.float32) for name, array in weights.items()}
    return save(folder, nodes, {"x": (TensorProto.FLOAT, ["N", 3, 8, 8])}, constants, outside)


PICTURES = [{"x": RNG.normal(size=(rows, 3, 8, 8)).astype(np.float32)} for rows in (1, 3, 2)]


def unfused(model: Model, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    proto = onnx.load(str(model.main_file()))
    for name in names:
        proto.graph.output.add().name = name
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(proto.SerializeToString(), options).run(names, feeds)


@pytest.mark.parametrize("outside", [False, True], ids=["weights inside", "weights in a file"])
def test_values_that_runtimes_fuse_arrive_as_they_are(tmp_path, outside):
    model, names = cnn(tmp_path / "cnn", outside), ["conv", "normed", "active", "flat", "x"]
    kept = {name: Kept() for name in names}
    before = sorted(tmp_path.rglob("*"))
    collect(model, kept, PICTURES)
    for at, feeds in enumerate(PICTURES):
        for name, wanted in zip(names, [*unfused(model, names[:4], feeds), feeds["x"]], strict=True):
            np.testing.assert_allclose(kept[name].arrays[at], wanted, rtol=1e-5, atol=1e-5)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("nbytes", "passes"), [(10, 1), (50, 2), (60, 4), (1000, 4)])
def test_statistics_beyond_memory_take_several_passes(tmp_path, nbytes, passes):
    kept = {name: Kept(nbytes) for name in ("conv", "normed", "active", "flat")}
    data = Counted(PICTURES)
    collect(cnn(tmp_path / "cnn"), kept, data, max_bytes=100)
    assert data.passes == passes
    assert [len(found.arrays) for found in kept.values()] == [3] * 4


def test_many_values_are_fetched_as_memory_allows(tmp_path, monkeypatch):
    """A chain of 100 values; free memory for a few of them at once."""
    from ernie_cli import host

    nodes = [helper.make_node("Relu", [f"v{at}" if at else "x"], [f"v{at + 1}"], f"n{at}") for at in range(100)]
    model = save(tmp_path / "chain", nodes, {"x": (TensorProto.FLOAT, ["N"])}, {})
    monkeypatch.setattr(host, "memory", lambda: host.Memory(1 << 40, 400_000, 1 << 40))
    kept = {f"v{at + 1}": Kept() for at in range(100)}
    data = Counted([{"x": np.full(1000, 2, np.float32)}] * 2)
    collect(model, kept, data)
    assert data.passes == 1 + 10  # one look at their sizes; then 10 of 8 kB, counted twice, in a fifth of 400 kB
    assert all(len(found.arrays) == 2 for found in kept.values())


def test_several_inputs_and_nothing_wanted(tmp_path):
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"], "embed"),
        helper.make_node("Cast", ["attention_mask"], ["mask"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"], "unsqueeze"),
        helper.make_node("Mul", ["embedded", "column"], ["masked"], "mask"),
        helper.make_node("MatMul", ["masked", "w"], ["y"], "out"),
    ]
    weights = {"table": RNG.normal(size=(9, 4)).astype(np.float32), "w": RNG.normal(size=(4, 2)).astype(np.float32), "last": np.array([-1])}
    shape = (TensorProto.INT64, ["B", "S"])
    model = save(tmp_path / "encoder", nodes, {"input_ids": shape, "attention_mask": shape}, weights)
    feeds = {"input_ids": np.array([[1, 2, 8]]), "attention_mask": np.array([[1, 1, 0]])}
    kept = {"masked": Kept()}
    collect(model, kept, [feeds])
    np.testing.assert_array_equal(kept["masked"].arrays[0][0], weights["table"][[1, 2, 8]] * [[1], [1], [0]])
    collect(model, {}, [feeds])


# --- decoders ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """decoder(kv_cache, dtype, every) → Model: nano's graph for the last token's logits, or for every token's."""
    made: dict[tuple[Any, ...], Model] = {}

    def make(kv_cache: str, dtype: str = "fp32", every: bool = False) -> Model:
        how = (kv_cache, dtype, every)
        if how not in made:
            out = tmp_path_factory.mktemp("onnx") / "model"
            options = route.Options(kv_cache=kv_cache, dtype=dtype, all_logits=every, verify=False)
            made[how] = route.convert(nano.path(), to="onnx", out=out, options=options)
        return made[how]

    return make


def inputs_of_products(model: Model) -> dict[str, str]:
    """Layer → the value that goes into it."""
    graph = ir.load(model.main_file()).graph
    return {str(node.name): str(node.inputs[0].name) for node in graph if node.op_type in ("MatMul", "Gemm")}


@pytest.mark.parametrize("kv_cache", ["static", "growing"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_decoders_last_block_is_measured_on_every_token(decoder, kv_cache, dtype):
    last, every = decoder(kv_cache, dtype), decoder(kv_cache, dtype, True)
    data = [{"input_ids": RNG.integers(0, 320, (rows, tokens))} for rows, tokens in ((1, 7), (2, 5), (1, 1))]
    layers = [inputs_of_products(model) for model in (last, every)]
    mine, whole = ({name: Kept() for name in found.values()} for found in layers)
    collect(last, mine, data)
    collect(every, whole, data)
    for layer in layers[0]:
        for one, other in zip(mine[layers[0][layer]].arrays, whole[layers[1][layer]].arrays, strict=True):
            assert one.size == other.size, layer
            np.testing.assert_allclose(one.reshape(-1), other.reshape(-1), rtol=1e-4, atol=1e-4)


def test_a_decoder_computes_what_the_unchanged_graph_does(decoder):
    """Of the last token, where the file itself computes no other."""
    model = decoder("static")
    ids = RNG.integers(0, 320, (1, 9))
    kept = {"logits": Kept(), "layers.6.input": Kept()}
    collect(model, kept, [{"input_ids": ids}])
    session = onnxruntime.InferenceSession(str(model.main_file()), providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], complete(session, {"input_ids": ids}))[0]
    np.testing.assert_allclose(kept["logits"].arrays[0][-1:], logits, rtol=1e-4, atol=1e-4)
    assert kept["layers.6.input"].arrays[0].shape == (1, 9, 128)


def test_what_lies_behind_the_last_wanted_value_is_not_computed(decoder):
    model = decoder("static")
    session = Graph(model).part(["layers.1.input"])._session
    assert [value.name for value in session.get_outputs()] == ["layers.1.input"]
    assert len(session.get_inputs()) == len(ir.load(model.main_file()).graph.inputs)


# --- what does not work -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"x": np.zeros((1, 4, 8, 8), np.float32)}, "x [1, 4, 8, 8]"),
        ({"x": np.zeros((1, 3, 8), np.float32)}, "x [1, 3, 8]"),
        ({"pixels": np.zeros((1, 3, 8, 8), np.float32)}, "cannot run it"),
    ],
)
def test_feeds_that_do_not_fit_are_told_in_one_line(tmp_path, feeds, message):
    with pytest.raises(UsageError) as err:
        collect(cnn(tmp_path / "cnn"), {"flat": Kept()}, [feeds])
    assert message in err.value.message and "\n" not in err.value.message


def test_unknown_values_and_broken_files_are_told(tmp_path):
    model = cnn(tmp_path / "cnn", outside=True)
    with pytest.raises(ErnieError, match="no value named nowhere"):
        collect(model, {"nowhere": Kept(), "conv": Kept()}, PICTURES)
    (tmp_path / "cnn" / "weights.bin").write_bytes(b"short")
    with pytest.raises(InputError):
        collect(model, {"conv": Kept()}, PICTURES)


def test_halves_and_bfloat16_arrive_as_floats(tmp_path):
    nodes = [helper.make_node("Mul", ["x", "x"], ["square"], "a"), helper.make_node("Cast", ["square"], ["y"], "b", to=TensorProto.FLOAT)]
    for kind, dtype in ((TensorProto.FLOAT16, np.float16), (TensorProto.BFLOAT16, ml_dtypes.bfloat16)):
        model = save(tmp_path / str(kind), nodes, {"x": (kind, ["N"])}, {})
        kept = {"square": Kept(), "x": Kept()}
        collect(model, kept, [{"x": np.array([1.5, -3], dtype)}])
        assert kept["square"].arrays[0].astype(np.float32).tolist() == [2.25, 9.0]
        assert kept["x"].arrays[0].astype(np.float32).tolist() == [1.5, -3.0]
