"""Lowered graphs compute what they did: ONNX's own node tests, exported networks, our decoder; the rest is refused by name."""

from __future__ import annotations

import copy
import functools
import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.loader import load_model_tests
from onnx_models import close, mlp, model, run

from ernie_cli.app import main
from ernie_cli.errors import UnsupportedError, UsageError
from ernie_cli.onnxgraph.load import load
from ernie_cli.onnxgraph.lower import EXPAND, coverage, lower, lower_down
from ernie_cli.onnxgraph.operators import operators

F, I = TensorProto.FLOAT, TensorProto.INT64  # noqa: E741
node = helper.make_node
#: Operators with a rule; everything else counts as known, so that rules are used even where the old opset has the operator.
WITH_RULES = {*EXPAND, *lower_down.RULES}
#: Types that numpy has itself: float, double, half, bool, integers.
PLAIN = {1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13}
#: Node tests that ONNX Runtime itself fails, lowered or not.
THEIRS = {"test_resize_downsample_scales_linear_align_corners", "test_resize_downsample_scales_cubic_align_corners"}


@functools.cache
def node_cases() -> list[Any]:
    """Every node test of the installed onnx that uses an operator with a rule, float and integer ones."""
    found = []
    for case in load_model_tests(kind="node"):
        if "_expanded" in case.name or "training" in case.name or case.name in THEIRS:
            continue
        proto = case.model or onnx.load(f"{case.model_dir}/model.onnx")
        if {one.op_type for one in proto.graph.node} & WITH_RULES:
            found.append((case, proto))
    return found


def arrays(case: Any) -> tuple[list[Any], list[Any]]:
    """(inputs, outputs) of a node test."""
    if case.data_sets:
        read = numpy_helper.to_array
        inputs, outputs = ([read(one) if isinstance(one, TensorProto) else one for one in side] for side in case.data_sets[0])
        return inputs, outputs
    sides = []
    for kind in ("input", "output"):
        files = itertools.takewhile(
            Path.is_file, (Path(case.model_dir, f"test_data_set_0/{kind}_{index}.pb") for index in itertools.count())
        )
        sides.append([numpy_helper.to_array(onnx.TensorProto.FromString(file.read_bytes())) for file in files])
    return sides[0], sides[1]


def constant_axes(proto: onnx.ModelProto, inputs: list[Any]) -> list[Any]:
    """Small integer inputs after the first become constants, as every exporter writes them. Returns the inputs that are left."""
    if proto.graph.node[0].op_type not in lower_down.RULES:
        return inputs
    left, values = [], list(proto.graph.input)
    del proto.graph.input[:]
    for index, (value, array) in enumerate(zip(values, inputs, strict=True)):
        if index and (np.asarray(array).dtype == np.int64 or "resize" in proto.graph.name):
            proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), value.name))
        else:
            proto.graph.input.append(value)
            left.append(array)
    return left


@pytest.mark.parametrize(("opset", "write_out"), [(13, True), (17, False)])
def test_nodes_of_onnx(opset: int, write_out: bool, saved: Callable[..., Path], capsys: Any) -> None:
    everything = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
    known = everything - set(EXPAND) if write_out else None
    done: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for case, proto in node_cases():
        inputs, outputs = arrays(case)
        if not {value.type.tensor_type.elem_type for value in (*proto.graph.input, *proto.graph.output)} <= PLAIN:
            continue  # types that numpy has no name for, and sequences
        proto = copy.deepcopy(proto)
        inputs = constant_axes(proto, inputs)
        try:
            lowered = lower(load(saved(proto)), opset, known=known)
        except UnsupportedError as err:
            refused[f"{proto.graph.node[0].op_type}: {err.message.rpartition('): ')[2]}"] += 1
            continue
        message = ir.serde.serialize_model(lowered)
        message.ir_version = min(message.ir_version, 10)
        onnx.checker.check_model(message)
        feeds = dict(zip([value.name for value in message.graph.input], map(np.asarray, inputs), strict=True))
        try:
            got = run(message.SerializeToString(), feeds)
        except Exception as err:  # noqa: BLE001 — its exceptions share no base
            assert "NOT_IMPLEMENTED" in str(err) or "NotImplemented" in type(err).__name__, (case.name, err)
            continue  # ONNX Runtime has no kernel of that old opset for this type
        half = any(np.asarray(array).dtype == np.float16 for array in outputs)
        for one, other in zip(got, outputs, strict=True):
            np.testing.assert_allclose(one, other, rtol=2e-2 if half else 1e-3, atol=5e-3 if half else 2e-5, err_msg=case.name)
        done[proto.graph.node[0].op_type] += 1
    with capsys.disabled():
        print(f"\nlowered to opset {opset}: {done.total()} node tests of onnx {onnx.__version__} pass, {refused.total()} are refused")
    assert done.total() > 230, done  # 234 with onnx 1.17, more with each release
    reasons = (
        "came",
        "float8",
        "bfloat16",
        "training",
        "mask is asked",
        "in blocks",
        "some axes only",
        "another axis",
        "constant",
        "noop",
        "later",
    )
    assert all(any(reason in said for reason in reasons) for said in refused), refused


