"""ONNX → TorchScript, on torch alone: the graph is written as TorchScript source and compiled. Nothing is traced."""

from pathlib import Path

from ernie_cli.coverage import OpUse
from ernie_cli.model import Model
from ernie_cli.route import Options

NEEDS: tuple[str, ...] = ("torch",)
CHECK_NEEDS = ("onnxruntime",)  # for the parity check at the end, unless --no-verify


def convert(model: Model, out: Path, options: Options) -> Model:
    """See torchscript/from_onnx.py."""
    from ernie_cli.torchscript import from_onnx

    return from_onnx.convert(model, out, options)


def coverage(model: Model, options: Options) -> list[OpUse]:
    """Every operator of the graph, and the torch function that it becomes."""
    from ernie_cli.torchscript import from_onnx

    return from_onnx.coverage(model, options)


def output_bytes(model: Model, options: Options) -> int:
    """What `convert` will write, near enough for a look at the disk: the weights, and a little code."""
    from ernie_cli.onnxgraph.load import load
    from ernie_cli.onnxgraph.write import constant_bytes

    return constant_bytes(load(model, known_operators=False)) + (1 << 20)
