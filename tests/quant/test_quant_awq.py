"""AWQ's factors and clipping, and what search.py decides for a whole graph."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from ernie_cli.errors import InputError
from ernie_cli.model import Model
from ernie_cli.quant import awq, clip, edit, layers, search
from ernie_cli.quant.codes import Codes, round_to_nearest
from ernie_cli.quant.moments import SecondMoments
from ernie_cli.quant.options import Options
from ernie_cli.quant.scheme import WeightFormat, find

FORM = WeightFormat("int4", 32)
HIDDEN, INNER, WORDS = 64, 96, 40


def inputs(rows: int = 400, seed: int = 0) -> np.ndarray:
    """A few channels are 30 times as large as the others, as in large language models."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(rows, HIDDEN)) * np.where(np.arange(HIDDEN) % 13 == 0, 30, 1)).astype(np.float32)


def moments(rows: np.ndarray) -> SecondMoments:
    made = SecondMoments(rows.shape[-1])
    made.add(rows)
    return made


def test_factors_make_large_channels_precise() -> None:
    seen, dense = moments(inputs()), np.random.default_rng(1).normal(size=(HIDDEN, 50)).astype(np.float32)
    tried = [awq.powers(seen.means, float(exponent)) for exponent in awq.EXPONENTS]
    factors = awq.best(tried, [dense], seen.products, FORM)
    assert (tried[0] == 1).all() and np.ptp(factors) > 0 and np.isclose(factors.max() * factors.min(), 1)
    held_out = inputs(seed=2)
    plain = round_to_nearest(dense, FORM, 1, 0).dequantized()
    column = factors.astype(np.float32)[:, None]
    made = awq.codes(dense * column, awq.importance(seen.products, factors, FORM), FORM).dequantized() / column
    lost, before = (np.square(held_out @ (each - dense)).sum() for each in (made, plain))
    assert lost < 0.6 * before


def test_factors_of_channels_that_are_never_used() -> None:
    assert (awq.powers(np.zeros(4), 0.5) == 1).all()
    assert np.isfinite(awq.powers(np.array([0.0, 1e-30, 1e30]), 1.0)).all()


@pytest.mark.parametrize("block", (32, 64))
def test_clipping_loses_less_than_rounding_where_it_counts(block: int) -> None:
    form, rows = WeightFormat("int4", block), inputs()
    dense = np.random.default_rng(3).standard_t(3, size=(HIDDEN, 70)).astype(np.float32)
    products = rows.T @ rows
    made = awq.codes(dense, awq.importance(products, np.ones(HIDDEN), form), form)
    assert made.scale.shape == (HIDDEN // block, 70) and made.block == block
    lost, before = (np.square(rows @ (each.dequantized() - dense)).sum() for each in (made, round_to_nearest(dense, form, 1, 0)))
    assert lost < before


def test_clipping_of_odd_weights() -> None:
    importance = np.broadcast_to(np.eye(32, dtype=np.float32), (2, 32, 32))
    assert (clip.codes(np.zeros((64, 3), np.float32), importance, FORM).scale == 1).all()
    half = clip.codes(np.full((64, 3), 1e-7, np.float16), importance, FORM, np.float16)
    assert half.scale.dtype == np.float16 and (half.scale > 0).all()
    with pytest.raises(FloatingPointError):
        clip.codes(np.full((64, 3), np.inf, np.float32), importance, FORM)


# --- a whole graph: norm → up, gate → product → down → head, tied with the embedding ------------------------------------------


def model(folder: Path, *, spoil: str = "") -> Model:
    rng = np.random.default_rng(5)
    table = rng.normal(size=(WORDS, HIDDEN)) * np.where(np.arange(HIDDEN) % 13 == 0, 30, 1)
    tensors = {
        "table": table,
        "norm": np.ones(HIDDEN) * np.where(np.arange(HIDDEN) % 17 == 0, 8, 1),
        "up.weight": rng.normal(size=(HIDDEN, INNER)),
        "wide.weight": rng.normal(size=(HIDDEN, INNER)),
        "down.weight": rng.normal(size=(INNER, HIDDEN)),
    }
    if spoil:
        tensors[spoil][0, 0] = np.nan
    node = onnx.helper.make_node
    nodes = [
        node("Gather", ["table", "ids"], ["embedded"]),
        node("LayerNormalization", ["embedded", "norm"], ["normed"], name="normed"),
        node("MatMul", ["normed", "up.weight"], ["up"], name="up"),
        node("MatMul", ["normed", "wide.weight"], ["wide"], name="wide"),
        node("Sigmoid", ["wide"], ["open"]),
        node("Mul", ["open", "up"], ["gated"]),
        node("MatMul", ["gated", "down.weight"], ["down"], name="down"),
        node("Gemm", ["down", "table"], ["logits"], name="head", transB=1),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "small",
        [onnx.helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["n"])],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", WORDS])],
        [onnx.numpy_helper.from_array(array.astype(np.float32), name) for name, array in tensors.items()],
    )
    file = folder / "model.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10), file)
    return Model.open(file)


