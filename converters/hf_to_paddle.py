"""Dense ERNIE 4.5: the transformers layout → the PaddlePaddle layout."""

from pathlib import Path

from ernie_cli.checkpoint.recast import recast, weight_bytes
from ernie_cli.model import Model
from ernie_cli.route import Options

NEEDS: tuple[str, ...] = ()


def convert(model: Model, out: Path, options: Options) -> Model:
    """See checkpoint/recast.py, which goes both ways."""
    return recast(model, out, "paddle", options)


def output_bytes(model: Model, options: Options) -> int:
    """What `convert` will write, near enough for a look at the disk."""
    return weight_bytes(model)
