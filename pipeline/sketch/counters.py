"""The counters that the compiled kernels count in: their layout, and the memory that threads borrow.

Knows words of 64 bits. Does not know sketches.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHANNEL_PAD = 520
"""Counters between the channels of a group: powers of two would compete for the same places in the cache."""
LEAST_COUNTERS = 16 * ((1 << 16) + CHANNEL_PAD)
"""Counters for 16 channels of 16 bits or a layer of 20, so that both share the same memory."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """Counters of one thread, all zero between uses. Only the pages that are used cost memory."""

    words: NDArray[np.uint64]
    """``count << shift | sum of lows`` of each bucket."""
    last: NDArray[Any]
    """Low of the value that each bucket got last."""


@dataclass(frozen=True, slots=True)
class WordLayout:
    """How a counter word is divided at a resolution."""

    low_bits: int
    shift: int
    """Bits of a word that hold the sum of lows; the count is above."""
    max_values: int
    """Values that a word can count before it must be emptied."""
    spares: int
    """Free buckets above the finite ones that count zeros, less one; their number is a power of two."""

    @classmethod
    def of(cls, bits: int) -> WordLayout:
        """Return the layout for sketches of ``bits`` bits."""
        low_bits = 32 - bits
        # n values have sums below 2**(log2 n + low_bits) and counts up to n: together 63 or 64 bits.
        value_bits = (63 - low_bits) // 2
        return cls(
            low_bits=low_bits,
            shift=value_bits + low_bits,
            max_values=1 << value_bits,
            spares=min(16, 1 << (23 - low_bits)) - 1,
        )


_idle: dict[tuple[int, str], list[Scratch]] = {}
_idle_lock = threading.Lock()


@contextmanager
def scratch(n_counters: int, low_bits: int) -> Iterator[Scratch]:
    """Lend at least ``n_counters`` counters; whoever borrows them must leave zeros."""
    size = max(n_counters, LEAST_COUNTERS)
    dtype = _low_dtype(low_bits)
    with _idle_lock:
        shelf = _idle.setdefault((size, dtype.name), [])
        lent = shelf.pop() if shelf else None
    if lent is None:
        lent = Scratch(words=np.zeros(size, np.uint64), last=np.zeros(size, dtype))
    yield lent
    # Only after success: counters of an interrupted use are not zero, and are not lent again.
    with _idle_lock:
        shelf.append(lent)


def _low_dtype(low_bits: int) -> np.dtype[Any]:
    return np.dtype(np.uint16 if low_bits <= 16 else np.uint32)
