"""The account of a build is whole: every node of the graph is in a layer or gone for a reason, profile by profile, and nothing is made up.

Real builds with TensorRT-RTX for compute capability 8.9, which take no GPU: nano as it is and quantised, two vision models, and one small
graph with all that is odd. What the figures are compared with is read from graph and log by other means than the code's.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from rich.console import Console

from ernie_cli import nano, route
from ernie_cli.engine import builder, gone, layer_table, layers
from ernie_cli.engine.request import Request
from ernie_cli.engine.shapes import Profile
from ernie_cli.quant.options import Options
from ernie_cli.quant.quantize import quantize

pytest.importorskip(
    "tensorrt_rtx_bindings", reason="needs the TensorRT-RTX wheels: pip install 'ernie-cli[rtx]' (Linux and Windows on x86-64)"
)

sys.path.append(str(Path(__file__).parents[1] / "quant"))
import vision

CACHE = {"batch": 1, "slots": 128}


def steps(*lengths):
    return tuple(Profile(f"up to {most}", {"input_ids": ((1, 1), (1, most), (1, most))}) for most in lengths)


#: Model → axes that are fixed, profiles, and the reasons for which nodes of it may be gone.
MODELS = {
    "nano": (CACHE, steps(1, 16), {gone.SHAPE, gone.LAYOUT}),
    "int8": (CACHE, steps(1), {gone.SHAPE, gone.LAYOUT, gone.TWIN, gone.ABSORBED}),
    "int4": (CACHE, steps(1), {gone.SHAPE, gone.LAYOUT, gone.NARROW}),
    "resnet": ({"batch": 2}, (), {gone.FOLDED, gone.LAYOUT}),
    "vit": ({"batch": 2}, (), {gone.FOLDED, gone.SHAPE, gone.LAYOUT, gone.NO_CAST}),
}


def build(file: Path, folder: Path, fixed: dict[str, int] | None = None, profiles: tuple[Profile, ...] = ()) -> Path:
    """The log of a build, and no more effort than that takes."""
    folder.mkdir()
    return builder.build(Request(str(file), "tensorrt-rtx", ("8.9",), fixed=fixed or {}, profiles=profiles, effort=0), folder).log


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`sources(name)` → an ONNX folder, made once."""
    folder = tmp_path_factory.mktemp("sources")

    def make(name: str) -> Path:
        out = folder / name
        if out.exists():
            return out
        if name in vision.NETS:
            import torch

            torch.manual_seed(0)
            out.mkdir()
            net = vision.NETS[name]
            vision._export(net.build().eval(), torch.zeros(2, 3, net.side, net.side), out / "model.onnx", fold=True)
        elif name == "nano":
            route.convert(nano.path(), to="onnx", out=out, options=route.Options(dtype="fp16", kv_cache="static", verify=False))
        else:
            quantize(make("nano"), name, out, Options(measure=False, samples=2, observer="minmax", smooth="off"))
        return out

    return make


