"""`--shape` as people type it, and what a decoder's context and batch become. Graphs are headers: nothing is built."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from ernie_cli import nano
from ernie_cli.engine.options import Options
from ernie_cli.engine.shape_option import parse
from ernie_cli.engine.shapes import CHUNK, Profile, best, decoder_shapes, shapes
from ernie_cli.errors import UnsupportedError, UsageError
from ernie_cli.model import Model, write_manifest

X = "x:1x3x32x32,2x3x32x32,4x3x32x32"
BERT = {"ids": ["batch", "sequence"], "mask": ["batch", "sequence"]}
DECODER = {"input_ids": ["batch", "sequence"], "positions": ["batch"], "cache__0__key": ["batch", 2, "slots", 64]}


@pytest.fixture
def graph(tmp_path: Path):
    """`graph(x=[…])` → a model with these inputs, whose nodes hand them on; with config=True, the nano's config.json beside it."""

    def make(config: bool = False, **inputs) -> Model:
        given = [helper.make_tensor_value_info(name.replace("__", "."), TensorProto.FLOAT, shape) for name, shape in inputs.items()]
        nodes = [helper.make_node("Identity", [value.name], [f"{value.name}.out"]) for value in given]
        made = [helper.make_tensor_value_info(f"{value.name}.out", TensorProto.FLOAT, None) for value in given]
        proto = helper.make_model(helper.make_graph(nodes, "g", given, made), opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
        onnx.save(proto, tmp_path / "model.onnx")
        if config:
            (tmp_path / "config.json").write_text((nano.path() / "config.json").read_text())
            return write_manifest(tmp_path, format="onnx", main="model.onnx")
        return Model.open(tmp_path / "model.onnx")

    return make


@pytest.mark.parametrize(
    ("text", "name", "ranges"),
    [
        ("x:1x3,2x3,4x3", "x", ((1, 3), (2, 3), (4, 3))),
        ("x:1x3,4x3", "x", ((1, 3), (4, 3), (4, 3))),
        ("x:4x3", "x", ((4, 3), (4, 3), (4, 3))),
        ("x:7", "x", ((7,), (7,), (7,))),
        ("scope/x:0:1x3", "scope/x:0", ((1, 3), (1, 3), (1, 3))),
    ],
)
def test_what_is_typed(text, name, ranges):
    assert parse(text) == (name, ranges)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x", "a name and shapes expected"),
        ("x:", "a name and shapes expected"),
        (":1x3", "a name and shapes expected"),
        ("x:1xN", "`1xN` is no shape"),
        ("x:1x-1", "`1x-1` is no shape"),
        ("x:0x3", "`0x3` is no shape"),
        ("x:1x3,", "`` is no shape"),
        ("x:1,2,3,4", "4 shapes, three are the most"),
        ("x:1x3,1", "differ in their number of axes"),
        ("x:2,1,3", "do not ascend"),
        ("x:99999999999999999999", "is no shape"),
    ],
)
def test_what_is_no_shape(text, said):
    with pytest.raises(UsageError, match=said) as caught:
        parse(text)
    assert "--shape name:" in caught.value.hint


def test_one_free_axis(graph):
    found = shapes(graph(x=["batch", 3, 32, 32]), Options(shapes=(X,)))
    assert found.fixed == {} and found.profiles == (Profile("default", {"x": parse(X)[1]}),)


def test_one_shape_alone_is_fixed(graph):
    found = shapes(graph(x=["batch", 3, 32, 32]), Options(shapes=("x:2x3x32x32",)))
    assert found.fixed == {"batch": 2} and found.profiles == ()


def test_axes_without_a_name_are_told_by_the_profile_alone(graph):
    found = shapes(graph(x=[None, 3]), Options(shapes=("x:2x3",)))
    assert found.fixed == {} and found.profiles[0].shapes == {"x": ((2, 3), (2, 3), (2, 3))}


def test_nothing_is_to_be_said_of_fixed_axes(graph):
    assert shapes(graph(x=[1, 3]), Options()).profiles == ()


def test_axes_of_one_name_are_one(graph):
    """What is told of one input holds for the others that have the same axes."""
    found = shapes(graph(**BERT), Options(shapes=("ids:1x1,1x64,4x128",)))
    assert found.profiles[0].shapes["mask"] == found.profiles[0].shapes["ids"] == ((1, 1), (1, 64), (4, 128))


def test_the_likeliest_shape_of_every_input(graph):
    model = graph(**BERT, x=[1, 3])
    assert best(model, Options(shapes=("ids:1x1,2x64,4x128",))) == ("ids:float:2x64", "mask:float:2x64", "x:float:1x3")
    assert best(model, Options(shapes=("ids:2x8",))) == ("ids:float:2x8", "mask:float:2x8", "x:float:1x3")
    assert best(model, Options()) == ()


