"""The builder's log, line by line: what is taken from it, in the words of TensorRT-RTX 1.7 and of older libraries."""

from __future__ import annotations

import pytest

from ernie_cli.engine import log
from ernie_cli.errors import InputError

LAYER = (
    "Name: {name}, LayerType: kgen, Inputs: [ {{ Name: x{tag}, Dimensions: [1,-1], Strides: [-1,1], StrideOrder: [1,0], Datatype: Half, "
    "Format: (Linear) Row major linear format }}], Constants: [ {{ Name: w, Dimensions: [4], Strides: [1], StrideOrder: [0], "
    "Datatype: Int8, Format: (Linear) Row major linear format }}], Outputs: [ {{ Name: a, Dimensions: [1,1], Strides: [1,1], "
    "StrideOrder: [1,0], Datatype: Float, Format: (Linear) Row major linear format }}, {{ Name: b, Dimensions: [1,1], Strides: [1,1], "
    "StrideOrder: [1,0], Datatype: Half, Format: (Linear) Row major linear format }}], TacticName: t_0x1, StreamId: 0, "
    "Metadata: {metadata}"
)
OLDER = (
    "Name: conv + relu, LayerType: CaskConvolution, Inputs: [ { Name: x, Location: Device, Dimensions: [1,3,8,8], "
    "Format/Datatype: Row major linear FP32 format }], Outputs: [ { Name: y, Location: Device, Dimensions: [1,8,8,8], "
    "Format/Datatype: Channel major FP16 format where channel % 8 == 0 }], ParameterType: Convolution, Kernel: [3,3], "
    "TacticName: sm80_xmma, TacticValue: 0x2, StreamId: 0, Metadata: [ONNX Layer: conv]\x1e[ONNX Layer: relu]"
)


def layer(name="l", tag="", metadata="[ONNX Layer: n]"):
    return LAYER.format(name=name, tag=tag, metadata=metadata)


def read(tmp_path, *lines):
    file = tmp_path / "build.log"
    file.write_bytes("\n".join(lines).encode())
    return log.read(file)


@pytest.mark.parametrize(
    ("metadata", "names"),
    [
        ("", ()),
        ("[ONNX Layer: a]", ("a",)),
        ("[ONNX Layer: a]\x1f[ONNX Layer: b]", ("a", "b")),
        ("[ONNX Layer: a]\x1e[ONNX Layer: b]", ("a", "b")),
        ("[ONNX Layer: a][ONNX Layer: b]", ("a", "b")),
        ("[ONNX Layer: odd [x], Metadata: ][]\x1f[ONNX Layer: ]", ("odd [x], Metadata: ][", "")),
        ("\x1f".join(f"[ONNX Layer: {number:05}]" for number in range(5000)), tuple(f"{number:05}" for number in range(5000))),
        ("somebody's own text", ()),
    ],
)
def test_names_of_nodes(metadata, names, tmp_path):
    assert log.names(metadata) == names
    assert read(tmp_path, layer(metadata=metadata)).layers[0].nodes == names


def test_a_layer(tmp_path):
    assert read(tmp_path, layer()).layers == [log.Layer("l", "kgen", 0, ("n",), ("fp16", "int8"), ("fp32", "fp16"), "t_0x1")]


def test_a_layer_of_tensorrt_10(tmp_path):
    expected = log.Layer("conv + relu", "CaskConvolution", 0, ("conv", "relu"), ("fp32",), ("fp16",), "sm80_xmma")
    assert read(tmp_path, OLDER).layers == [expected]


def test_the_profile_of_a_layer_is_that_of_its_subgraph(tmp_path):
    """Only tensors at the border of a subgraph carry the profile's number."""
    names = [("a_myl0_0", ""), ("b_myl0_1", ""), ("c_myl1_0", " [profile 1]"), ("d_myl1_1", ""), ("e [profile 2]", ""), ("f", "")]
    found = read(tmp_path, *(layer(name, tag) for name, tag in names)).layers
    assert [each.profile for each in found] == [0, 0, 1, 1, 2, 0]


@pytest.mark.parametrize(
    ("line", "attribute", "value"),
    [
        ("VERBOSE: Parsing node: a [b] [Add]", "parsed", {"a [b]"}),
        ("VERBOSE: Static check for parsing node: a [Add]", "parsed", set()),
        ("VERBOSE: Registering layer: a_54 for ONNX node: a", "registered", {"a"}),
        ("VERBOSE: Registering attention: a for ONNX node: a", "registered", {"a"}),
        ("VERBOSE: Registering layer: ONNXTRT_castHelper required by ONNX-TRT", "registered", set()),
        ("VERBOSE: ForeignNode {ForeignNode[a...b]} [profile 1] metadata: [ONNX Layer: a]\x1e[ONNX Layer: b]", "compiled", {"a", "b"}),
        ("INFO: Total Activation Memory: 5632 bytes", "activation_bytes", [5632]),
        ("INFO: Total Weights Memory: 5869312 bytes", "weight_bytes", 5869312),
        (
            "INFO: [MemUsageStats] Peak memory usage during Engine building and serialization: CPU: 340 MiB",
            "peak_host_bytes",
            340 << 20,
        ),
        (
            " Name: x, IOMode: Input, DataType: Int64, Dimensions: [1,-1], Location: Device, IsShapeInferenceIO: false, ProfileInfo: [ "
            "{ MinShape: [1,1], OptShape: [1,1], MaxShape: [1,1], Format: Row major linear INT64 format (kLINEAR) }, "
            "{ MinShape: [1,1], OptShape: [1,32], MaxShape: [1,64], Format: Row major linear INT64 format (kLINEAR) }]",
            "tensors",
            [log.Tensor("x", "input", "int64", (1, -1), (((1, 1), (1, 1), (1, 1)), ((1, 1), (1, 32), (1, 64))))],
        ),
        (
            " Name: y, IOMode: Output, DataType: Half, Dimensions: [], Location: Device, IsShapeInferenceIO: false, ProfileInfo: [ "
            "{ Format: Row major linear FP16 format (kLINEAR) }]",
            "tensors",
            [log.Tensor("y", "output", "fp16", ())],
        ),
    ],
)
def test_lines(line, attribute, value, tmp_path):
    assert getattr(read(tmp_path, line, layer()), attribute) == value


@pytest.mark.parametrize("content", [b"", b"INFO: nothing here\n", b"\xff\x00\xfe" * 100, layer().encode()[:-60]])
def test_a_log_without_layers(content, tmp_path):
    (tmp_path / "build.log").write_bytes(content)
    with pytest.raises(InputError, match="no list of layers"):
        log.read(tmp_path / "build.log")
