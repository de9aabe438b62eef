"""float32 graphs in 16 bits: what becomes narrow, what stays, and that the numbers hold. Each by ONNX Runtime, node by node."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import mlp, model, run

from ernie_cli.errors import UnsupportedError
from ernie_cli.onnxgraph import write
from ernie_cli.onnxgraph.load import load
from ernie_cli.onnxgraph.lower_precision import lower_precision

F, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
FP16, BF16 = ir.DataType.FLOAT16, ir.DataType.BFLOAT16


@pytest.fixture
def lowered(saved):
    """`lowered(proto)` → (the narrow model as protobuf, the nodes that stayed wide, by reason)."""

    def make(proto: onnx.ModelProto, dtype: ir.DataType = FP16, **more):
        found = load(saved(proto))
        kept = lower_precision(found, dtype, **more)
        narrow = ir.serde.serialize_model(found)
        onnx.checker.check_model(narrow, full_check=True)
        return narrow, kept

    return make


def same(before: onnx.ModelProto, after: onnx.ModelProto, feeds, rel: float = 4e-3) -> None:
    """Names, types and shapes of the ends, and the numbers up to `rel` of the largest."""
    assert [(v.name, v.type.tensor_type.elem_type) for v in after.graph.input] == [
        (v.name, v.type.tensor_type.elem_type) for v in before.graph.input
    ]
    assert [v.name for v in after.graph.output] == [v.name for v in before.graph.output]
    for want, got in zip(run(before.SerializeToString(), feeds), run(after.SerializeToString(), feeds), strict=True):
        assert want.dtype == got.dtype and want.shape == got.shape
        assert np.isfinite(got).all()
        assert np.abs(got.astype(np.float64) - want).max() <= rel * max(np.abs(want).max(), 1e-6)


def types(proto: onnx.ModelProto) -> dict[str, int]:
    """Constant → its type."""
    return {tensor.name: tensor.data_type for tensor in proto.graph.initializer}


def operators(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


def draw(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(len(shape)).standard_normal(shape)).astype(np.float32)


def test_two_casts_for_a_network_however_deep(lowered):
    narrow, kept = lowered(mlp())
    assert operators(narrow) == ["Cast", "MatMul", "Relu", "MatMul", "Cast"]
    assert set(types(narrow).values()) == {TensorProto.FLOAT16} and not kept
    same(mlp(), narrow, {"x": draw(5, 4)})


def test_every_node_and_value_has_a_name_of_its_own(lowered):
    narrow, _ = lowered(mlp())
    names = [node.name for node in narrow.graph.node]
    assert len(set(names)) == len(names) and all(names)


def test_ends_become_narrow_where_asked(lowered):
    narrow, _ = lowered(mlp(), ends=("x", "y"))
    assert operators(narrow) == ["MatMul", "Relu", "MatMul"]
    assert {v.type.tensor_type.elem_type for v in (*narrow.graph.input, *narrow.graph.output)} == {TensorProto.FLOAT16}


def test_bfloat16(lowered):
    narrow, _ = lowered(mlp(), BF16)
    assert set(types(narrow).values()) == {TensorProto.BFLOAT16}
    (weight,) = (tensor for tensor in narrow.graph.initializer if tensor.name == "w")
    want = next(numpy_helper.to_array(tensor) for tensor in mlp().graph.initializer if tensor.name == "w")
    found = np.frombuffer(weight.raw_data, "<u2").astype("<u4") << 16
    assert np.abs(found.view("<f4").reshape(want.shape) - want).max() <= 2**-8 * np.abs(want).max()


def test_bfloat16_convolutions_before_opset_22_stay_wide(lowered):
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], "conv"), helper.make_node("Relu", ["c"], ["y"], "relu")]
    proto = model(nodes, {"x": (F, [1, 3, 8, 8])}, {"y": F}, initializers={"w": draw(4, 3, 3, 3)})
    _, kept = lowered(proto, BF16)
    assert kept == {"operators that take no bfloat16 in opset 17": ["conv"]}


def norm(power: bool) -> onnx.ModelProto:
    """Layer normalisation as exporters wrote it before opset 17, on numbers whose squares are beyond 65504."""
    square = helper.make_node("Pow", ["d", "two"], ["s"], "pow") if power else helper.make_node("Mul", ["d", "d"], ["s"], "square")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "product"),
        helper.make_node("ReduceMean", ["h"], ["m"], "mean", axes=[-1], keepdims=1),
        helper.make_node("Sub", ["h", "m"], ["d"], "centred"),
        square,
        helper.make_node("ReduceMean", ["s"], ["v"], "variance", axes=[-1], keepdims=1),
        helper.make_node("Add", ["v", "eps"], ["e"], "safe"),
        helper.make_node("Sqrt", ["e"], ["r"], "root"),
        helper.make_node("Div", ["d", "r"], ["n"], "normal"),
        helper.make_node("Mul", ["n", "gain"], ["y"], "gain"),
    ]
    constants = {"w": draw(8, 8), "two": np.float32(2), "eps": np.float32(1e-12), "gain": draw(8)}
    return model(nodes, {"x": (F, ["n", 8])}, {"y": F}, initializers=constants)


@pytest.mark.parametrize("power", [True, False])
def test_statistics_stay_wide_and_what_follows_does_not(power, lowered):
    proto = norm(power)
    narrow, kept = lowered(proto)
    wide = {name for names in kept.values() for name in names}
    assert wide >= {"mean", "centred", "variance", "safe", "root", "normal"} and not wide & {"product", "gain"}
    same(proto, narrow, {"x": draw(5, 8, scale=300)})


def masked(number: float, how: str) -> onnx.ModelProto:
    """Attention weights under a mask of int64 [n, 6], 1: seen."""
    mask = [
        helper.make_node("Cast", ["mask"], ["f"], "float", to=F),
        helper.make_node("Sub", ["one", "f"], ["hidden"], "hidden"),
        helper.make_node("Mul", ["hidden", "far"], ["bias"], "bias"),
        helper.make_node("Add", ["scores", "bias"], ["s"], "masked"),
    ]
    where = [
        helper.make_node("Cast", ["mask"], ["b"], "bool", to=BOOL),
        helper.make_node("Where", ["b", "scores", "far"], ["s"], "masked"),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["scores"], "scores"),
        *(mask if how == "mul" else where),
        helper.make_node("Softmax", ["s"], ["y"], "weights"),
    ]
    constants = {"w": draw(4, 6), "far": np.float32(number), **({"one": np.float32(1)} if how == "mul" else {})}
    return model(nodes, {"x": (F, ["n", 4]), "mask": (INT, ["n", 6])}, {"y": F}, initializers=constants)


LEAST = float(np.finfo(np.float32).min)


@pytest.mark.parametrize(("number", "how"), [*((n, how) for n in (-1e4, -1e9, LEAST) for how in ("mul", "where")), (-np.inf, "where")])
def test_masks_far_below_what_the_type_holds(number, how, lowered):
    proto = masked(number, how)
    narrow, _ = lowered(proto)
    seen = np.array([[1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]])
    same(proto, narrow, {"x": draw(3, 4), "mask": seen})


def test_rows_without_a_token_are_no_nan(lowered):
    proto = masked(LEAST, "mul")
    narrow, _ = lowered(proto)
    assert np.isfinite(run(narrow.SerializeToString(), {"x": draw(3, 4, scale=0.1), "mask": np.zeros((3, 6), np.int64)})[0]).all()


@pytest.mark.parametrize(
    ("weight", "why"),
    [(draw(4, 3, scale=1e5), "constants beyond the type's end"), (draw(4, 3, scale=1e-6), "constants that are all below")],
)
def test_weights_that_the_type_does_not_hold_stay_wide(weight, why, lowered):
    nodes = [helper.make_node("MatMul", ["x", "v"], ["h"], "fine"), helper.make_node("MatMul", ["h", "w"], ["y"], "beyond")]
    proto = model(nodes, {"x": (F, ["n", 4])}, {"y": F}, initializers={"w": weight, "v": draw(4, 4)})
    narrow, kept = lowered(proto)
    ((reason, names),) = kept.items()
    assert reason.startswith(why) and names == ["beyond"]
    assert types(narrow) == {"w": F, "v": TensorProto.FLOAT16}
    same(proto, narrow, {"x": draw(5, 4)})


def test_positions_are_counted_exactly(lowered):
    """Rotary angles as exporters write them: position 60001 is no float16."""
    nodes = [
        helper.make_node("Cast", ["ids"], ["p"], "cast", to=F),
        helper.make_node("Unsqueeze", ["p", "last"], ["column"], "column"),
        helper.make_node("MatMul", ["column", "freq"], ["angles"], "angles"),
        helper.make_node("Concat", ["angles", "angles"], ["both"], "both", axis=-1),
        helper.make_node("Cos", ["both"], ["cos"], "cos"),
        helper.make_node("Mul", ["x", "cos"], ["y"], "turned"),
    ]
    constants = {"last": np.array([-1]), "freq": np.array([[1, 0.1, 1e-3]], np.float32)}
    proto = model(nodes, {"ids": (INT, [4]), "x": (F, [4, 6])}, {"y": F}, initializers=constants)
    narrow, kept = lowered(proto)
    assert "turned" not in {name for names in kept.values() for name in names}
    same(proto, narrow, {"ids": np.array([0, 7, 2049, 60001]), "x": draw(4, 6)})


def test_sizes_are_counted_exactly(lowered):
    """An exporter's way to double a picture: lengths as floats, times two, floored, and back."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], "shape"),
        helper.make_node("Cast", ["shape"], ["lengths"], "float", to=F),
        helper.make_node("Mul", ["lengths", "scales"], ["scaled"], "scaled"),
        helper.make_node("Floor", ["scaled"], ["whole"], "floor"),
        helper.make_node("Cast", ["whole"], ["sizes"], "int", to=INT),
        helper.make_node("Resize", ["x", "", "", "sizes"], ["r"], "resize", mode="linear"),
        helper.make_node("ReduceMax", ["r"], ["y"], "top", axes=[2, 3]),
    ]
    proto = model(nodes, {"x": (F, [1, 1, 1, "w"])}, {"y": F}, initializers={"scales": np.array([1, 1, 1, 1.5], np.float32)})
    narrow, _ = lowered(proto)
    same(proto, narrow, {"x": draw(1, 1, 1, 2051)})


