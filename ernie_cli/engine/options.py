"""Everything that `ernie build` can be told beside the model, the device and the place of the result."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..checkpoint.quote import short
from ..errors import UsageError

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_LARGEST = 1 << 60

#: Tokens of prompt and reply together where nobody says: what the cache of a decoder is built for.
CONTEXT = 1024


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What the builder is told beside the network. Which library takes which is library.py's table.

    workspace: most bytes of scratch memory on the GPU, None: the library's choice. effort: 0 (quickest) to 5, None: the library's.
    timing_cache: a file. hardware_compatible: "", "ampere-plus" or "same-capability".
    """

    workspace: int | None = None
    effort: int | None = None
    timing_cache: str | None = None
    version_compatible: bool = False
    hardware_compatible: str = ""
    refit: bool = False
    strip_weights: bool = False
    weight_streaming: bool = False


@dataclass(frozen=True)
class Options(Flags):
    """precision: fp32, fp16, bf16 or a scheme of `ernie quantize`; None: as the model is (checkpoints: fp16). data: for schemes that
    calibrate. shapes: "name:min,opt,max", one per input with free axes ("1x3x224x224,4x3x224x224,8x3x224x224").
    context, batch: of ERNIE decoders: cache slots per row, most rows. chunk: most prompt tokens in one step (prefill).
    library: auto, tensorrt or tensorrt-rtx. portable: no one compute capability, but all that the library compiles for.
    """

    precision: str | None = None
    data: str | None = None
    shapes: tuple[str, ...] = ()
    context: int | None = None
    batch: int = 1
    chunk: int | None = None
    library: str = "auto"
    portable: bool = False
    verify: bool = True


def size(text: str | None) -> int | None:
    """ "2GB" → 2000000000 bytes; None stays None. Raises UsageError for anything else."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)\s*((?:[KMG]i?)?B)?", text.strip(), re.IGNORECASE | re.ASCII)
    n_bytes = int(float(found[1]) * _UNITS[(found[2] or "").upper()]) if found else 0
    if not 0 < n_bytes < _LARGEST:
        raise UsageError(f"--workspace {short(text)}: no size", "--workspace 2GB")
    return n_bytes
