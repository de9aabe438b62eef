"""The tensor parts of Loop and Scan. Their statements are written in control.py."""

from __future__ import annotations

import torch


def stacked(rows: list[torch.Tensor], axis: int, back: bool, empty: torch.Tensor) -> torch.Tensor:
    """Rows along a new axis, the last one first where `back`; `empty` where there are none."""
    if len(rows) == 0:
        return empty
    whole = torch.stack(rows, axis)
    return torch.flip(whole, [axis]) if back else whole


def no_steps(row: list[int], axis: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """What a loop without a step has for output: no rows of this shape."""
    shape = list(row)
    shape.insert(axis if axis >= 0 else len(row) + 1 + axis, 0)
    return torch.empty(shape, dtype=dtype, device=device)


def steps_of(scanned: torch.Tensor, axis: int) -> int:
    """How many steps a scan takes."""
    return scanned.size(axis)


def at_axis(scanned: torch.Tensor, axis: int, i: int) -> torch.Tensor:
    """Step i's slice."""
    return torch.select(scanned, axis, i)


RULES: dict[str, object] = {}
