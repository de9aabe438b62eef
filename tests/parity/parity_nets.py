"""Small seeded ONNX networks of the usual kinds, written by hand so that every value and weight has a name to be found by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


class Net:
    """Collects nodes and seeded weights; every node is named after its output."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def op(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        outputs = output.split()
        self.nodes.append(helper.make_node(operator, inputs, outputs, name=outputs[-1], **attributes))
        return outputs[-1]

    def weight(self, name: str, *shape: int, gain: float | None = None, around: float = 0.0) -> str:
        scale = gain if gain is not None else 1 / np.sqrt(max(1, int(np.prod(shape[:-1]))))
        return self.constant(name, (around + scale * self.rng.standard_normal(shape)).astype(np.float32))

    def constant(self, name: str, array: Any) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def linear(self, name: str, x: str, wide: int, out: int) -> str:
        self.op("MatMul", [x, self.weight(f"{name}.weight", wide, out)], f"{name}.matmul")
        return self.op("Add", [f"{name}.matmul", self.weight(f"{name}.bias", out, gain=0.3)], name)

    def save(self, path: Path, inputs: Sequence[Any], outputs: Sequence[Any]) -> Path:
        graph = helper.make_graph(self.nodes, "net", list(inputs), list(outputs), self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, path)
        return path


def value(name: str, *shape: int | str, dtype: int = FLOAT) -> Any:
    return helper.make_tensor_value_info(name, dtype, list(shape))


def mlp(path: Path) -> Path:
    """Three layers of equal width, Gemm and MatMul, ReLU and Tanh."""
    net = Net(1)
    net.op("Gemm", ["x", net.weight("fc1.weight", 16, 16), net.weight("fc1.bias", 16, gain=0.3)], "fc1")
    net.op("Relu", ["fc1"], "relu1")
    net.linear("fc2", "relu1", 16, 16)
    net.op("Tanh", ["fc2"], "tanh2")
    net.op("Sub", ["tanh2", "relu1"], "difference")
    net.op("Gemm", ["difference", net.weight("fc3.weight", 5, 16), net.weight("fc3.bias", 5, gain=0.3)], "y", transB=1)
    return net.save(path, [value("x", "batch", 16)], [value("y", "batch", 5)])


def cnn(path: Path) -> Path:
    """Conv + BN + ReLU twice with equal shapes, a residual, average and maximum pools, a classifier; any picture size."""
    net = Net(2)
    at = "pixels"
    for number, wide in ((1, 3), (2, 8), (3, 8)):
        net.op("Conv", [at, net.weight(f"conv{number}.weight", 8, wide, 3, 3, gain=(wide * 9) ** -0.5)], f"conv{number}", pads=[1, 1, 1, 1])
        names = [net.weight(f"bn{number}.{part}", 8, gain=0.2, around=around) for part, around in (("scale", 1), ("bias", 0), ("mean", 0))]
        variance = net.constant(f"bn{number}.var", (0.02 + 0.05 * net.rng.random(8)).astype(np.float32))
        net.op("BatchNormalization", [f"conv{number}", *names, variance], f"bn{number}", epsilon=1e-5)
        at = net.op("Relu", [f"bn{number}"], f"relu{number}")
        if number == 1:
            at = net.op("AveragePool", [at], "pool1", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1)
    net.op("Add", [at, "pool1"], "residual")
    net.op("MaxPool", ["residual"], "pool2", kernel_shape=[2, 2], strides=[2, 2])
    net.op("GlobalAveragePool", ["pool2"], "gap")
    net.op("Flatten", ["gap"], "flat")
    net.linear("logits", "flat", 8, 10)
    net.op("Softmax", ["logits"], "probabilities", axis=-1)
    return net.save(
        path, [value("pixels", "batch", 3, "height", "width")], [value("probabilities", "batch", 10), value("flat", "batch", 8)]
    )


