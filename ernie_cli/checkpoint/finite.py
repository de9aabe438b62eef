"""Are these weights finite? One pass over the bits, at the speed of memory. Does not say where the bad one is."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

#: float type → (unsigned, signed integer of the same width, bits of +infinity). All bits at or above it are Inf or NaN.
_BITS: dict[Any, tuple[Any, Any, int]] = {
    np.dtype(ml_dtypes.bfloat16): (np.uint16, np.int16, 0x7F80),
    np.dtype(np.float16): (np.uint16, np.int16, 0x7C00),
    np.dtype(np.float32): (np.uint32, np.int32, 0x7F800000),
    np.dtype(np.float64): (np.uint64, np.int64, 0x7FF0000000000000),
}


def all_finite(array: np.ndarray) -> bool:
    """Whether no element is NaN or infinite; True for types that cannot be.

    The largest positive bit pattern (read signed) and the largest negative one (read unsigned) tell it in two reductions,
    with no temporary: Inf and NaN have the largest exponent.
    """
    if array.dtype not in _BITS or array.size == 0:
        return True
    unsigned, signed, infinity = _BITS[array.dtype]
    sign = 1 << (8 * array.dtype.itemsize - 1)
    return int(array.view(signed).max()) < infinity and int(array.view(unsigned).max()) < (sign | infinity)
