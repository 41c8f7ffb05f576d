"""Threads that encode and write full chunks while their caller goes on, in bounded and reused memory.

Knows bytes and work. Does not know what is written, or where.
"""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .lasting import LastingThreads

__all__ = ["WRITING_THREADS", "WritingThreads"]

# More than cores, since half of the time they wait for the disk (4 against 2 on two cores: 1.1x).
WRITING_THREADS = 4


class WritingThreads:
    """Threads that write chunks for a `BlockWriter`; none writes when the ``with`` is left, also by Ctrl-C.

    Parameters
    ----------
    n_threads : int
    most_nbytes : int
        Of chunks that wait or are being written: whoever fills more waits. One that is larger waits alone.
    """

    def __init__(self, n_threads: int = WRITING_THREADS, *, most_nbytes: int) -> None:
        self._most_nbytes = most_nbytes
        self._threads = LastingThreads(n_threads, name="actisketch-chunk")
        self._nbytes = 0
        """Of chunks that wait or are being written."""
        self._nbytes_of: dict[Future[None], int] = {}
        self._free: dict[int, list[NDArray[np.uint8]]] = defaultdict(list)
        """Memory to use again, by its size: first touch of fresh memory costs more than a copy."""
        self._changed = threading.Condition()

    def __enter__(self) -> WritingThreads:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._threads.__exit__(kind, error, trace)
        finally:
            self._free.clear()

    def buffer(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return memory to fill a chunk in; its values are anything."""
        nbytes = math.prod(shape) * dtype.itemsize
        with self._changed:
            if self._free[nbytes]:
                return self._free[nbytes].pop().view(dtype).reshape(shape)
            # No more memory than is in use at a time: what is free makes way for another size.
            dropped = 0
            for size, shelf in self._free.items():
                while shelf and dropped < nbytes:
                    dropped += size
                    shelf.pop()
        return np.empty(shape, dtype)

    def give_back(self, buffer: NDArray[Any]) -> None:
        """Take memory back that `buffer` gave."""
        with self._changed:
            self._free[buffer.nbytes].append(buffer.reshape(-1).view(np.uint8))

    def write(self, nbytes: int, work: Callable[[], None]) -> Future[None]:
        """Do ``work``, which writes a chunk of so many bytes, in a thread; wait until there is room for it."""
        future: Future[None] = Future()
        # Called when the work is done, has failed, or will not be done.
        future.add_done_callback(self._make_room)
        try:
            with self._changed:
                self._changed.wait_for(lambda: not self._nbytes or self._nbytes + nbytes <= self._most_nbytes)
                self._nbytes_of[future] = nbytes
                self._nbytes += nbytes
            self._threads.submit(future, work)
        except BaseException:
            future.cancel()
            raise
        return future

    def _make_room(self, future: Future[None]) -> None:
        with self._changed:
            self._nbytes -= self._nbytes_of.pop(future, 0)
            self._changed.notify_all()
