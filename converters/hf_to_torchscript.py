"""Dense ERNIE 4.5 in the transformers layout → TorchScript."""

from pathlib import Path

from ernie_cli.checkpoint import Checkpoint
from ernie_cli.model import Model
from ernie_cli.route import Options
from ernie_cli.torchscript.decoder_convert import convert_checkpoint
from ernie_cli.torchscript.decoder_weights import weight_bytes

NEEDS = ("torch",)


def convert(model: Model, out: Path, options: Options) -> Model:
    """See torchscript/decoder_convert.py: the checkpoint room hides which layout it reads."""
    return convert_checkpoint(model, out, options)


def output_bytes(model: Model, options: Options) -> int:
    """What `convert` will write, near enough for a look at the disk."""
    return weight_bytes(Checkpoint.open(model.path), options.dtype)
