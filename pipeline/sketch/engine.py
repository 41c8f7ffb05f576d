"""Which engine counts: Numba kernels where they can be had, numpy otherwise. Results are identical.

Holds the scratch memory that the kernels count in. Does not know sketches.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

NO_NUMBA = "ACTISKETCH_NO_NUMBA"
"""Environment variable: set to 1, everything is counted by numpy."""
CHANNEL_PAD = 520
"""Counters between the channels of a group: a power of two between them would make their caches collide."""
LEAST_COUNTERS = 16 * ((1 << 16) + CHANNEL_PAD)
"""Counters for 16 channels of 16 bits or a layer of 20, so that both share the same memory."""


def is_compiled() -> bool:
    """Return whether Numba counts; if not, numpy does."""
    return os.environ.get(NO_NUMBA, "0") in ("", "0") and _has_numba()


# Loading Numba and a kernel takes half a second; numpy adds or unpacks 5 million numbers in that time.
WORTH_LOADING_NUMBERS = 5_000_000


def is_worth_compiled(n_numbers: int, *, least: int) -> bool:
    """Return whether the kernels are the faster way for so many numbers, what loading them costs included.

    Parameters
    ----------
    n_numbers : int
        How much there is to do.
    least : int
        From where on the kernels win once they are loaded.
    """
    if n_numbers <= least or (n_numbers < WORTH_LOADING_NUMBERS and "numba" not in sys.modules):
        return False
    return is_compiled()


@cache
def _has_numba() -> bool:
    try:
        importlib.import_module("numba")
    except ImportError as problem:
        logger.warning("Numba cannot be used (%s): numpy counts, 10 times slower", problem)
        return False
    return True


@dataclass(frozen=True, slots=True)
class Scratch:
    """Counters of one thread, all zero between uses. Only the pages that are touched cost memory."""

    words: NDArray[np.uint64]
    """``count << shift | sum of lows`` of each bucket."""
    last: NDArray[Any]
    """Low of the value that each bucket got last."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a counter word is divided for a resolution."""

    low_bits: int
    shift: int
    """Bits of a word that hold the sum of lows; the count is above."""
    max_values: int
    """Values that a word can count before it must be emptied."""
    spares: int
    """How many free buckets (a power of two) above the finite ones count zeros, less one."""

    @classmethod
    def of(cls, bits: int) -> Layout:
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
    """Lend at least ``n_counters`` counters; the borrower leaves them zero."""
    size = max(n_counters, LEAST_COUNTERS)
    dtype = _low_dtype(low_bits)
    with _idle_lock:
        shelf = _idle.setdefault((size, dtype.name), [])
        lent = shelf.pop() if shelf else None
    if lent is None:
        lent = Scratch(words=np.zeros(size, np.uint64), last=np.zeros(size, dtype))
    yield lent
    # Only after success: counters of an interrupted use are not zero and are thrown away.
    with _idle_lock:
        shelf.append(lent)


def scratch_nbytes(n_counters: int, low_bits: int) -> int:
    """Return the bytes of the counters that `scratch` lends: what each sketching thread uses at most."""
    return max(n_counters, LEAST_COUNTERS) * (8 + _low_dtype(low_bits).itemsize)


def _low_dtype(low_bits: int) -> np.dtype[Any]:
    return np.dtype(np.uint16 if low_bits <= 16 else np.uint32)
