"""Everything that `ernie quantize` can be told beside the model, the scheme and the place of the result."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import UsageError

BLOCKS = (32, 64, 128)


@dataclass(frozen=True)
class Options:
    """data: calibration file or folder. eval_data: what the report measures on (default: held back from data, or embedded lines).

    block: weights per scale (int4). method: rtn, awq or gptq. mix: "none" or "auto" (sensitive layers and the head at 8 bits).
    smooth: "off", SmoothQuant's alpha, "auto" (searched per layer), None: the scheme's choice. observer: minmax, percentile, mse,
    entropy, or "auto": the scheme's choice. random_calibration: seeded noise in place of data, recorded. scales: a JSON of scales to
    take as they are. max_drop: share of `metric` that may be lost, as "1%". measure: whether quality and speed of the whole model
    are measured. samples: most samples read. mean, std, layout: of images.
    """

    data: str | None = None
    eval_data: str | None = None
    block: int = 32
    method: str = "rtn"
    mix: str = "none"
    smooth: str | None = None
    observer: str = "auto"
    random_calibration: bool = False
    scales: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    max_drop: str | None = None
    metric: str = "auto"
    device: str | None = None
    measure: bool = True
    samples: int = 128
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: str = "auto"
    seed: int = 0

    def smoothing(self, *, decoder: bool) -> str:
        """SmoothQuant's strength where activations become narrow: "off", "auto" or a number. Decoders are smoothed unless told not to."""
        alone = bool(self.scales) and not self.data  # ranges are told, and nothing is there to find outliers on
        return self.smooth or ("auto" if decoder and not alone else "off")


def numbers(option: str, text: str | None) -> tuple[float, ...]:
    """ "0.485,0.456" → (0.485, 0.456). Raises UsageError for anything else."""
    if text is None:
        return ()
    try:
        found = tuple(float(word) for word in text.split(","))
    except ValueError as err:
        raise UsageError(f"{option} {text}: no list of numbers", f"{option} 0.485,0.456,0.406") from err
    if not all(map(math.isfinite, found)):
        raise UsageError(f"{option} {text}: not finite", f"{option} 0.485,0.456,0.406")
    return found