@pytest.mark.parametrize("cache", ["static", "growing"])
def test_our_decoder(cache: str, tmp_path: Path) -> None:
    """ERNIE 4.5's own graph, opset 23 or 24, in operators of opset 13."""
    assert main(["convert", "ernie-4.5-nano", "--to", "onnx", "--kv-cache", cache, "--no-verify", "-q", "-o", str(tmp_path / "o")]) == 0
    path = tmp_path / "o" / "model.onnx"
    lowered = lower(load(path), 13)
    assert not {"Attention", "RMSNormalization", "RotaryEmbedding", "TensorScatter"} & {name for name, _, _ in operators(lowered)}
    rng = np.random.default_rng(0)
    # A growing cache has one length for all rows and, in ONNX Runtime, one row.
    for rows, tokens, past in [(1, 1, 0), (1, 5, 3), (3, 2, 7)] if cache == "static" else [(1, 1, 0), (1, 5, 3)]:
        feeds = {}
        for value in lowered.graph.inputs:
            named = {"batch": rows, "sequence": tokens, "past": past, "slots": 16}
            shape = [named.get(str(length), length) for length in value.shape]
            feeds[value.name] = rng.normal(size=shape).astype(np.float32)
        feeds["input_ids"] = rng.integers(0, 50, (rows, tokens))
        if cache == "static":
            feeds["positions"] = np.arange(rows) + past
        close(run(lowered, feeds), run(path, feeds), rtol=1e-4, atol=1e-5)


def traced(module: Any, inputs: tuple[Any, ...], path: Path, dynamic: dict[str, dict[int, str]], opset: int) -> None:
    import warnings

    import torch

    names = [name for name in dynamic if name != "y"]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        made = torch.jit.trace(module.eval(), inputs, check_trace=False)
        torch.onnx.export(
            made, inputs, str(path), input_names=names, output_names=["y"], dynamic_axes=dynamic, opset_version=opset, dynamo=False
        )


