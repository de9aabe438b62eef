"""Where pairs go, as a table of small graphs; and that what is done around them leaves the numbers alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from ernie_cli.quant import activations, activations_fold, activations_unsigned, edit, layers
from ernie_cli.quant.scheme import find

INT8, FP8 = find("int8"), find("fp8")
CHANNELS = 4
#: Weights by the first letter of their names: what `graph` makes for a name that nobody computes.
SHAPES = {"w": (CHANNELS, CHANNELS, 3, 3), "d": (CHANNELS, 1, 3, 3), "m": (CHANNELS, CHANNELS), "b": (CHANNELS,), "s": (1,)}

GIVEN = {
    "zero": np.float32(0),
    "six": np.float32(6),
    "nil": np.array([0], np.int64),
    "one": np.array([1], np.int64),
    "four": np.array([CHANNELS], np.int64),
    "double": np.array([1, 1, 2, 2], np.float32),
}


def graph(text: str, *, image: bool = True) -> ir.Model:
    """Nodes as ONNX's text format has them; x goes in, y comes out. Names that nobody computes become constants, see SHAPES."""
    shape = f"N,{CHANNELS},8,8" if image else f"N,3,{CHANNELS}"
    head = f'<ir_version: 10, opset_import: ["" : 21]> g (float[{shape}] x) => (float[{"N,A,B,C" if image else "N,3,4"}] y)'
    proto = onnx.parser.parse_model(f"{head} {{ {text} }}")
    rng = np.random.default_rng(0)
    made = {name for node in proto.graph.node for name in node.output}
    for name in dict.fromkeys(name for node in proto.graph.node for name in node.input):
        if name and name not in made and name != "x":
            value = GIVEN.get(name)
            if value is None:
                value = rng.normal(0, 0.4, SHAPES[name[0]]).astype(np.float32)
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(abs(value) + 0.5 if name[0] == "s" else value), name))
    for number, node in enumerate(proto.graph.node):
        node.name = node.name or f"{node.op_type}{number}"
    return ir.from_proto(proto)


CONV = "Conv<pads=[1,1,1,1]>"
BLOCK = f"a = {CONV}(x, w1, b1) r = Relu(a) c = {CONV}(r, w2, b2) t = Add(c, r) q = Relu(t) y = {CONV}(q, w3, b3)"


def table(model: ir.Model, scheme=INT8, **options) -> dict[str, tuple[list[str], str]]:
    """value → the nodes that read its codes, the value that its scale is measured on."""
    found: dict[str, tuple[list[str], str]] = {}
    for point in activations.points(model, scheme, layers.find(model, scheme, exclude=options.pop("exclude", ())), **options):
        readers, _ = found.setdefault(str(point.value.name), ([], point.scale_of))
        readers += [str(node.outputs[0].name) for node in point.users]
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # a Relu's scale holds before it, too: what is below 0 goes anyway
        (f"a = {CONV}(x, w1, b1) r = Relu(a) y = {CONV}(r, w2)", {"x": (["a"], "x"), "a": (["r"], "r"), "r": (["y"], "r")}),
        (f"a = {CONV}(x, w1) r = Clip(a, zero, six) y = {CONV}(r, d1)", {"x": (["a"], "x"), "a": (["r"], "a"), "r": (["y"], "r")}),
        # the branches of an addition, and its sum
        (BLOCK, {"x": (["a"], "x"), "a": (["r"], "r"), "r": (["c", "t"], "r"), "c": (["t"], "c"), "t": (["q"], "q"), "q": (["y"], "q")}),
        # what only picks values keeps their scale
        (
            f"a = {CONV}(x, w1) p = MaxPool<kernel_shape=[1,1]>(a) y = {CONV}(p, w2)",
            {"x": (["a"], "x"), "a": (["p"], "a"), "p": (["y"], "a")},
        ),
        # no integer kernel: between two pairs
        (f"a = {CONV}(x, w1) h = HardSwish(a) y = {CONV}(h, w2)", {"x": (["a"], "x"), "a": (["h"], "a"), "h": (["y"], "h")}),
        # the last layer gives float
        (f"a = {CONV}(x, w1) y = Sigmoid(a)", {"x": (["a"], "x")}),
    ],
    ids=["relu", "clip", "residual", "pool", "hardswish", "last"],
)
def test_chains_of_convolutions(text, expected):
    if "Clip" in text:
        expected = {**expected, "a": (["r"], "r")}
    assert table(graph(text)) == expected


