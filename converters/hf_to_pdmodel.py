"""Dense ERNIE 4.5 in the transformers layout → a Paddle inference program (PIR)."""

from pathlib import Path

from ernie_cli.checkpoint import Checkpoint
from ernie_cli.model import Model
from ernie_cli.pdmodel.child import installed
from ernie_cli.pdmodel.decoder_convert import convert_checkpoint, weight_bytes
from ernie_cli.route import Options

#: Paddle is looked for, not loaded: it runs in a process of its own.
NEEDS: tuple[str, ...] = ()


def convert(model: Model, out: Path, options: Options) -> Model:
    """See pdmodel/decoder_convert.py: the checkpoint room hides which layout it reads."""
    return convert_checkpoint(model, out, options)


def output_bytes(model: Model, options: Options) -> int:
    """What `convert` will write, near enough for a look at the disk. Raises MissingError where Paddle is not installed."""
    installed("paddle")
    return weight_bytes(Checkpoint.open(model.path), options.dtype)