def test_networks_of_torch(tmp_path: Path) -> None:
    """BERT, ViT, a recurrent and a convolutional network, exported at 18 or 20, lowered to 13."""
    import torch
    from torch import nn
    from transformers import BertConfig, BertModel, ViTConfig, ViTModel

    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "attn_implementation": "eager"}

    class States(nn.Module):
        def __init__(self, net: Any) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Any) -> Any:
            return self.net(x).last_hidden_state

    class Convolutional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.group = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.GroupNorm(4, 8)

        def forward(self, x: Any) -> Any:
            x = nn.functional.hardswish(self.norm(self.conv(x)))
            x = nn.functional.interpolate(self.group(x), scale_factor=2.0, mode="bilinear")
            first, second = nn.functional.pad(x, (1, 1, 1, 1)).chunk(2, 1)
            return torch.cat([nn.functional.mish(first), nn.functional.gelu(second)], 1).mean((2, 3))

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(16, 8, 2, batch_first=True, bidirectional=True)

        def forward(self, x: Any) -> Any:
            return self.lstm(x)[0]

    moving = {0: "batch", 1: "length"}
    for module, x, axes, opset in [
        (States(BertModel(BertConfig(vocab_size=50, max_position_embeddings=16, **small))), torch.randint(0, 50, (2, 5)), moving, 18),
        (States(ViTModel(ViTConfig(image_size=16, patch_size=8, **small))), torch.randn(2, 3, 16, 16), {0: "batch"}, 20),
        (Recurrent(), torch.randn(2, 5, 16), moving, 18),
        (Convolutional(), torch.randn(2, 3, 16, 16), {0: "batch", 2: "h", 3: "w"}, 20),
    ]:
        path = tmp_path / "m.onnx"
        traced(module, (x,), path, {"x": axes, "y": {0: "batch"}}, opset)
        lowered = lower(load(path), 13)
        assert lowered.graph.opset_imports[""] == 13
        for batch in (1, 3):
            rng, shape = np.random.default_rng(batch), (batch, *x.shape[1:])
            feeds = {"x": rng.integers(0, 50, shape) if x.dtype == torch.int64 else rng.normal(size=shape).astype(np.float32)}
            close(run(lowered, feeds), run(path, feeds), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_expressed_is_named_all_at_once(saved: Callable[..., Path]) -> None:
    nodes = [
        node("BitwiseNot", ["i"], ["a"], "bits"),
        node("GridSample", ["x", "g"], ["b"], "warp"),
        node("Pad", ["x", "p"], ["c"], "around", mode="wrap"),
        node("ScatterND", ["x", "i", "x"], ["d"], "sum", reduction="add"),
        node("Relu", ["x"], ["e"], "fine"),
    ]
    given = {"x": (F, [1, 1, 4, 4]), "g": (F, [1, 4, 4, 2]), "i": (I, [1, 4]), "p": (I, [8])}
    path = saved(model(nodes, given, dict.fromkeys("abcde", F), opset=20))
    with pytest.raises(UnsupportedError) as caught:
        lower(load(path), 13)
    for word in (
        "4 operators",
        "BitwiseNot × 1 (bits)",
        "GridSample × 1 (warp)",
        "Pad × 1 (around): mode wrap",
        "ScatterND × 1 (sum): reduction=add",
    ):
        assert word in caught.value.message
    uses = {use.operator: use.how for use in coverage(load(path), 13)}
    assert uses["Relu"] == "kept" and uses["Pad"] == ""


def test_only_known_operators_are_used(saved: Callable[..., Path]) -> None:
    nodes = [node("HardSwish", ["x"], ["a"]), node("LayerNormalization", ["a", "s"], ["b"]), node("Trilu", ["b"], ["y"])]
    path = saved(model(nodes, {"x": (F, ["n", 4])}, {"y": F}, initializers={"s": np.ones(4, np.float32)}))
    known = {"HardSigmoid", "Mul", "ReduceMean", "Sub", "Add", "Sqrt", "Div", "Where", "LessOrEqual", "Range", "Unsqueeze", "Squeeze",
             "Shape", "Slice"}  # fmt: skip
    lowered = lower(load(path), 17, known=known)
    assert {name for name, _, _ in operators(lowered)} <= known
    feeds = {"x": np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)}
    close(run(lowered, feeds), run(path, feeds))
    with pytest.raises(UnsupportedError, match="Trilu"):
        lower(load(path), 17, known=known - {"Range"})


def test_functions_of_another_opset_are_inlined(saved: Callable[..., Path]) -> None:
    function = helper.make_function("local", "f", ["a"], ["b"], [node("Exp", ["a"], ["b"])], [helper.make_opsetid("", 15)])
    path = saved(model([node("f", ["x"], ["y"], domain="local")], {"x": (F, [2])}, {"y": F}, 20, imports=["local"], functions=[function]))
    lowered = lower(load(path), 13)
    assert operators(lowered) == [("Exp", "", ("n0",))] or operators(lowered)[0][0] == "Exp"
    assert not lowered.functions
    close(run(ir.serde.serialize_model(lowered).SerializeToString(), {"x": np.ones(2, np.float32)}), [np.exp(np.ones(2, np.float32))])


def test_inside_branches_and_their_names(saved: Callable[..., Path]) -> None:
    def branch(op: str) -> onnx.GraphProto:
        return helper.make_graph([node(op, ["x"], ["o"])], op, [], [helper.make_tensor_value_info("o", F, [2])])

    nodes = [node("If", ["c"], ["y"], then_branch=branch("Gelu"), else_branch=branch("Mish"))]
    path = saved(model(nodes, {"c": (TensorProto.BOOL, []), "x": (F, [2])}, {"y": F}, opset=20))
    lowered = lower(load(path), 13)
    for chosen in (True, False):
        feeds = {"c": np.array(chosen), "x": np.array([-1, 2], np.float32)}
        close(run(ir.serde.serialize_model(lowered).SerializeToString(), feeds), run(path, feeds))


def test_an_older_model_keeps_its_opset(saved: Callable[..., Path]) -> None:
    assert lower(load(saved(mlp(opset=13))), 15).graph.opset_imports[""] == 13
    with pytest.raises(UsageError):
        lower(load(saved(mlp())), 7)
