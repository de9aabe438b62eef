"""Folding changes no function: every graph gives after it what it gave before; and what cannot be folded makes no group."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from ernie_cli import nano
from ernie_cli.checkpoint import Checkpoint
from ernie_cli.graph.export import export
from ernie_cli.onnxgraph.simplify import simplify
from ernie_cli.quant import layers
from ernie_cli.quant.fold import Group, fold, groups
from ernie_cli.quant.scheme import find

RNG = np.random.default_rng(0)


def graph(body: str, weights: dict[str, tuple[int, ...]], *, outputs: str = "float[B,S,M] y", opset: int = 23) -> ir.Model:
    """A graph over x [B, S, 16] with seeded weights; a `w…` holds normal numbers, anything else numbers near 1."""
    rng = np.random.default_rng(1)
    text = f'<ir_version: 10, opset_import: ["" : {opset}]> g (float[B,S,16] x) => ({outputs}) {{ {body} }}'
    made = [(rng.normal(size=shape) + (not name.startswith("w"))).astype(np.float32) for name, shape in weights.items()]
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in zip(weights, made, strict=True))
    return ir.from_proto(proto)


def run(model: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def found(model: ir.Model, *, tied: bool = True, exclude: tuple[str, ...] = ()) -> list[Group]:
    return groups(model, layers.find(model, find("int8"), exclude=exclude), tied=tied)


def fold_all(those: list[Group], seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for group in those:
        fold(group, group.largest(np.exp(rng.normal(size=group.channels))))


def assert_same(got: list[np.ndarray], want: list[np.ndarray], tolerance: float = 1e-5) -> None:
    for one, other in zip(got, want, strict=True):
        assert np.abs(one - other).max() <= tolerance * np.abs(other).max()


X = {"x": RNG.normal(size=(2, 5, 16)).astype(np.float32)}
NORM = "n = LayerNormalization<axis=-1>(x, scale, bias)"
#: A norm as simplifiers leave it: its scale and bias are a Mul and an Add.
SPELLED = """
    axes = Constant<value_ints=[-1]>() mean = ReduceMean(x, axes) centred = Sub(x, mean) squares = Mul(centred, centred)
    variance = ReduceMean(squares, axes) deviation = Sqrt(variance) unit = Div(centred, deviation)
    scaled = Mul(unit, scale) n = Add(scaled, bias)