def transformer(path: Path) -> Path:
    """Token ids through an embedding, one block of attention with a padding mask, LayerNorm and GELU, to logits."""
    net = Net(3)
    wide, heads = 16, 2
    net.op("Gather", [net.weight("embedding", 50, wide, gain=1.0), "input_ids"], "embedded")
    net.op(
        "LayerNormalization",
        ["embedded", net.weight("ln1.weight", wide, gain=0.2, around=1), net.weight("ln1.bias", wide, gain=0.2)],
        "ln1",
    )
    split, joined = net.constant("split", np.array([0, 0, heads, wide // heads])), net.constant("joined", np.array([0, 0, wide]))
    for part in "qkv":
        net.linear(part, "ln1", wide, wide)
        net.op("Reshape", [part, split], f"{part}.split")
        net.op("Transpose", [f"{part}.split"], f"{part}.heads", perm=[0, 2, 3, 1] if part == "k" else [0, 2, 1, 3])
    net.op("MatMul", ["q.heads", "k.heads"], "scores")
    net.op("Mul", ["scores", net.constant("scale", np.float32((wide // heads) ** -0.5))], "scaled")
    net.op("Cast", ["attention_mask"], "mask.float", to=FLOAT)
    net.op("Sub", ["mask.float", net.constant("one", np.float32(1))], "mask.shifted")
    net.op("Mul", ["mask.shifted", net.constant("large", np.float32(1e4))], "mask.bias")
    net.op("Unsqueeze", ["mask.bias", net.constant("axes", np.array([1, 2]))], "mask.wide")
    net.op("Add", ["scaled", "mask.wide"], "masked")
    net.op("Softmax", ["masked"], "attention", axis=-1)
    net.op("MatMul", ["attention", "v.heads"], "context.heads")
    net.op("Transpose", ["context.heads"], "context.split", perm=[0, 2, 1, 3])
    net.op("Reshape", ["context.split", joined], "context")
    net.linear("o", "context", wide, wide)
    net.op("Add", ["embedded", "o"], "hidden")
    net.op(
        "LayerNormalization", ["hidden", net.weight("ln2.weight", wide, gain=0.2, around=1), net.weight("ln2.bias", wide, gain=0.2)], "ln2"
    )
    net.linear("up", "ln2", wide, 32)
    net.op("Div", ["up", net.constant("root2", np.float32(2**0.5))], "up.scaled")
    net.op("Erf", ["up.scaled"], "erf")
    net.op("Add", ["erf", "one"], "erf.shifted")
    net.op("Mul", ["up", "erf.shifted"], "gelu")
    net.linear("down", "gelu", 32, wide)
    net.op("Add", ["hidden", "down"], "last")
    net.op("MatMul", ["last", net.weight("head", wide, 50)], "logits")
    ids = [value(name, "batch", "sequence", dtype=INT64) for name in ("input_ids", "attention_mask")]
    return net.save(path, ids, [value("logits", "batch", "sequence", 50), value("last", "batch", "sequence", wide)])


def lstm(path: Path) -> Path:
    """A bidirectional LSTM over [time, batch, features], a reduction and a classifier."""
    net = Net(4)
    names = [net.weight(f"lstm.{part}", 2, *shape, gain=0.4) for part, shape in (("W", (32, 8)), ("R", (32, 8)), ("B", (64,)))]
    net.op("LSTM", ["x", *names], "lstm.y lstm.h lstm.c", hidden_size=8, direction="bidirectional")
    net.op("Transpose", ["lstm.y"], "turned", perm=[2, 0, 1, 3])
    net.op("Reshape", ["turned", net.constant("joined", np.array([0, 0, -1]))], "states")
    net.op("ReduceMean", ["states"], "mean", axes=[1], keepdims=0)
    net.linear("y", "mean", 16, 6)
    return net.save(path, [value("x", "time", "batch", 8)], [value("y", "batch", 6)])
