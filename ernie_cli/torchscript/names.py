"""Turns ONNX's names into identifiers that TorchScript takes, each once. Which values there are is emit.py's business."""

from __future__ import annotations

import keyword
import re

#: Words that generated text uses itself, or that TorchScript gives a meaning.
_WORDS = """
    self torch math forward ops CONSTANTS inf nan Tensor List Optional Tuple Dict Any Future Device Scalar NoneType device dtype layout
    number annotate uninitialized fork print int float bool str complex list tuple dict set object type len range min max abs round sum
    pow divmod sorted reversed zip map filter enumerate all any ord chr hex bin oct repr hash id iter next input slice super getattr
    hasattr isinstance
"""
TAKEN = frozenset([*keyword.kwlist, *keyword.softkwlist, *_WORDS.split()])


class Names:
    """Gives each wish an identifier of its own: the wish, cleaned up, with a number where it is taken."""

    def __init__(self, taken: frozenset[str] = TAKEN) -> None:
        self._used: set[str] = set(taken)

    def new(self, wish: str) -> str:
        """ "/layer.0/conv/Conv_output_0" → "layer_0_conv_Conv_output_0"."""
        clean = re.sub(r"[^0-9A-Za-z_]", "_", wish).strip("_") or "v"
        if clean[0].isdigit() or clean.startswith("op_"):
            clean = f"v_{clean}"
        name, number = clean, 1
        while name in self._used:
            number += 1
            name = f"{clean}_{number}"
        self._used.add(name)
        return name