"""
MATRICES = {"scale": (16,), "bias": (16,), "w1": (16, 16), "w2": (16, 16), "w3": (16, 16), "w4": (16, 16), "w5": (8, 16)}
FOLDABLE = {
    "LayerNormalization": (f"{NORM} y = MatMul(n, w1)", ["n"]),
    "two users": (f"{NORM} a = MatMul(n, w1) b = MatMul(n, w2) y = Add(a, b)", ["n"]),
    "spelled-out norm": (f"{SPELLED} y = MatMul(n, w1)", ["n"]),
    "spelled-out RMS norm": (
        """two = Constant<value_float=2.0>() axes = Constant<value_ints=[-1]>() squares = Pow(x, two) mean = ReduceMean(squares, axes)
        root = Sqrt(mean) part = Reciprocal(root) unit = Mul(x, part) n = Mul(scale, unit) y = MatMul(n, w1)""",
        ["n"],
    ),
    "RMSNormalization, cast": ("r = RMSNormalization(x, scale) n = Cast<to=1>(r) y = MatMul(n, w1)", ["r"]),
    "last row": (
        f"{NORM} a = MatMul(n, w1) i = Constant<value_ints=[-1]>() l = Gather<axis=1>(n, i) b = MatMul(l, w2) y = Add(a, b)",
        ["n"],
    ),
    "rows flattened": (f"{NORM} s = Constant<value_ints=[-1,16]>() f = Reshape(n, s) y = MatMul(f, w1)", ["n"]),
    "relu": ("a = MatMul(x, w1) b = Add(a, bias) r = Relu(b) y = MatMul(r, w2)", ["r"]),
    "gated": ("a = MatMul(x, w1) g = Sigmoid(a) u = MatMul(x, w2) m = Mul(g, u) y = MatMul(m, w3)", ["m"]),
    "gated, the linear first": ("a = MatMul(x, w1) g = Sigmoid(a) u = MatMul(x, w2) m = Mul(u, g) y = MatMul(m, w3)", ["m"]),
    "split": (
        "a = MatMul(x, w1) p, q = Split<axis=-1, num_outputs=2>(a) s = Sigmoid(p) m = Mul(s, q) k = Concat<axis=1>(m, m) y = MatMul(k, w5)",
        ["k"],
    ),
    "values of attention": (
        """q = MatMul(x, w1) k = MatMul(x, w2) v = MatMul(x, w3) m = Attention<q_num_heads=4, kv_num_heads=4>(q, k, v) y = MatMul(m, w4)""",
        ["m"],
    ),
    "attention by hand": (
        """q = MatMul(x, w1) v = MatMul(x, w2) vb = Add(v, bias)
        s = Constant<value_ints=[0,0,4,4]>() qs = Reshape(q, s) qt = Transpose<perm=[0,2,1,3]>(qs) kt = Transpose<perm=[0,2,3,1]>(qs)
        vs = Reshape(vb, s) vt = Transpose<perm=[0,2,1,3]>(vs) scores = MatMul(qt, kt) p = Softmax<axis=-1>(scores) o = MatMul(p, vt)
        ot = Transpose<perm=[0,2,1,3]>(o) whole = Constant<value_ints=[0,0,-1]>() m = Reshape(ot, whole) y = MatMul(m, w4)""",
        ["m"],
    ),
    "a shared scale": ("a = LayerNormalization(x, scale) b = LayerNormalization(a, scale) y = MatMul(b, w1)", ["b"]),
    "a norm for two": (f"{NORM} a = MatMul(n, w1) r = Relu(n) b = MatMul(r, w2) y = Add(a, b)", ["n", "r"]),
}
NOT_FOLDABLE = {
    "an input": "y = MatMul(x, w1)",
    "a residual": f"{NORM} a = MatMul(n, w1) y = Add(a, n)",
    "sigmoid": f"{NORM} s = Sigmoid(n) y = MatMul(s, w1)",
    "gelu": "a = MatMul(x, w1) g = Gelu(a) y = MatMul(g, w2)",
    "swish": "a = MatMul(x, w1) s = Sigmoid(a) m = Mul(a, s) y = MatMul(m, w2)",
    "a square": "a = MatMul(x, w1) m = Mul(a, a) y = MatMul(m, w2)",
    "rows turned to columns": f"{NORM} t = Transpose<perm=[0,2,1]>(n) y = MatMul(t, w1)",
    "one weight for two linears": "a = MatMul(x, w1) r = Relu(a) b = MatMul(r, w1) y = Relu(b)",
}


def build(body: str, **changes: Any) -> ir.Model:
    """`graph` with those of MATRICES that the body names."""
    named = set(re.findall(r"\w+", body))
    return graph(body, {name: shape for name, shape in MATRICES.items() if name in named}, **changes)


@pytest.mark.parametrize("case", FOLDABLE)
def test_same_function(case: str) -> None:
    body, values = FOLDABLE[case]
    model = build(body)
    want = run(model, X)
    those = found(model)
    assert [group.name for group in those] == values
    fold_all(those)
    assert_same(run(model, X), want)


@pytest.mark.parametrize("case", NOT_FOLDABLE)
def test_no_group(case: str) -> None:
    assert found(build(NOT_FOLDABLE[case])) == []


def test_an_output_makes_no_group() -> None:
    assert found(build(f"{NORM} y = MatMul(n, w1)", outputs="float[B,S,M] y, float[B,S,16] n")) == []


def test_value_is_divided_and_another_linear_follows() -> None:
    """A user that is not to be quantised (a router, say) is scaled like the others."""
    model = build(f"{NORM} a = MatMul(n, w1) b = MatMul(n, w2) y = Add(a, b)")
    before = run(model, X)
    (group,) = found(model, exclude=("^b$",))
    assert [layer.name for layer in group.layers] == ["a"]
    factors = np.linspace(0.1, 10, 16)
    fold(group, factors)
    assert_same(run(model, X), before)
    model.graph.outputs.append(group.value)
    plain = build(f"{NORM} a = MatMul(n, w1) b = MatMul(n, w2) y = Add(a, b)", outputs="float[B,S,M] y, float[B,S,16] n")
    assert_same(run(model, X)[1:], [run(plain, X)[1] / factors])


def test_gemm_mlp() -> None:
    body = "a = Gemm<transB=1>(x, w1, bias) r = Relu(a) y = Gemm(r, w2)"
    model = build(body)
    model.graph.inputs[0].shape = ir.Shape(["B", 16])
    feeds = {"x": X["x"][0]}
    want = run(model, feeds)
    those = found(model)
    assert [group.name for group in those] == ["r"]
    fold_all(those)
    assert_same(run(model, feeds), want)


def test_heads_that_share_values_are_tied() -> None:
    body = """q = MatMul(x, w1) k = MatMul(x, w6) v = MatMul(x, w7)
        m = Attention<q_num_heads=4, kv_num_heads=2>(q, k, v) y = MatMul(m, w2)"""
    model = graph(body, {"w1": (16, 16), "w2": (16, 16), "w6": (16, 8), "w7": (16, 8)})
    assert found(model, tied=False) == []
    want = run(model, X)
    (group,) = found(model)
    assert group.tied is not None and group.tied.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 8, 9, 10, 11, 8, 9, 10, 11]
    with pytest.raises(ValueError, match="tied"):
        fold(group, np.arange(1.0, 17))
    fold_all([group])
    assert_same(run(model, X), want)


@pytest.mark.parametrize("factors", [np.ones(15), np.zeros(16), np.full(16, -1.0), np.full(16, np.nan)])
def test_bad_factors(factors: np.ndarray) -> None:
    (group,) = found(build(f"{NORM} y = MatMul(n, w1)"))
    with pytest.raises(ValueError, match="factors"):
        fold(group, factors)


@pytest.mark.parametrize("kv_cache", ["static", "growing"])
@pytest.mark.parametrize("all_logits", [False, True])
def test_nano(tmp_path: Path, kv_cache: str, all_logits: bool) -> None:
    """Every input of a linear of an ERNIE decoder can be folded; its embedding, tied to the head, does not change."""
    export(Checkpoint.open(nano.path()), tmp_path, dtype="fp32", kv_cache=kv_cache, all_logits=all_logits)
    model = ir.load(tmp_path / "model.onnx")
    feeds: dict[str, np.ndarray] = {"input_ids": np.arange(3, 15).reshape(1, 12)}
    slots = 16 if kv_cache == "static" else 0
    for value in model.graph.inputs[1:]:
        feeds[str(value.name)] = np.zeros(1, np.int64) if value.name == "positions" else np.zeros((1, 2, slots, 64), np.float32)
    want = run(model, feeds)[:1]
    embedding = model.graph.initializers["model.embed_tokens.weight"].const_value.numpy()  # type: ignore[union-attr]
    those = found(model)
    assert len(those) == 6 * 4 + 1
    assert sum(len(group.layers) for group in those) == 6 * 7 + 1
    assert len(found(model, tied=False)) == 6 * 3 + 1
    fold_all(those)
    assert_same(run(model, feeds)[:1], want)
    after = model.graph.initializers["model.embed_tokens.weight"]
    assert [node.op_type for node, _ in after.uses()] == ["Gather"]
    assert np.array_equal(after.const_value.numpy(), embedding)  # type: ignore[union-attr]


def test_folded_weights_quantise(tmp_path: Path) -> None:
    """A layer still knows its weight after folding, and what it becomes is read from the folded tensor."""
    model = build(f"{NORM} y = MatMul(n, w1)")
    (group,) = found(model)
    (layer,) = group.layers
    before = layer.weight.const_value.numpy()  # type: ignore[union-attr]
    factors = np.linspace(1, 2, 16)
    fold(group, factors)
    assert layer.node.inputs[1] is layer.weight
    assert np.allclose(layer.weight.const_value.numpy(), before * factors[:, None])  # type: ignore[union-attr]


def traced(model: Any, feed: Any) -> ir.Model:
    """A transformers model as the TorchScript exporter writes it: norms in pieces, shapes computed."""
    import io
    import warnings

    import torch

    class Hidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Any) -> Any:
            return self.model(x).last_hidden_state

    file: Any = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Hidden().eval(), (feed,), file, input_names=["x"], dynamo=False, dynamic_axes={"x": {0: "b"}}, opset_version=14)
    return ir.from_proto(onnx.load_from_string(file.getvalue()))


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
OPT = {"ffn_dim": 48, "vocab_size": 50, "word_embed_proj_dim": 32, "use_cache": False, "max_position_embeddings": 32}
#: Kind → (configuration, how many groups): both norms of each layer; ReLU lets factors through, GELU does not.
TRANSFORMERS: dict[str, tuple[dict[str, Any], int]] = {
    "ViT": ({**SIZES, "image_size": 16, "patch_size": 8}, 2 * 2),
    "OPT": ({**SIZES, **OPT}, 2 * 3),
}


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_transformers(kind: str) -> None:
    torch = pytest.importorskip("torch", reason="the model is made by transformers")
    import transformers

    changes, count = TRANSFORMERS[kind]
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**changes, attn_implementation="eager")
    original = getattr(transformers, f"{kind}Model")(config).eval()
    feed = torch.randn(2, 3, 16, 16) if kind == "ViT" else torch.arange(3, 17).reshape(2, 7)
    model = simplify(traced(original, feed))
    feeds = {"x": feed.numpy()}
    want = run(model, feeds)
    those = found(model)
    assert len(those) == count, [group.name for group in those]
    fold_all(those)
    assert_same(run(model, feeds), want)
