"""Which precision an engine gets, what is refused in words, and the graphs that are made for it, each compared with its source."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ernie_cli import nano, route
from ernie_cli.engine import precision
from ernie_cli.engine.options import Options
from ernie_cli.errors import UnsupportedError, UsageError
from ernie_cli.model import Model, write_manifest
from ernie_cli.onnxgraph.load import load

sys.path.append(str(Path(__file__).parents[1] / "quant"))
import vision

Sources = Callable[[str], Model]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """`sources(name)` → a float32 ONNX folder, made once."""
    folder = tmp_path_factory.mktemp("sources")

    def make(name: str) -> Model:
        out = folder / name
        if out.exists():
            return Model.open(out)
        if name == "nano":
            return route.convert(nano.path(), to="onnx", out=out, options=route.Options(kv_cache="static", verify=False))
        out.mkdir()
        if name == "bert":
            bert(out / "model.onnx")
        else:
            import torch

            torch.manual_seed(0)
            net = vision.NETS[name.removesuffix("-unfolded")]
            module = net.build().eval()
            vision._export(module, torch.zeros(2, 3, net.side, net.side), out / "model.onnx", fold=not name.endswith("unfolded"))
        return Model.open(out)

    return make


def bert(file: Path) -> None:
    """transformers' own, three layers of it, with a mask made of float32's least number."""
    import torch
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128, "max_position_embeddings": 64}
    config = transformers.BertConfig(vocab_size=200, attn_implementation="eager", **sizes)

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = transformers.BertModel(config)

        def forward(self, input_ids, attention_mask):
            return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    tokens = torch.ones(2, 7, dtype=torch.long)
    axes = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask", "hidden")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Plain().eval(),
            (tokens, tokens),
            str(file),
            dynamo=False,
            opset_version=17,
            input_names=["input_ids", "attention_mask"],
            output_names=["hidden"],
            dynamic_axes=axes,
        )


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, "fp16") for name in ("resnet", "mobilenet", "mobilenet-unfolded", "vit", "bert", "nano")),
        *((name, "bf16") for name in ("mobilenet", "nano")),
    ],
)
def test_the_same_model_in_16_bits(name, dtype, sources, tmp_path):
    source = sources(name)
    made = precision.prepare(source, Options(precision=dtype), tmp_path)
    assert made.manifest["checks"][0]["passed"] and made.precision == dtype
    model, before = load(made), load(source)
    wide = {"FLOAT16": "FLOAT", "BFLOAT16": "FLOAT"}
    for new, old in zip((*model.graph.inputs, *model.graph.outputs), (*before.graph.inputs, *before.graph.outputs), strict=True):
        cache = name == "nano" and old.name.startswith("cache")
        assert (new.name, cache or new.dtype == old.dtype) == (old.name, True)
        assert wide.get(new.dtype.name, new.dtype.name) == old.dtype.name
    products = [node for node in model.graph if node.op_type in ("Conv", "MatMul", "Gemm")]
    assert {value.dtype.name for node in products for value in node.inputs if value is not None} == {
        {"fp16": "FLOAT16", "bf16": "BFLOAT16"}[dtype]
    }
    assert (tmp_path / "graph" / "tokenizer.json").is_file() == (name == "nano")


def test_nothing_is_made_where_nothing_changes(sources, tmp_path):
    source = sources("resnet")
    assert precision.prepare(source, Options(), tmp_path) == source
    assert precision.prepare(source, Options(precision="fp32"), tmp_path) == source
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_becomes_a_graph_with_a_static_cache(tmp_path):
    made = precision.prepare(Model.open(nano.path()), Options(verify=False), tmp_path)
    assert (made.precision, made.manifest["kv_cache"]) == ("fp16", "static")


def test_what_a_scheme_leaves_is_16_bits(sources, tmp_path):
    """A checkpoint and a float32 graph: weights become codes, the rest float16."""
    for source in (Model.open(nano.path()), sources("vit")):
        folder = tmp_path / source.format
        folder.mkdir()
        made = precision.prepare(source, Options(precision="int8-weight", verify=False), folder)
        assert made.precision == "int8-weight" and precision.own(made) == ("int8-weight", "fp16")


def test_a_scheme_that_calibrates_needs_data(sources, tmp_path):
    with pytest.raises(UsageError, match="int8 needs data"):
        precision.prepare(sources("resnet"), Options(precision="int8", verify=False), tmp_path)


def test_activations_that_leave_the_type_stay_wide(tmp_path):
    """Weights that float16 holds, products that it does not, and numbers that it holds again."""
    weights = {"w": np.full((8, 8), 3e4), "small": np.array(1e-4), "v": np.eye(8)}
    constants = [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in weights.items()]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "beyond"),
        helper.make_node("Mul", ["h", "small"], ["s"], "back"),
        helper.make_node("MatMul", ["s", "v"], ["y"], "within"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 8]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), tmp_path / "model.onnx")
    (tmp_path / "out").mkdir()
    made = precision.prepare(Model.open(tmp_path / "model.onnx"), Options(precision="fp16"), tmp_path / "out")
    assert made.manifest["kept_fp32"] == {"numbers beyond the type's end": 2}
    operators = [node.op_type for node in load(made).graph]
    assert operators == ["MatMul", "Mul", "Cast", "MatMul", "Cast"]


@pytest.fixture
def papers(tmp_path: Path):
    """`papers(precision=…)` → an ONNX folder whose papers say so."""

    def make(**said) -> Model:
        tensor = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
        graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [tensor])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), tmp_path / "model.onnx")
        return write_manifest(tmp_path, format="onnx", main="model.onnx", **said)

    return make


@pytest.mark.parametrize(
    ("has", "asked", "kind", "floats"),
    [
        ("fp32", None, "fp32", "fp32"),
        ("fp32", "fp16", "fp16", "fp16"),
        ("fp32", "int8", "int8", "fp16"),
        ("fp16", None, "fp16", "fp16"),
        ("bf16", None, "bf16", "bf16"),
        ("bf16", "bf16", "bf16", "bf16"),
        ("bf16", "int4", "int4", "bf16"),
        ("", "fp16", "fp16", "fp16"),
    ],
)
def test_what_a_graph_becomes(has, asked, kind, floats, papers):
    source = papers(precision=has)
    assert precision.wanted(source, Options(precision=asked)) == kind
    assert precision.floats(source, Options(precision=asked)) == floats


@pytest.mark.parametrize(
    ("has", "asked", "said", "hint"),
    [
        ("fp16", "fp32", "computes in fp16: it is not made fp32", "leave --precision out"),
        ("fp16", "bf16", "computes in fp16: it is not made bf16", "convert or export the original again"),
        ("int8", "fp16", "is quantised already (int8)", "for fp16 build what it was made from: there"),
        ("int4", "int8", "is quantised already (int4)", "leave --precision out to build it in int4"),
    ],
)
def test_what_is_not_changed(has, asked, said, hint, papers):
    source = papers(precision=has, made_from={"path": "there"})
    with pytest.raises(UnsupportedError) as caught:
        precision.wanted(source, Options(precision=asked))
    assert said in caught.value.message and hint in caught.value.hint


@pytest.mark.parametrize(("word", "hint"), [("fp61", "--precision fp16"), ("int8-weights", "--precision int8-weight"), ("x", "there are")])
def test_what_is_no_precision(word, hint, papers):
    with pytest.raises(UsageError, match=f"no precision named `{word}`") as caught:
        precision.wanted(papers(), Options(precision=word))
    assert hint in caught.value.hint


def test_a_graph_that_others_quantised_has_a_name_too(tmp_path):
    """Without papers: what its codes are."""
    codes, scale = numpy_helper.from_array(np.ones((4, 4), np.int8), "codes"), numpy_helper.from_array(np.float32(0.1), "scale")
    nodes = [helper.make_node("DequantizeLinear", ["codes", "scale"], ["w"]), helper.make_node("MatMul", ["x", "w"], ["y"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [codes, scale])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10), tmp_path / "model.onnx")
    source = Model.open(tmp_path / "model.onnx")
    assert precision.wanted(source, Options()) == "int8-weight"
    with pytest.raises(UnsupportedError, match="quantised already"):
        precision.wanted(source, Options(precision="fp16"))


@pytest.mark.parametrize("asked", [None, "fp32"])
def test_a_decoder_in_float32_is_refused_by_one_library(asked, sources):
    with pytest.raises(UnsupportedError, match="TensorRT-RTX does not build attention over prompts in fp32") as caught:
        precision.wanted(sources("nano"), Options(precision=asked))
    assert caught.value.hint == "--precision fp16"
    assert precision.wanted(sources("nano"), Options(precision=asked, library="tensorrt")) == "fp32"
    with contextlib.suppress(UnsupportedError):
        precision.wanted(Model.open(nano.path()), Options(precision="fp32"))
        raise AssertionError("a checkpoint in fp32 must be refused, too")
