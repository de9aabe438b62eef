"""Everything that `ernie quantize` can be told beside the model, the scheme and the place of the result."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """data: calibration file or folder. eval_data: what the report measures on (default: held back from data, or the embedded lines).

    block: weights per scale (int4). method: rtn, awq or gptq. mix: "none" or "auto" (sensitive layers and the head at 8 bits).
    smooth: None, or SmoothQuant's alpha; "auto" searches it per layer. observer: minmax, percentile, mse or entropy.
    random_calibration: seeded noise in place of data, recorded. scales: a JSON of scales to take as they are.
    max_drop: share of `metric` that may be lost, 0.01 for 1 %. report: whether quality and speed are measured.
    """

    data: str | None = None
    eval_data: str | None = None
    block: int = 0
    method: str = "rtn"
    mix: str = "none"
    smooth: str | None = None
    observer: str = "mse"
    random_calibration: bool = False
    scales: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    max_drop: float | None = None
    metric: str = "auto"
    device: str | None = None
    measure: bool = True
    samples: int = 128
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: str = "auto"
    seed: int = 0
