"""How often which |x| occurred, in bins that do not move: the same values give the same counts in any order and any batches.

A bin is a float's exponent and the first 10 bits of its mantissa, so it is at most 0.1 % wide. Only the OCTAVES below the
largest value are kept; what is smaller is counted together. What a histogram means for a range is observers.py's.
"""

from __future__ import annotations

import numpy as np

#: Bits of mantissa that a bin keeps of a float32's 23.
_BITS = 10
_SHIFT = 23 - _BITS
#: 8-bit floats reach 2^-18 of their largest value: half of that rounds to zero, and so does everything below.
OCTAVES = 20
_KEPT = OCTAVES << _BITS
#: Values are counted so many at once: small arrays wait until there are enough, of large ones the bins stay in the cache.
_CHUNK = 1 << 16
_SIGN_OFF = np.uint32(0x7FFFFFFF)
_INFINITE = 0x7F800000


class Histogram:
    """Counts of |x|. Values smaller than what is kept, zeros among them, are counted in a bin of their own."""

    #: What one holds in memory, waiting values included.
    nbytes = 8 * (_KEPT + 1) + 4 * 2 * _CHUNK

    def __init__(self) -> None:
        self._counts = np.zeros(_KEPT + 1, np.int64)  # [0]: all that is too small
        self._top = 0  # bits of the largest finite |x|
        self._bad = 0
        self._waiting: list[np.ndarray] = []
        self._count = 0

    def add(self, value: np.ndarray) -> None:
        """Count every element; the shape does not matter."""
        flat = np.asarray(value, dtype=np.float32).reshape(-1).view(np.uint32)
        for start in range(0, flat.size, _CHUNK):
            self._waiting.append(flat[start : start + _CHUNK] & _SIGN_OFF)
            self._count += self._waiting[-1].size
            if self._count >= _CHUNK:
                self._settle()

    @property
    def largest(self) -> float:
        """The largest finite |x|, exactly; 0 where nothing was seen."""
        self._settle()
        return float(np.uint32(self._top).view(np.float32))

    @property
    def bad(self) -> int:
        """How many values were NaN or infinite. They are not counted otherwise."""
        self._settle()
        return self._bad

    def bins(self) -> tuple[np.ndarray, np.ndarray]:
        """(edges float64 [n, 2], counts int64 [n]) of the bins that hold anything, ascending. The last one ends at the largest |x|."""
        self._settle()
        place = np.flatnonzero(self._counts)
        edges = np.stack([self._edge(place), self._edge(place + 1)], axis=1)
        edges[place == 0, 0] = 0.0
        edges[-1:, 1] = self.largest
        return edges, self._counts[place]

    def _settle(self) -> None:
        """Count what waits."""
        if not self._count:
            return
        bits = np.concatenate(self._waiting) if len(self._waiting) > 1 else self._waiting[0]
        self._waiting, self._count = [], 0
        if int(bits.max()) >= _INFINITE:
            finite = bits[bits < _INFINITE]
            self._bad += bits.size - finite.size
            bits = finite
        if bits.size:
            self._raise(int(bits.max()))
            place = (bits >> _SHIFT).astype(np.int32)
            place -= self._floor - 1
            np.maximum(place, 0, out=place)
            found = np.bincount(place)
            self._counts[: found.size] += found

    @property
    def _floor(self) -> int:
        """The first kept bin, as a float's bits less those that bins leave out."""
        return ((self._top >> 23) + 1 - OCTAVES) << _BITS

    def _raise(self, top: int) -> None:
        """Let the kept octaves end with that of `top`, where they end lower: the lowest ones join what is too small."""
        up = (top >> 23) - (self._top >> 23)
        if up > 0:
            gone = min(up << _BITS, _KEPT)
            kept = np.zeros_like(self._counts)
            kept[0] = self._counts[: gone + 1].sum()
            kept[1 : _KEPT + 1 - gone] = self._counts[gone + 1 :]
            self._counts = kept
        self._top = max(self._top, top)

    def _edge(self, place: np.ndarray) -> np.ndarray:
        """Where bins begin."""
        bits = np.clip(place - 1 + self._floor, 0, (_INFINITE >> _SHIFT) - 1).astype(np.uint32) << np.uint32(_SHIFT)
        edges: np.ndarray = bits.view(np.float32).astype(np.float64)
        return edges
