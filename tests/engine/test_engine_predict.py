"""What an engine will need, foreseen from its graph: by hand on small graphs, against quantised files, against TensorRT-RTX itself."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from ernie_cli import app, device, host, nano, route
from ernie_cli.engine import builder, figures, fits, liveness, log, narrow_weights, predict, shapes, sizes
from ernie_cli.engine.options import Options
from ernie_cli.engine.request import Request
from ernie_cli.errors import ResourceError
from ernie_cli.model import Model
from ernie_cli.quant.options import Options as Quantising
from ernie_cli.quant.quantize import quantize
from ernie_cli.quant.source import open_source

FP16 = ir.TensorType(ir.DataType.FLOAT16)
NANO = Model.open(nano.path())
HIDDEN, INNER, WORDS, LAYERS, HEADS, KEYS, WIDTH = 64, 160, 256, 2, 4, 2, 32


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A checkpoint of two layers, all zeros: quick to look at again and again."""
    from safetensors.numpy import save_file

    folder = tmp_path_factory.mktemp("decoder")
    config = {
        "model_type": "ernie4_5", "architectures": ["Ernie4_5ForCausalLM"], "hidden_size": HIDDEN, "intermediate_size": INNER,
        "vocab_size": WORDS, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KEYS, "head_dim": WIDTH,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    shapes_of = {"model.embed_tokens.weight": (WORDS, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        for name, shape in {
            "input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,),
            "self_attn.q_proj": (HEADS * WIDTH, HIDDEN), "self_attn.k_proj": (KEYS * WIDTH, HIDDEN),
            "self_attn.v_proj": (KEYS * WIDTH, HIDDEN), "self_attn.o_proj": (HIDDEN, HEADS * WIDTH),
            "mlp.gate_proj": (INNER, HIDDEN), "mlp.up_proj": (INNER, HIDDEN), "mlp.down_proj": (HIDDEN, INNER),
        }.items():  # fmt: skip
            shapes_of[f"model.layers.{layer}.{name}.weight"] = shape
    save_file({name: np.zeros(shape, np.float16) for name, shape in shapes_of.items()}, folder / "model.safetensors")
    return Model.open(folder)


def graph_of(lines: str, width: int = 100) -> ir.Graph:
    """ "y = MatMul x w" lines over fp16 vectors of `width`; x is the input, w a constant, the last line's value the output."""
    x = ir.Value(name="x", type=FP16, shape=ir.Shape([1, width]))
    tensor = ir.tensor(np.zeros((width, width), np.float16), name="w")
    w = ir.Value(name="w", type=FP16, shape=ir.Shape(tensor.shape), const_value=tensor)
    values, nodes = {"x": x, "w": w}, []
    for line in lines.strip().splitlines():
        name, operator, *read = line.replace("=", "").split()
        values[name] = ir.Value(name=name, type=FP16, shape=ir.Shape([1, width]))
        nodes.append(ir.node(operator, [values[each] for each in read], outputs=[values[name]], name=name))
    return ir.Graph([x], [nodes[-1].outputs[0]], nodes=nodes, initializers=[w], opset_imports={"": 24}, name="g")


@pytest.mark.parametrize(
    ("lines", "vectors", "why"),
    [
        ("a = MatMul x w\nb = MatMul a w\nc = MatMul b w", 2, "one is read while the next is written"),
        ("a = MatMul x w\nb = Relu a\nc = MatMul b w", 2, "a product's epilogue here is Add alone: a is written, b beside it"),
        ("a = MatMul x w\nb = Add a x\nc = MatMul b w", 1, "the sum is made on the way out"),
        ("a = Conv x w\nb = Relu a\nc = Conv b w", 1, "so is a convolution's activation"),
        ("a = Relu x\nb = Tanh a\nc = Exp b", 0, "element-wise chains leave nothing in between"),
        ("a = MatMul x w\nb = MatMul a w\nc = MatMul b w\nd = Add c a", 2, "a waits for its residual"),
        ("a = MatMul x w\nb = Reshape a w\nc = MatMul b w", 1, "a view is no copy"),
        ("a = DequantizeLinear w w\nb = MatMul x a", 0, "weights are no activations"),
    ],
)
def test_what_lives_at_once(lines, vectors, why):
    assert liveness.peak(graph_of(lines), sizes.n_bytes).peak == vectors * 200, why


def test_sizes_that_nobody_knows_are_counted():
    graph = graph_of("a = MatMul x w\nb = MatMul a w\nc = MatMul b w")
    graph[0].outputs[0].shape = None
    assert liveness.peak(graph, sizes.n_bytes).unknown == 1


def test_every_shape_of_the_decoder_follows_from_its_inputs():
    graph = open_source(NANO, dtype="fp16", kv_cache="static")
    lengths = {
        str(value.name): [{"batch": 2, "sequence": 5, "slots": 64}.get(str(axis), axis) for axis in value.shape]
        for value in graph.graph.inputs
    }
    lengths = {name: [int(str(axis)) for axis in shape] for name, shape in lengths.items()}
    known = sizes.at_lengths(graph, lengths).graph
    assert [value.name for node in known for value in node.outputs if sizes.n_bytes(value) is None] == []
    assert known.outputs[0].shape == [2, 1536]


@pytest.fixture(scope="module")
def floats(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The embedded model's graph in fp16."""
    options = route.Options(dtype="fp16", kv_cache="static", verify=False)
    return route.convert(nano.path(), to="onnx", out=tmp_path_factory.mktemp("floats") / "fp16", options=options)


@pytest.mark.parametrize("scheme", ["int8", "fp8", "int8-weight", "int4", "int8-kv"])
def test_a_scheme_is_foreseen_as_quantising_then_writes_it(scheme, floats, tmp_path):
    made = predict.Foresight(quantize(floats, scheme, tmp_path / "out", Quantising(measure=False, samples=2)))
    assert made.scheme is None
    lengths = shapes.decoder_shapes(NANO, Options(context=256))
    built = made.at(lengths)
    for source in (NANO, floats):
        foreseen = predict.Foresight(source, scheme).at(lengths)
        for name in ("weight_bytes", "cache_bytes", "io_bytes", "plan_bytes", "activation_bytes", "device_total"):
            assert getattr(foreseen, name) == getattr(built, name), name
        assert foreseen.host_peak_bytes == pytest.approx(built.host_peak_bytes, rel=0.02)  # how the file lies is not yet known


def test_a_graph_that_will_be_lowered_weighs_half_and_keeps_its_inputs(tmp_path):
    made = route.convert(nano.path(), to="onnx", out=tmp_path / "fp32", options=route.Options(kv_cache="static", verify=False))
    lengths = shapes.shapes(made, Options(context=128))
    wide, narrow = (predict.predict(made, lengths, precision=kind) for kind in ("fp32", "fp16"))
    assert narrow.weight_bytes == pytest.approx(wide.weight_bytes / 2, rel=0.01)
    assert narrow.cache_bytes == wide.cache_bytes // 2 and narrow.io_bytes == wide.io_bytes
    assert max(narrow.activation_bytes.values()) < max(wide.activation_bytes.values())


Foreseen = tuple[predict.Prediction, shapes.Shapes, Options]


@pytest.fixture
def foresee(decoder: Model) -> Callable[..., Foreseen]:
    """`foresee(context, batch, precision)` → what `ernie build` would find before it builds."""

    def found(context: int = 512, batch: int = 1, precision: str = "fp16") -> Foreseen:
        options, foresight = Options(context=context, batch=batch), predict.Foresight(decoder, precision)
        lengths = foresight.shapes(options)
        return foresight.at(lengths), lengths, options

    return found


def holding(n_bytes: int, name: str = "rtx4090") -> device.Device:
    """A device with so much memory."""
    return replace(device.load(name), memory_gb=n_bytes / 1e9)


def test_a_longer_context_and_a_larger_batch_need_more(foresee):
    small, wide, long = foresee(256)[0], foresee(256, batch=4)[0], foresee(1024)[0]
    per_token = 2 * LAYERS * KEYS * WIDTH * 2  # keys and values, 2 bytes each
    assert small.cache_bytes == 256 * per_token and wide.cache_bytes == 4 * small.cache_bytes == long.cache_bytes
    assert set(small.activation_bytes) == {"prefill", "decode"}
    assert small.activation_bytes["decode"] <= small.activation_bytes["prefill"] <= wide.activation_bytes["prefill"]
    assert small.unknown == wide.unknown == 0


def test_a_profile_of_one_shape_beside_one_of_several_keeps_weights_twice(foresee):
    once, twice = foresee(batch=2)[0].weight_bytes, foresee(batch=1)[0].weight_bytes
    products = LAYERS * 2 * HIDDEN * (WIDTH * (2 * HEADS + 2 * KEYS) + 3 * INNER)
    assert twice - once == int(figures.SECOND_LAYOUT * products)


def test_what_does_not_fit_is_refused_with_what_would(foresee):
    foreseen, lengths, options = foresee(512, batch=4)
    small = holding(foreseen.device_total - foreseen.cache_bytes // 3)
    with pytest.raises(ResourceError, match=r"rtx4090 cannot hold this engine: .* \(weights .*, cache .*, activations .*\)") as refused:
        predict.check(foreseen, small, lengths, options)
    assert refused.value.exit_code == 7
    said = re.fullmatch(r"these would fit: --context (\d+), or --batch (\d+)(, or --precision .*)?", refused.value.hint)
    assert said, refused.value.hint
    room = fits.device_room(small) or 0
    context, batch = int(said[1]), int(said[2])
    assert [foresee(length, batch=4)[0].device_total <= room for length in (context, context + 64)] == [True, False]
    assert [foresee(512, batch=rows)[0].device_total <= room for rows in (batch, batch + 1)] == [True, False]


@pytest.mark.parametrize("precision", ["int8-weight", "int4"])
def test_a_narrower_precision_is_named_where_it_would_do(precision, foresee, monkeypatch):
    monkeypatch.setattr(narrow_weights, "LEAST_ROWS", 1)  # of so small a model a second row takes more than narrow weights save
    foreseen, lengths, options = foresee(64)
    room = foresee(64, precision=precision)[0].device_total
    with pytest.raises(ResourceError) as refused:
        predict.check(foreseen, holding(room + 1), lengths, options)
    assert refused.value.hint == f"these would fit: --precision {precision}"


def test_the_command_says_so_before_any_work(decoder, tmp_path, capsys):
    pytest.importorskip("tensorrt_rtx_bindings", reason="needs the TensorRT-RTX wheels: pip install 'ernie-cli[rtx]'")
    command = ["build", str(decoder.path), "--device", "t4", "--context", "131072", "--batch", "512", "-o", str(tmp_path / "out")]
    assert app.main(command) == 7
    said = capsys.readouterr().err
    assert "error: t4 cannot hold this engine" in said and re.search(r"hint: these would fit: --context \d+, or --batch \d+", said)
    assert not list(tmp_path.iterdir())


def test_where_nothing_helps_a_device_is_named_that_would(foresee):
    foreseen, lengths, options = foresee(64)
    with pytest.raises(ResourceError, match="of 0 B") as refused:
        predict.check(foreseen, holding(0), lengths, options)
    assert "--device t4" in refused.value.hint


@pytest.mark.parametrize(("room", "most"), [(9, 0), (10, 1), (99, 9), (100, 10), (5000, 29), (10**9, 29)])
def test_the_largest_that_fits_is_found(room, most):
    assert fits._largest(lambda n: 10 * n, room, 30) == most
    assert fits._largest(lambda n: 10 * n if n < 7 else 10**6 * n, min(room, 10**5), 30) == min(most, 6)


def test_what_is_proposed_is_foreseen_with_its_own_shapes(decoder):
    """Engines of int8 weights are built for two rows (narrow_weights.py): in between, int4 is the nearest that fits."""
    options = Options(context=8192)
    totals = {}
    for kind in ("fp16", "int8-weight"):
        foresight = predict.Foresight(decoder, kind)
        totals[kind] = foresight.at(foresight.shapes(options)).device_total
    foresight = predict.Foresight(decoder, "fp16")
    foreseen = foresight.at(lengths := foresight.shapes(options))
    room = min(totals["fp16"], totals["int8-weight"]) - 1
    with pytest.raises(ResourceError) as refused:
        predict.check(foreseen, holding(room), lengths, options)
    assert "int8-weight" not in refused.value.hint


def test_a_model_that_cannot_be_quantised_is_not_proposed_to_be(tmp_path):
    """Its operators are of an opset that cannot be raised: the device is too small, and that is what is said."""
    shape, pad = ["n", 64], {"paddings": [0, 0, 0, 0]}
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("x", "y")]
    weight = onnx.numpy_helper.from_array(np.zeros((64, 64), np.float32), "w")
    nodes = [onnx.helper.make_node("Pad", ["x"], ["p"], **pad), onnx.helper.make_node("MatMul", ["p", "w"], ["y"])]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 1)], ir_version=3), tmp_path / "m.onnx")
    model, options = Model.open(tmp_path / "m.onnx"), Options(shapes=("x:1x64,1x64,200000000x64",))
    foresight = predict.Foresight(model)
    lengths = foresight.shapes(options)
    with pytest.raises(ResourceError, match="rtx4090 cannot hold this engine"):
        predict.check(foresight.at(lengths), device.load("rtx4090"), lengths, options)