def test_for_tensorrt_only_what_layers_read_and_the_other_branch():
    assert table(graph(BLOCK), chains=False) == {"x": (["a"], "x"), "r": (["c", "t"], "r"), "q": (["y"], "q")}


def test_a_transformer_has_pairs_before_its_weights_alone():
    text = """n = LayerNormalization(x, b1, b2) q = MatMul(n, m1) k = MatMul(n, m2) v = MatMul(n, m3) t = Transpose<perm=[0,2,1]>(k)
    s = MatMul(q, t) p = Softmax(s) o = MatMul(p, v) u = MatMul(o, m4) y = Add(u, x)"""
    expected = {"n": (["q", "k", "v"], "n"), "o": (["u"], "o")}
    assert table(graph(text, image=False)) == table(graph(text, image=False), FP8) == expected


def test_an_excluded_layer_reads_and_gives_float():
    """Between two pairs ONNX Runtime would quantise its float weight by itself."""
    found = table(graph(BLOCK), exclude=["Conv2"])
    assert "c" not in found and not any("c" in readers for readers, _ in found.values())


def test_weight_only_schemes_have_no_pairs():
    assert activations.points(graph(BLOCK), find("int8-weight"), []) == []


def test_values_keep_their_names_and_the_graph_its_ends():
    model = graph(BLOCK)
    before = {value.name for node in model.graph for value in node.outputs}
    quantised(model)
    assert before <= {value.name for node in model.graph for value in node.outputs}
    assert [value.name for value in (*model.graph.inputs, *model.graph.outputs)] == ["x", "y"]


def quantised(model: ir.Model, scheme=INT8, *, room: float = 1.0) -> ir.Model:
    """Pairs with scales from the largest values, weights rounded to nearest. room: how much further the scales reach."""
    chosen = layers.find(model, scheme)
    points = activations.points(model, scheme, chosen)
    names = activations.measured(points)
    seen = values(model, sample(), names)
    scales = {name: room * float(np.abs(seen[name]).max()) / {"int8": 127, "fp8": 448}[scheme.activation] for name in names}
    activations.insert(model, points, scales, scheme.activation)
    for layer in chosen:
        assert scheme.weight is not None
        edit.quantize_weight(layer, scheme.weight, lambda layer=layer: edit.rounded(layer, scheme.weight))
    return model


def sample(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (2, CHANNELS, 8, 8)).astype(np.float32)


def session(model: ir.Model, optimised: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if optimised:
        options.optimized_model_filepath = str(optimised)
    else:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)


def values(model: ir.Model, images: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    proto = ir.to_proto(model)
    wanted = [name for name in names if name not in ("x", "y")]
    proto.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in wanted)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    opened = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    given = [value.name for value in opened.get_outputs()]
    return {"x": images, **dict(zip(given, opened.run(None, {"x": images}), strict=True))}


def run(model: ir.Model, images: np.ndarray) -> np.ndarray:
    return np.asarray(session(model).run(["y"], {"x": images})[0])


def snr_db(wanted: np.ndarray, got: np.ndarray) -> float:
    return float(10 * np.log10(np.square(wanted).sum() / np.square(wanted - got).sum()))


@pytest.mark.parametrize(("scheme", "least_db"), [(INT8, 30), (FP8, 20)], ids=["int8", "fp8"])
def test_a_quantised_block_computes_nearly_the_same(scheme, least_db):
    operators = {"fp8": ("Conv", "MatMul", "Gemm")}.get(scheme.name, scheme.operators)
    scheme = type(scheme)(scheme.name, scheme.says, scheme.weight, scheme.activation, operators=operators)
    wanted = run(graph(BLOCK), sample())
    assert snr_db(wanted, run(quantised(graph(BLOCK), scheme), sample())) > least_db


def test_unsigned_pairs_give_the_same_numbers_and_finer_ones_better_ones():
    wanted, signed, same, finer = graph(BLOCK), *(quantised(graph(BLOCK), room=1.2) for _ in range(3))
    assert activations_unsigned.make_unsigned(same, finer=False) == activations_unsigned.make_unsigned(finer) > 0
    exact, rough = run(wanted, sample()), run(signed, sample())
    np.testing.assert_allclose(run(same, sample()), rough, atol=1e-5)
    assert snr_db(exact, run(finer, sample())) > snr_db(exact, rough) + 1