@pytest.fixture(scope="module")
def built(sources: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """`built(name)` → (ONNX file, log), made once."""
    folder = tmp_path_factory.mktemp("engines")

    def make(name: str) -> tuple[Path, Path]:
        file, fixed, profiles = sources(name) / "model.onnx", *MODELS[name][:2]
        log = folder / name / "build.log"
        return file, log if log.exists() else build(file, folder / name, fixed, profiles)

    return make


def in_the_log(log: Path) -> list[tuple[str, ...]]:
    """Metadata of every layer, in the log's order, read by other means than log.py's."""
    lines = [line for line in log.read_bytes().split(b"\n") if line.startswith(b"Name: ")]
    return [tuple(re.findall(r"\[ONNX Layer: ([^\x1f]*)\]", line.decode().split(", Metadata: ")[1])) for line in lines]


@pytest.mark.parametrize("name", MODELS)
def test_the_account_is_whole(name, built):
    file, log = built(name)
    nodes = [node.name or f"node_of_{node.output[0]}" for node in onnx.load(file, load_external_data=False).graph.node]
    facts = layers.read(log, file)
    assert list(facts.nodes) == nodes and len(set(nodes)) == len(nodes)
    assert facts.strangers == []
    assert [layer.nodes for layer in facts.layers] == in_the_log(log)
    assert {why for fate in facts.nodes.values() for why in fate.why if why} <= MODELS[name][2]
    for key, fate in facts.nodes.items():
        for profile, (places, why) in enumerate(zip(fate.layers, fate.why, strict=True)):
            assert bool(places) is not bool(why)
            assert places == tuple(place for place, layer in enumerate(facts.layers) if layer.profile == profile and key in layer.nodes)


@pytest.mark.parametrize("name", MODELS)
def test_what_ernie_json_holds_is_the_same_account(name, built):
    """By set arithmetic on the JSON alone: in a layer, or removed, and never both."""
    file, log = built(name)
    facts = layers.read(log, file)
    known = json.loads(text := json.dumps(facts.as_dict(), indent=2))
    nodes = {node.name or f"node_of_{node.output[0]}" for node in onnx.load(file, load_external_data=False).graph.node}
    assert known["nodes"] == len(nodes) and "unknown_names" not in known
    assert len(known["profiles"]) == max(1, len(MODELS[name][1]))
    for profile in known["profiles"]:
        fused = {key for layer in profile["layers"] for key in layer.get("nodes", ())}
        removed = [key for keys in profile["removed"].values() for key in keys]
        assert fused | set(removed) == nodes
        assert not fused & set(removed) and len(removed) == len(set(removed))
    assert sum(len(profile["layers"]) for profile in known["profiles"]) == len(facts.layers)
    assert len(text) < 400 * len(nodes)  # so that one of the 0.3B's 625 nodes and two profiles stays far below 1 MB


def test_precision_and_memory(built):
    facts = {name: layers.read(log, file) for name in ("nano", "int8", "int4") for file, log in [built(name)]}
    gemms = {name: {(layer.precision, layer.reads) for layer in found.layers if layer.type == "gemm"} for name, found in facts.items()}
    assert gemms["nano"] == {("fp16", "")}
    assert gemms["int8"] == {("fp16", "int8")}
    assert sum(layer.reads == "int4" for layer in facts["int4"].layers) > 20
    assert [len(found.activation_bytes) for found in facts.values()] == [2, 1, 1]
    weights = {name: found.weight_bytes for name, found in facts.items()}
    graph = onnx.load(built("nano")[0], load_external_data=False).graph
    stored = sum(int(np.prod(each.dims)) * 2 for each in graph.initializer if len(each.dims) == 2)
    assert stored < weights["nano"] < 2 * stored  # some lie there twice: each profile has them as it likes them
    assert weights["int4"] < weights["int8"] < weights["nano"]
    assert all(100 << 20 < found.peak_host_bytes < 4 << 30 for found in facts.values())


def test_inputs_and_outputs(built):
    file, log = built("nano")
    graph = onnx.load(file, load_external_data=False).graph
    found = layers.read(log, file).io
    assert [each.name for each in found if each.mode == "input"] == [value.name for value in graph.input]
    assert [each.name for each in found if each.mode == "output"] == [value.name for value in graph.output]
    assert {each.name: each.ranges for each in found if each.ranges} == {"input_ids": (((1, 1),) * 3, ((1, 1), (1, 16), (1, 16)))}


def odd() -> onnx.ModelProto:
    """No names, the same name twice, names that look like the log's own words, dead ends, twins, If, Loop, functions in functions."""
    node, value, floats = helper.make_node, helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    whole, yes_no, opsets = onnx.TensorProto.INT64, onnx.TensorProto.BOOL, [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    steps = [node("Relu", ["b"], ["t1"], "then"), node("MatMul", ["t1", "w"], ["t2"])]
    then = helper.make_graph(steps, "t", [], [value("t2", floats, None)])
    other = helper.make_graph([node("Exp", ["b"], ["e"], "else")], "e", [], [value("e", floats, None)])
    ins = [value("i", whole, []), value("go", yes_no, []), value("v", floats, [2, 16])]
    outs = [value("on", yes_no, []), value("v2", floats, [2, 16])]
    steps = [node("Identity", ["go"], ["on"], "on"), node("MatMul", ["v", "w"], ["v1"], "step"), node("Tanh", ["v1"], ["v2"], "tanh")]
    body = helper.make_graph(steps, "body", ins, outs)
    steps = [node("Sigmoid", ["a"], ["b"], "gate"), node("Mul", ["a", "b"], ["o"])]
    inner, relu = (helper.make_function("local", name, ["a"], ["o"], steps, opsets) for name in ("Inner", "Relu"))
    steps = [node("Inner", ["a"], ["b"], "inner", domain="local"), node("Tanh", ["b"], ["o"], "tanh")]
    outer = helper.make_function("local", "Outer", ["a"], ["o"], steps, opsets)
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Relu", ["a"], ["b"], "act"),
        node("ReduceSum", ["x"], ["sum"], "sum", keepdims=0),
        node("Greater", ["sum", "zero"], ["yes"], "act"),
        node("If", ["yes"], ["c"], "if", then_branch=then, else_branch=other),
        node("Loop", ["trips", "true", "c"], ["d"], "loop", body=body),
        node("Outer", ["d"], ["f"], "call", domain="local"),
        node("Outer", ["f"], ["g"], domain="local"),
        node("Constant", [], ["two"], "two", value=numpy_helper.from_array(np.float32(2))),
        node("Mul", ["g", "two"], ["h"], "a, Metadata: ][ [Cast]"),
        node("Sigmoid", ["x"], ["s1"], "one"),
        node("Sigmoid", ["x"], ["s2"], "other"),
        node("Add", ["s1", "s2"], ["s"], "both"),
        node("Exp", ["x"], ["unread"], "dead"),
        node("Cast", ["h"], ["h1"], "cast", to=floats),
        node("Softmax", ["h1"], ["k"], "two\nlines"),
        node("Relu", ["k"], ["l"], "no relu", domain="local"),
        node("Add", ["l", "s"], ["y"], "end"),
    ]
    weight = numpy_helper.from_array(np.random.default_rng(0).standard_normal((16, 16)).astype(np.float32), "w")
    numbers = {"zero": np.float32(0), "trips": np.int64(3), "true": np.bool_(True)}
    scalars = [numpy_helper.from_array(np.asarray(number), name) for name, number in numbers.items()]
    graph = helper.make_graph(nodes, "g", [value("x", floats, [2, 16])], [value("y", floats, [2, 16])], [weight, *scalars])
    return helper.make_model(graph, functions=[inner, relu, outer], opset_imports=opsets, ir_version=10)


_IN_CALLS = [
    f"{name} | {call} (local.Outer)"
    for call in ("call", "node_of_g")
    for name in ("gate | inner (local.Inner)", "node_of_o | inner (local.Inner)", "tanh#2")
]
_IN_BRANCHES = ["then | t (then_branch) | if (If)", "node_of_t2 | t (then_branch) | if (If)", "else | e (else_branch) | if (If)"]
FUSED = {
    *("node_of_a", "act", "sum", "if", "step", "tanh", "a, Metadata: ][ [Cast]", "other", "both", "two\\nlines", "end"),
    *("gate#2 | no relu (local.Relu)", "node_of_o#2 | no relu (local.Relu)"),
    *_IN_CALLS,
    *_IN_BRANCHES,
}
GONE = {
    "act#2": gone.ABSORBED,  # Greater
    "loop": gone.HOLDS,
    "on | body (body) | loop (Loop)": gone.LAYOUT,
    **dict.fromkeys(["call", "node_of_g", "inner | call (local.Outer)", "inner | node_of_g (local.Outer)", "no relu"], gone.HOLDS),
    "two": gone.FOLDED,
    "one": gone.TWIN,
    "dead": gone.DEAD,
    "cast": gone.NO_CAST,
}


def test_a_graph_with_all_that_is_odd(tmp_path):
    onnx.save(odd(), tmp_path / "model.onnx")
    log = build(tmp_path / "model.onnx", tmp_path / "engine")
    facts = layers.read(log, tmp_path / "model.onnx")
    fused = {name for layer in facts.layers for name in layer.nodes}
    assert facts.strangers == [] and fused == {key for key, fate in facts.nodes.items() if not fate.removed} == FUSED
    assert {key: fate.why[0] for key, fate in facts.nodes.items() if fate.removed} == GONE


def test_the_table(built):
    file, log = built("nano")
    facts = layers.read(log, file)
    screen = Console(width=200, record=True, file=io.StringIO())
    screen.print(layer_table.table(facts.as_dict(), ["decode"]))
    shown = screen.export_text().splitlines()
    for profile, title in enumerate(("decode", "profile 1")):
        count = sum(layer.profile == profile for layer in facts.layers)
        gone_from = facts.removed(profile)
        left = len(facts.nodes) - sum(map(len, gone_from.values()))
        assert any(line.startswith(f"{title}: {left} of {len(facts.nodes)} nodes in {count} layers (") for line in shown)
        at = shown.index(f"{title}: nodes without a layer")
        for reason, keys in gone_from.items():
            assert any(line.split(reason)[-1].split()[0] == str(len(keys)) for line in shown[at:] if reason in line)
    assert any(re.match(r" +_gemv_mha_v1_myl0_3 +kgen +fp16 +1 +model\.layers\.0\.self_attn\.attention$", line.rstrip()) for line in shown)
