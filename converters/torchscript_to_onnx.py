"""TorchScript → ONNX, by torch's exporter of scripted and traced modules."""

from pathlib import Path

from ernie_cli.coverage import OpUse
from ernie_cli.model import Model
from ernie_cli.route import Options

NEEDS: tuple[str, ...] = ("torch",)
CHECK_NEEDS = ("onnxruntime",)  # for the parity check at the end, unless --no-verify


def convert(model: Model, out: Path, options: Options) -> Model:
    """See torchscript/export.py."""
    from ernie_cli.torchscript import export

    return export.convert(model, out, options)


def coverage(model: Model, options: Options) -> list[OpUse]:
    """Every operator of the module, and how torch.onnx maps it."""
    from ernie_cli.torchscript import export

    return export.coverage(model, options)


def output_bytes(model: Model, options: Options) -> int:
    """What `convert` will write, near enough for a look at the disk: the weights as they are, twice while they are collected."""
    return 2 * model.main_file().stat().st_size