def test_unsigned_pairs_are_integer_kernels_from_end_to_end(tmp_path):
    model = quantised(graph(BLOCK))
    activations_unsigned.make_unsigned(model)
    opened = session(model, tmp_path / "optimised.onnx")
    operators = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert operators.count("QLinearConv") == 2  # the third gives float, and no time is spent on making it codes
    assert "QLinearAdd" in operators and "Relu" not in operators
    reference = run(model, sample())
    np.testing.assert_allclose(opened.run(None, {"x": sample()})[0], reference, atol=0.02 * np.abs(reference).max())


@pytest.mark.parametrize(
    ("between", "kernels"),
    [
        ("r = Relu(a) q = Concat<axis=1>(r, r) p = Slice(q, nil, four, one)", {"QLinearConcat", "Slice"}),
        ("r = Relu(a) p = AveragePool<kernel_shape=[2,2]>(r)", {"QLinearAveragePool"}),
        ("r = Relu(a) s = Sigmoid(r) p = Mul(r, s)", {"QLinearSigmoid", "QLinearMul"}),
        ("p = LeakyRelu<alpha=0.1>(a)", {"QLinearLeakyRelu"}),
        ("r = Relu(a) p = MaxPool<kernel_shape=[2,2]>(r)", {"MaxPool", "NhwcMaxPool"}),
        ("p = Clip(a, zero, six)", set()),
        ("r = Relu(a) p = Transpose<perm=[0,1,3,2]>(r)", {"Transpose"}),
        ('r = Relu(a) p = Resize<mode="nearest">(r, , double)', {"Resize"}),
    ],
    ids=["concat", "average", "silu", "leaky", "max", "relu6", "transpose", "resize"],
)
def test_what_lies_between_convolutions_stays_in_8_bits(between, kernels, tmp_path):
    model = quantised(graph(f"a = {CONV}(x, w1, b1) {between} c = {CONV}(p, w2, b2) t = Relu(c) y = {CONV}(t, w3)"))
    activations_unsigned.make_unsigned(model)
    session(model, tmp_path / "optimised.onnx")
    operators = {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert kernels & operators or not kernels
    assert operators - kernels <= {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "Conv", "Transpose"}
    assert sum(node.op_type == "QuantizeLinear" for node in onnx.load(tmp_path / "optimised.onnx").graph.node) == 1


def test_only_signed_pairs_are_rewritten():
    assert activations_unsigned.make_unsigned(graph(BLOCK)) == 0
    narrow = quantised(graph(BLOCK))
    assert activations_unsigned.make_unsigned(narrow) > 0
    assert activations_unsigned.make_unsigned(narrow) == 0


NORM = f"a = {CONV}(x, w1, b1) n = BatchNormalization(a, s1, b2, b3, s2) y = Relu(n)"


def norm(text: str) -> ir.Model:
    """Gain and variance above 0, one for each channel."""
    model = graph(text.replace("s1", "b4").replace("s2", "b5"))
    for name in ("b4", "b5"):
        tensor = ir.tensor(np.linspace(0.5, 2, CHANNELS, dtype=np.float32), name=name)
        model.graph.initializers[name].const_value = tensor
    return model


@pytest.mark.parametrize("operator", [CONV, "Conv<group=1,pads=[1,1,1,1],strides=[1,1]>", "ConvTranspose<pads=[1,1,1,1]>"])
@pytest.mark.parametrize("bias", ["b1", ""], ids=["bias", "no-bias"])
def test_batch_normalisation_is_folded_exactly(operator, bias):
    text = NORM.replace(CONV, operator).replace(", b1", f", {bias}" if bias else "")
    model = norm(text)
    wanted = run(model, sample())
    assert activations_fold.fold_batch_norms(model) == 1
    assert [node.op_type for node in model.graph] == [operator.split("<")[0], "Relu"]
    assert model.graph[0].outputs[0].name == "n"
    np.testing.assert_allclose(run(model, sample()), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        f"a = {CONV}(x, w1) n = BatchNormalization(a, s1, b2, b3, s2) y = Add(n, a)",  # somebody else reads it
        "n = BatchNormalization(x, s1, b2, b3, s2) y = Relu(n)",  # nothing before it
    ],
)
def test_other_batch_normalisation_stays(text):
    model = norm(text)
    assert activations_fold.fold_batch_norms(model) == 0
    assert "BatchNormalization" in [node.op_type for node in model.graph]
