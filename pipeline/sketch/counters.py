"""The counters that the compiled kernels count in: memory that open sketches borrow.

Knows words of 64 bits. Does not know sketches.
"""

from __future__ import annotations

import math
import mmap
import threading
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

KEPT_NBYTES = 2 * 2**20
"""Counters of which more was touched are freed, not kept for the next use."""
MOST_KEPT = 4
"""Of a shape: as many as are used at a time where each is given back before others are lent, as in blocks of one batch.
Fresh pages cost more than counting in them; more counters would have touched the pages of all points in the end."""

_idle: dict[tuple[int, ...], list[NDArray[np.uint64]]] = {}
_idle_lock = threading.Lock()


def lend(*shape: int) -> NDArray[np.uint64]:
    """Return counters, all zero. Only pages of 4 KiB that are touched cost memory."""
    with _idle_lock:
        shelf = _idle.get(shape)
        if shelf:
            return shelf.pop()
    return _small_pages(math.prod(shape)).reshape(shape)


def _small_pages(n_words: int) -> NDArray[np.uint64]:
    if not hasattr(mmap, "MADV_NOHUGEPAGE"):
        return np.zeros(n_words, np.uint64)
    # NumPy asks Linux for huge pages: 2 MiB for the 16 KiB of each power of two that occurs.
    memory = mmap.mmap(-1, 8 * n_words, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel that was built without huge pages
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, np.uint64)


def give_back(counters: NDArray[np.uint64], *, touched_nbytes: int) -> None:
    """Keep counters for the next use; they must be zero. Those of an interrupted use are not given back."""
    if touched_nbytes <= KEPT_NBYTES:
        with _idle_lock:
            shelf = _idle.setdefault(counters.shape, [])
            if len(shelf) < MOST_KEPT:
                shelf.append(counters)
