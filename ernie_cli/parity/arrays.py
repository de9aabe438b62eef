"""Arrays that a user gives, matched to a model's inputs. Reading the file is npz.py's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import npz
from ..errors import UsageError
from ..runtime.graphs import TensorSpec, check_feeds


def feeds_from(file: str, specs: Sequence[TensorSpec]) -> dict[str, np.ndarray]:
    """The arrays of an .npz file for the inputs `specs`: by name, or `arr_0`, `arr_1`, … in the inputs' order.

    Raises UsageError where an array is missing, unknown, or of another type or shape, and what `npz.read` raises.
    """
    arrays = npz.read(file)
    names = [spec.name for spec in specs]
    if list(arrays) == [f"arr_{number}" for number in range(len(arrays))] and not set(names) & set(arrays):
        if len(arrays) != len(names):
            raise UsageError(f"{file}: {len(arrays)} arrays for {len(names)} inputs", f"the inputs are {', '.join(names)}")
        arrays = dict(zip(names, arrays.values(), strict=True))
    types = {spec.name: spec.dtype for spec in specs}
    feeds = {name: npz.typed(array, types.get(name, "")) for name, array in arrays.items()}
    check_feeds(tuple(specs), feeds)
    return feeds
