"""Dense ERNIE 4.5 in the transformers layout → ONNX."""

from pathlib import Path

from ernie_cli.checkpoint import Checkpoint
from ernie_cli.graph.convert import convert_checkpoint
from ernie_cli.graph.export import weight_bytes
from ernie_cli.model import Model
from ernie_cli.route import Options

NEEDS: tuple[str, ...] = ()
CHECK_NEEDS = ("onnxruntime",)  # for the parity check at the end, unless --no-verify


def convert(model: Model, out: Path, options: Options) -> Model:
    """See graph/convert.py: the checkpoint room hides which layout it reads."""
    return convert_checkpoint(model, out, options)


def output_bytes(model: Model, options: Options) -> int:
    """What `convert` will write, near enough for a look at the disk."""
    return weight_bytes(Checkpoint.open(model.path), options.dtype)