def test_scales_of_resize_stay_float32(lowered):
    nodes = [helper.make_node("Resize", ["x", "", "scales"], ["r"], "resize"), helper.make_node("Relu", ["r"], ["y"], "relu")]
    proto = model(nodes, {"x": (F, [1, 1, 4, 4])}, {"y": F}, initializers={"scales": np.array([1, 1, 2, 2], np.float32)})
    narrow, kept = lowered(proto)
    assert types(narrow) == {"scales": F} and not kept
    same(proto, narrow, {"x": draw(1, 1, 4, 4)})


def test_a_bound_beyond_the_end_is_the_end(lowered):
    nodes = [helper.make_node("Clip", ["x", "low", "high"], ["y"], "relu")]
    proto = model(nodes, {"x": (F, [4, 4])}, {"y": F}, initializers={"low": np.float32(0), "high": np.float32(np.finfo(np.float32).max)})
    narrow, kept = lowered(proto)
    assert not kept
    same(proto, narrow, {"x": draw(4, 4)})


def test_a_constant_that_both_kinds_read_is_there_twice(lowered):
    nodes = [
        helper.make_node("Mul", ["x", "c"], ["m"], "narrow"),
        helper.make_node("Pow", ["x", "c"], ["p"], "wide"),
        helper.make_node("MatMul", ["m", "p"], ["y"], "product"),
    ]
    proto = model(nodes, {"x": (F, [3, 3])}, {"y": F}, initializers={"c": np.full((3, 3), 2, np.float32)})
    narrow, _ = lowered(proto)
    assert types(narrow) == {"c": F, "c.fp16": TensorProto.FLOAT16}
    same(proto, narrow, {"x": draw(3, 3)})