@pytest.mark.parametrize(
    ("inputs", "given", "said", "hint"),
    [
        ({"x": ["batch", 3, 32, 32]}, (), "axes of `x`", "--shape x:1x3x32x32,4x3x32x32,8x3x32x32"),
        ({"x": ["n", 3, "h", "w"]}, (), "axes of `x`", "--shape x:1x3x224x224,4x3x224x224,8x3x224x224"),
        (BERT, (), "axes of `ids`, `mask`", "--shape ids:1x1,4x64,8x128 --shape mask:1x1,4x64,8x128"),
        ({"x": ["batch", 3], "y": ["rows", 3]}, ("x:1x3",), "axes of `y`", "--shape y:1x3,4x3,8x3"),
        ({"x": ["batch", 3]}, ("z:1x3",), "no such input", "its inputs are `x`"),
        ({"x": ["batch", 3]}, ("x:1x4",), "the model's `x` is batchx3", "--shape x:1x3,4x3,8x3"),
        ({"x": ["batch", 3]}, ("x:1x3x3",), "the model's `x` is batchx3", "--shape x:1x3,4x3,8x3"),
        ({"x": ["batch", 3]}, ("x:1x3", "x:2x3"), "tells `x` twice", "leave one"),
        (BERT, ("ids:1x1,4x8", "mask:1x1,2x8"), "`batch` other lengths in `mask` than in `ids`", "axes of one name are one"),
    ],
)
def test_what_does_not_fit(graph, inputs, given, said, hint):
    with pytest.raises(UsageError) as caught:
        shapes(graph(**inputs), Options(shapes=given))
    assert said in caught.value.message and hint in caught.value.hint


@pytest.mark.parametrize("options", [Options(context=128), Options(batch=4), Options(chunk=16)])
def test_a_decoders_options_for_another_model(graph, options):
    with pytest.raises(UsageError, match="is for ERNIE decoders") as caught:
        shapes(graph(x=["batch", 3]), options)
    assert "--shape x:1x3,4x3,8x3" in caught.value.hint


def test_a_decoder_has_a_profile_for_prompts_and_one_for_tokens(graph):
    found = shapes(graph(config=True, **DECODER), Options(context=256))
    assert found.fixed == {"slots": 256, "batch": 1}
    prefill, decode = found.profiles
    assert prefill == Profile("prefill", {"input_ids": ((1, 1), (1, 256), (1, 256))})
    assert decode == Profile("decode", {"input_ids": ((1, 1), (1, 1), (1, 1))})


def test_a_batch_of_a_decoder_may_be_smaller(graph):
    found = shapes(graph(**DECODER), Options(batch=4))
    assert found.fixed == {"slots": 1024}
    prefill = found.profiles[0].shapes
    assert prefill["input_ids"] == ((1, 1), (4, CHUNK), (4, CHUNK)) and prefill["positions"] == ((1,), (4,), (4,))
    assert prefill["cache.0.key"] == ((1, 2, 1024, 64), (4, 2, 1024, 64), (4, 2, 1024, 64))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options(context=2048), "--context 2048 is more than the model's 1024"),
        (Options(context=0), "--context 0 makes no sense"),
        (Options(batch=0), "--batch 0 makes no sense"),
        (Options(context=64, chunk=65), "the cache holds 64"),
        (Options(shapes=(X,)), "--shape is not for ERNIE decoders"),
    ],
)
def test_what_a_decoder_refuses(graph, options, said):
    with pytest.raises(UsageError, match=said):
        shapes(graph(config=True, **DECODER), options)


def test_a_cache_that_grows_is_refused_with_the_command(graph):
    with pytest.raises(UnsupportedError, match="its KV cache grows") as caught:
        shapes(graph(input_ids=["batch", "sequence"], past__0__key=["batch", 2, "past", 64]), Options())
    assert "--kv-cache static" in caught.value.hint


def test_a_cache_of_a_fixed_length_is_the_context(graph):
    fixed = graph(input_ids=["batch", "sequence"], positions=["batch"], cache__0__key=["batch", 2, 96, 64])
    assert shapes(fixed, Options()).profiles[0].shapes["input_ids"][2] == (1, 96)
    with pytest.raises(UsageError, match="a cache of 96 slots"):
        shapes(fixed, Options(context=128))


def test_a_checkpoint_has_the_shapes_of_the_graph_it_becomes(tmp_path):
    found = decoder_shapes(Model.open(nano.path()), Options(batch=2))
    assert found.fixed == {"slots": 1024}
    assert len(found.profiles[0].shapes) == 2 + 2 * 6
    assert found.profiles[1].shapes["cache.5.value"] == ((1, 2, 1024, 64), (2, 2, 1024, 64), (2, 2, 1024, 64))