def test_an_input_that_is_called_cache_is_no_cache(tmp_path):
    """Only decoders' caches are counted by the rows that were asked for."""
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 4096]) for name in ("cache.x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["cache.x"], ["y"])], "g", ends[:1], ends[1:])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    model = Model.open(tmp_path / "m.onnx")
    foreseen = predict.predict(model, shapes.shapes(model, Options(shapes=("cache.x:1x4096,1x4096,64x4096",))))
    assert foreseen.cache_bytes == 64 * 4096 * 4


def test_rows_of_any_other_model_are_named(tmp_path):
    """A vision model: its batch is typed with --shape."""
    model = vision_model(tmp_path / "model.onnx")
    options = Options(shapes=("x:1x3x64x64,8x3x64x64,16x3x64x64",))
    lengths = shapes.shapes(model, options)
    foreseen = predict.predict(model, lengths, precision="fp32")
    assert foreseen.io_bytes == 16 * 4 * 64 * 64 * (3 + 8) and foreseen.cache_bytes == 0
    with pytest.raises(ResourceError) as refused:
        predict.check(foreseen, holding(foreseen.device_total - foreseen.io_bytes // 2), lengths, options)
    rows = int(re.search(r"at most (\d+) rows \(--shape\)", refused.value.hint)[1])
    assert 4 <= rows < 16


def vision_model(file: Path) -> Model:
    """x [batch, 3, h, w] → two convolutions → y [batch, 8, h, w]."""
    kind, lengths = ir.TensorType(ir.DataType.FLOAT), ["batch", 3, "h", "w"]
    x = ir.Value(name="x", type=kind, shape=ir.Shape(lengths))
    weights = [ir.tensor(np.zeros(shape, np.float32), name=f"w{at}") for at, shape in enumerate(((16, 3, 3, 3), (8, 16, 3, 3)))]
    stored = [ir.Value(name=each.name, type=kind, shape=ir.Shape(each.shape), const_value=each) for each in weights]
    first = ir.node("Conv", [x, stored[0]], {"pads": [1, 1, 1, 1]}, name="first")
    second = ir.node("Conv", [first.outputs[0], stored[1]], {"pads": [1, 1, 1, 1]}, name="second")
    y = second.outputs[0]
    y.name, y.type, y.shape = "y", kind, ir.Shape(["batch", 8, "h", "w"])
    graph = ir.Graph([x], [y], nodes=[first, second], initializers=stored, opset_imports={"": 17}, name="g")
    ir.save(ir.Model(graph, ir_version=10), file)
    return Model.open(file)


def test_a_device_of_unknown_memory_refuses_nothing(foresee):
    foreseen, lengths, options = foresee()
    predict.check(foreseen, replace(device.load("rtx4090"), memory_gb=None), lengths, options)


def test_memory_shared_with_the_processor_is_not_all_for_the_engine():
    assert fits.device_room(device.load("jetson-orin-nano")) == 8_000_000_000 - fits.SHARED_BYTES


@pytest.mark.parametrize(("total", "available", "refused"), [(0.5, 0.5, True), (1.0, 0.5, False), (4.0, 2.0, False)])
def test_this_machine_must_be_able_to_build_it(total, available, refused, monkeypatch, capsys, foresee):
    foreseen, lengths, options = foresee()
    room = host.Memory(*(int(share * foreseen.host_peak_bytes) for share in (total, available)), None)
    monkeypatch.setattr(host, "memory", lambda: room)
    if refused:
        with pytest.raises(ResourceError, match="this machine's memory"):
            predict.check(foreseen, device.load("rtx4090"), lengths, options)
    else:
        predict.check(foreseen, device.load("rtx4090"), lengths, options)
        assert ("it may fail" in capsys.readouterr().err) == (available < 1)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "off"), [("fp16", 0.1), ("int4", 0.35)])
def test_what_tensorrt_then_reports(precision, off, tmp_path):
    """Of a model as small as nano a few shapes decide how weights are laid out; RESULTS.md has larger ones, which come closer."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="needs the TensorRT-RTX wheels: pip install 'ernie-cli[rtx]'")
    made = route.convert(
        nano.path(), to="onnx", out=tmp_path / "onnx", options=route.Options(dtype="fp16", kv_cache="static", verify=False)
    )
    if precision != "fp16":
        made = quantize(made, precision, tmp_path / precision, Quantising(measure=False))
    lengths = shapes.shapes(made, Options(context=512))
    foreseen = predict.predict(made, lengths)
    request = Request(str(made.main_file()), "tensorrt-rtx", ("8.9",), fixed=lengths.fixed, profiles=lengths.profiles)
    (tmp_path / "engine").mkdir()
    built = builder.build(request, tmp_path / "engine")
    said = log.read(built.log)
    assert foreseen.weight_bytes == pytest.approx(said.weight_bytes, rel=off)
    assert foreseen.plan_bytes == pytest.approx(built.plan.stat().st_size, rel=0.2)
    assert list(foreseen.activation_bytes.values()) == pytest.approx(said.activation_bytes, rel=0.1, abs=4096)
    assert foreseen.host_peak_bytes == pytest.approx(built.peak_host_bytes, rel=0.2)


def test_texts_among_the_constants_have_no_size(tmp_path):
    """Whether a library takes them is for its parser to say; what is foreseen stands without them."""
    weights = [
        onnx.numpy_helper.from_array(np.zeros((64, 32), np.float32), "w"),
        onnx.numpy_helper.from_array(np.array(["a", "b"], object), "s"),
    ]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", width]) for name, width in (("x", 64), ("y", 32))]
    texts = onnx.helper.make_tensor_value_info("t", onnx.TensorProto.STRING, [2])
    nodes = [onnx.helper.make_node("MatMul", ["x", "w"], ["y"]), onnx.helper.make_node("Identity", ["s"], ["t"])]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], [ends[1], texts], weights)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    model = Model.open(tmp_path / "m.onnx")
    foreseen = predict.predict(model, shapes.shapes(model, Options(shapes=("x:1x64,1x64,8x64",))))
    assert foreseen.weight_bytes == 64 * 32 * 4
