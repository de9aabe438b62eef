"""The inside of a child process (see child.py): receives calls, answers with results or errors. Knows nothing of what is called."""

from __future__ import annotations

import importlib
import warnings
from multiprocessing.connection import Connection
from typing import Any

from ..errors import ErnieError


def main(descriptor: int) -> None:
    """Answer calls that come through `descriptor` until the other side closes it."""
    warnings.simplefilter("ignore")
    pipe = Connection(descriptor)
    while True:
        try:
            name, arguments = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(_answer(name, arguments))


def _answer(name: str, arguments: dict[str, Any]) -> tuple[str, Any]:
    try:
        module, _, function = name.partition(":")
        return "result", getattr(importlib.import_module(module), function)(**arguments)
    except ErnieError as err:
        return "ernie", (type(err).__name__, err.message, err.hint)
    except (Exception, SystemExit) as err:  # noqa: BLE001  the parent words it: it knows what was asked
        return "failed", (type(err).__name__, str(err))
