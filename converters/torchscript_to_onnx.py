"""TorchScript → ONNX, by torch's exporter of scripted and traced modules."""

from pathlib import Path

from ernie_cli.coverage import OpUse
from ernie_cli.model import Model
from ernie_cli.route import Options

NEEDS: tuple[str, ...] = ("torch",)
CHECK_NEEDS = ("onnxruntime",)  # for the parity check at the end, unless --no-verify
#: Copies of the result that lie beside it for a while: what torch writes, which is then simplified.
SCRATCH_COPIES = 1


def convert(model: Model, out: Path, options: Options) -> Model:
    """See torchscript/export.py."""
    from ernie_cli.torchscript import export

    return export.convert(model, out, options)


def coverage(model: Model, options: Options) -> list[OpUse]:
    """Every operator of the module, and how torch.onnx maps it."""
    from ernie_cli.torchscript import export

    return export.coverage(model, options)


def output_bytes(model: Model, options: Options) -> int:
    """What `convert` writes at most: a weight that has two names may lie there twice, turned for one of them. Raises InputError."""
    from ernie_cli.torchscript.archive import opened
    from ernie_cli.torchscript.contents import contents

    with opened(model.main_file()) as archive:
        return sum(each.n_bytes for each in contents(archive).tensors) + (1 << 20)