def test_a_value_that_is_given_out_and_read_on(lowered):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], "first"), helper.make_node("MatMul", ["h", "w"], ["y"], "last")]
    proto = model(nodes, {"x": (F, [3, 3])}, {"h": F, "y": F}, initializers={"w": draw(3, 3)})
    narrow, _ = lowered(proto)
    assert operators(narrow).count("Cast") == 3
    same(proto, narrow, {"x": draw(3, 3)})


def branch(name: str, weight: np.ndarray, outside: str) -> onnx.GraphProto:
    """A branch with a constant of its own and one of the graph around it."""
    nodes = [
        helper.make_node("MatMul", [outside, f"{name}.w"], [f"{name}.h"], f"{name}.product"),
        helper.make_node("Add", [f"{name}.h", "shared"], [f"{name}.y"], f"{name}.add"),
    ]
    made = helper.make_tensor_value_info(f"{name}.y", F, ["n", 3])
    return helper.make_graph(nodes, name, [], [made], [numpy_helper.from_array(weight, f"{name}.w")])


def test_branches(lowered):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "before"),
        helper.make_node(
            "If", ["which"], ["i"], "if", then_branch=branch("then", draw(3, 3), "h"), else_branch=branch("else", draw(3, 3), "h")
        ),
        helper.make_node("MatMul", ["i", "w"], ["y"], "behind"),
    ]
    constants = {"w": draw(3, 3), "shared": draw(3)}
    proto = model(nodes, {"x": (F, ["n", 3]), "which": (BOOL, [])}, {"y": F}, initializers=constants)
    narrow, kept = lowered(proto)
    inner = next(node for node in narrow.graph.node if node.op_type == "If").attribute[0].g
    assert inner.initializer[0].data_type == TensorProto.FLOAT16
    assert {name for names in kept.values() for name in names} == {"if"}
    for which in (True, False):
        same(proto, narrow, {"x": draw(2, 3), "which": np.array(which)})


