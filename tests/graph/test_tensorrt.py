"""The static-cache graph is one that TensorRT's own builder takes, on a machine without a GPU (TensorRT-RTX, compute capability 8.9)."""

from __future__ import annotations

import onnx
import pytest

from ernie_cli import route

trt = pytest.importorskip(
    "tensorrt_rtx_bindings", reason="needs the TensorRT-RTX wheels: pip install 'ernie-cli[rtx]' (Linux and Windows on x86-64)"
)

SLOTS, PROMPT = 128, 64


def _bind_slots(graph: onnx.ModelProto) -> bytes:
    """The same graph with the length of its caches fixed: TensorRT wants it static, ONNX Runtime does not."""
    for value in [*graph.graph.input, *graph.graph.output]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == "slots":
                dim.dim_value = SLOTS
    return graph.SerializeToString()


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_an_engine_with_prefill_and_decode_profiles_is_built(dtype, checkpoint, tmp_path):
    folder, _ = checkpoint(dtype="bfloat16")
    made = route.convert(folder, to="onnx", out=tmp_path / "onnx", options=route.Options(dtype=dtype, verify=False))
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    parsed = parser.parse(_bind_slots(onnx.load(made.main_file())))
    assert parsed, [str(parser.get_error(number)) for number in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    for longest in (PROMPT, 1):
        profile = builder.create_optimization_profile()
        for number in range(network.num_inputs):
            tensor = network.get_input(number)
            fixed = {"input_ids": [(1, 1), (1, longest), (1, longest)], "positions": [(1,)] * 3}
            profile.set_shape(tensor.name, *fixed.get(tensor.name, [(1, *list(tensor.shape)[1:])] * 3))
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None
    assert plan.nbytes > 100_000