DATA = [{"ids": np.random.default_rng(seed).integers(0, WORDS, 12)} for seed in range(6)]


def searched(folder: Path, **options: object) -> tuple[ir.Model, list[layers.Layer], search.Found]:
    made = model(folder)
    graph = ir.load(made.main_file())
    chosen = layers.find(graph, find("int4"))
    return graph, chosen, search.int4_plan(made, graph, chosen, DATA, Options(**options), folder)  # type: ignore[arg-type]


def run(graph: ir.Model) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(ir.to_proto(graph).SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["logits"], feeds)[0] for feeds in DATA])


def error(graph: ir.Model, chosen: list[layers.Layer], found: search.Found, reference: np.ndarray) -> float:
    """Relative error of the logits when every layer has its codes."""
    found.fold(graph, chosen)
    for layer in chosen:
        form = edit.form_for(layer, found.forms.get(layer.name, FORM))
        maker = found.makers.get(layer.name)
        codes: Codes = maker(layer.read()) if maker else edit.rounded(layer, form)
        edit.quantize_weight(layer, form, lambda codes=codes: codes)  # type: ignore[misc]
    return float(np.square(run(graph) - reference).sum() / np.square(reference).sum())


def test_awq_and_gptq_each_beat_rounding_on_a_graph(tmp_path: Path) -> None:
    errors = {}
    for method in ("rtn", "awq", "gptq"):
        graph, chosen, found = searched(tmp_path, method=method)
        reference = run(graph)
        errors[method] = error(graph, chosen, found, reference)
        assert set(found.makers) == (set() if method == "rtn" else {"up", "wide", "down", "head"})
        assert bool(found.factors) == (method == "awq")
    assert errors["awq"] < errors["rtn"] and errors["gptq"] < errors["rtn"]


def test_folding_what_awq_found_leaves_the_function(tmp_path: Path) -> None:
    graph, chosen, found = searched(tmp_path, method="awq")
    reference = run(graph)
    found.fold(graph, chosen)
    assert "normed" in found.factors
    np.testing.assert_allclose(run(graph), reference, rtol=1e-3, atol=1e-3 * np.abs(reference).max())


def test_moments_that_do_not_fit_together_are_measured_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = searched(tmp_path, method="gptq")[2]
    monkeypatch.setattr(search, "_MOST_BYTES", 1)
    apart = searched(tmp_path, method="gptq")[2]
    for name in ("up", "wide", "down", "head"):
        one, two = together.makers[name](np.empty(0)), apart.makers[name](np.empty(0))
        assert np.array_equal(one.codes.view(np.uint8), two.codes.view(np.uint8)) and np.array_equal(one.scale, two.scale)


def test_what_cannot_be_measured_is_left_to_rounding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(search, "_WIDEST", INNER - 1)
    found = searched(tmp_path, method="gptq")[2]
    assert "down" not in found.makers
    assert "rounded to nearest, because their inputs cannot be measured: down" in capsys.readouterr().err


@pytest.mark.parametrize("method", ("rtn", "awq", "gptq"))
def test_a_mix_keeps_the_head_and_says_so(tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = searched(tmp_path, method=method, mix="auto")[2]
    assert (
        found.forms["head"] == WeightFormat("int8") and "head" not in found.makers and set(found.errors) == {"up", "wide", "down", "head"}
    )
    assert "8 bits for" in capsys.readouterr().err


@pytest.mark.parametrize("method", ("awq", "gptq"))
@pytest.mark.parametrize(("spoil", "said"), (("down.weight", "layer `down`"), ("table", "not finite")))
def test_what_is_not_finite_is_named(tmp_path: Path, method: str, spoil: str, said: str) -> None:
    made = model(tmp_path, spoil=spoil)
    graph = ir.load(made.main_file())
    data = [{"ids": np.arange(WORDS)}]
    chosen = [layer for layer in layers.find(graph, find("int4")) if spoil == "table" or layer.name != "head"]
    with pytest.raises(InputError, match=said):
        search.int4_plan(made, graph, chosen, data, Options(method=method), tmp_path)