def test_loops(lowered):
    """x ← tanh(x · w), three times; every turn's x is given out, too."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "w"], ["h"], "product"),
            helper.make_node("Tanh", ["h"], ["next"], "tanh"),
            helper.make_node("Identity", ["go"], ["going"], "go"),
            helper.make_node("Identity", ["next"], ["seen"], "seen"),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", INT, []),
            helper.make_tensor_value_info("go", BOOL, []),
            helper.make_tensor_value_info("state", F, [3, 3]),
        ],
        [
            helper.make_tensor_value_info("going", BOOL, []),
            helper.make_tensor_value_info("next", F, [3, 3]),
            helper.make_tensor_value_info("seen", F, [3, 3]),
        ],
    )
    nodes = [helper.make_node("Loop", ["turns", "", "x"], ["y", "all"], "loop", body=body)]
    proto = model(nodes, {"x": (F, [3, 3])}, {"y": F, "all": F}, initializers={"w": draw(3, 3), "turns": np.array(3)})
    for value, shape in zip(proto.graph.output, ([3, 3], [3, 3, 3]), strict=True):
        value.CopyFrom(helper.make_tensor_value_info(value.name, F, shape))
    narrow, _ = lowered(proto)
    assert types(narrow)["w"] == TensorProto.FLOAT16
    same(proto, narrow, {"x": draw(3, 3)})


def test_operators_of_others_get_what_they_had(lowered, saved):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "product"),
        helper.make_node("Gelu", ["h"], ["g"], "foreign", domain="com.microsoft"),
        helper.make_node("MatMul", ["g", "w"], ["y"], "behind"),
    ]
    proto = model(nodes, {"x": (F, [3, 3])}, {"y": F}, initializers={"w": draw(3, 3)}, imports=["com.microsoft"])
    found = load(saved(proto), known_operators=False)
    kept = lower_precision(found, FP16)
    assert kept["operators of com.microsoft"] == ["foreign"]
    same(proto, ir.serde.serialize_model(found), {"x": draw(3, 3)})


def test_local_functions_are_written_out(lowered):
    function = helper.make_function(
        "mine", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"], "add")], [helper.make_opsetid("", 17)]
    )
    nodes = [helper.make_node("Twice", ["x"], ["y"], "call", domain="mine")]
    proto = model(nodes, {"x": (F, [3])}, {"y": F}, functions=[function], imports=["mine"])
    narrow, _ = lowered(proto)
    assert not narrow.functions and "Add" in operators(narrow)
    same(proto, narrow, {"x": draw(3)})


def test_a_graph_without_floats_is_refused(lowered):
    proto = model([helper.make_node("Add", ["x", "x"], ["y"], "add")], {"x": (INT, [3])}, {"y": INT})
    with pytest.raises(UnsupportedError, match="nothing of this graph can compute in fp16: it has no float32"):
        lowered(proto)


def test_weights_beside_the_graph_are_rounded_as_they_are_written(saved, tmp_path, monkeypatch):
    """One tensor at a time, straight into the new data file."""
    monkeypatch.setattr(write, "EMBED_BYTES", 1 << 16)
    weights = {f"w{index}": draw(128, 128) for index in range(9)}
    nodes = [helper.make_node("MatMul", [f"h{index}", f"w{index}"], [f"h{index + 1}"], f"product{index}") for index in range(9)]
    found = load(saved(model(nodes, {"h0": (F, [1, 128])}, {"h9": F}, initializers=weights), external=True))
    assert lower_precision(found, FP16) == {}
    (tmp_path / "out").mkdir()
    files = write.save(found, tmp_path / "out")
    assert files["model.onnx.data"]["size"] >= 9 * 128 * 128 * 2 and files["model.onnx"]["size"] < 10_000
    again = load(tmp_path / "out" / "model.onnx")
    np.testing.assert_array_equal(again.graph.initializers["w3"].const_value.numpy(), weights["w3"].astype(np.float16))


@pytest.mark.slow
def test_the_standards_own_examples():
    """Every node test that onnx brings, of float32 and known to ONNX Runtime: each operator in every form, the wide ones among them."""
    import warnings

    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = list(collect_testcases(None))
    compared, wrong = 0, []
    for case in cases:
        feeds = _feeds(case)
        try:
            want = run(case.model.SerializeToString(), feeds)
        except Exception:  # noqa: BLE001 - sequences, opsets and operators that ONNX Runtime has not: it raises in its own ways
            continue
        try:
            found = ir.serde.deserialize_model(case.model)
            lower_precision(found, FP16)
        except UnsupportedError:  # nothing of float32 in it
            continue
        got = run(ir.serde.serialize_model(found).SerializeToString(), feeds)
        compared += 1
        if not all(map(_near, want, got)):
            wrong.append(case.name)
    assert wrong in ([], ["test_quantizelinear_int16"])  # whose codes are finer than float16
    assert compared > 500


def _feeds(case) -> dict[str, np.ndarray]:
    inputs, _ = case.data_sets[0]
    return {value.name: array for value, array in zip(case.model.graph.input, inputs, strict=False)}


def _near(want, got) -> bool:
    if not isinstance(want, np.ndarray):
        return True
    if (want.dtype, want.shape) != (got.dtype, got.shape) or want.dtype.kind != "f":
        return (want.dtype, want.shape) == (got.dtype, got.shape) and bool((want == got).all())
    finite = np.isfinite(want)
    gap = np.abs(want[finite] - got[finite]).max(initial=0) if (np.isfinite(got) == finite).all() else np.inf
    return bool(gap <= 2e-2 * max(np.abs(want[finite]).max(initial=0), 1e-6))
