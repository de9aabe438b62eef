"""`need("onnxruntime")` → the module, or a MissingError that says which extra brings it. Nothing is ever installed here."""

import importlib
import os
from types import ModuleType

from .errors import MissingError

#: onnxruntime 1.31 keeps a device id and reports use to its maker unless told not to before it is loaded. We report nothing.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

#: module → the extra of this package that installs it ("" = a base dependency whose absence means a broken install)
EXTRAS = {
    "onnxruntime": "cpu",
    "torch": "torch",
    "transformers": "dev",
    "PIL": "images",
    "paddle": "paddle",
    "paddle2onnx": "paddle",
    "tensorrt": "gpu",
    "cuda": "gpu",
    "tensorrt_rtx_bindings": "rtx",
}


def need(module: str) -> ModuleType:
    """Import `module` (dotted names allowed) on first use.

    Raises MissingError (exit 5) with the command that installs the extra it belongs to. A module that is
    present but fails to import (a missing shared library, say) is reported with its own reason.
    """
    try:
        return importlib.import_module(module)
    except ImportError as err:
        extra = EXTRAS.get(module.split(".")[0], "")
        package = f"'ernie-cli[{extra}]'" if extra else "--force-reinstall ernie-cli"
        raise MissingError(f"this needs the Python module `{module}`: {err}", f"pip install {package}") from err
