"""Threads that end when their work is done, and not before, however often Ctrl-C is pressed.

Knows work. Does not know what it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

__all__ = ["LastingThreads"]

T = TypeVar("T")

# How often an interrupted end looks whether the work is done.
_LOOK_S = 0.005


class LastingThreads:
    """Threads of which none works any more when the ``with`` is left.

    What interrupts that, as Ctrl-C does once or several times, is raised when the work is done.

    Parameters
    ----------
    n_threads : int
    name : str
        How the names of the threads begin.

    Notes
    -----
    The ``with`` of a ``ThreadPoolExecutor`` does not do that: what interrupts it leaves its threads at work. Nor would
    a second call of its ``shutdown``: up to Python 3.12, ``Thread.join`` takes a thread for ended once it was
    interrupted. So the work is counted here.
    """

    def __init__(self, n_threads: int, *, name: str) -> None:
        self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix=name)
        self._left: set[Future[Any]] = set()
        """Work that is not done."""

    def __enter__(self) -> LastingThreads:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Twice, since an interrupt may fall between the attempts of one.
        _outlast(partial(_outlast, self._end))

    def _end(self) -> None:
        self._pool.shutdown(wait=False)
        while self._left:
            time.sleep(_LOOK_S)
        self._pool.shutdown()

    def submit(self, future: Future[T], work: Callable[[], T]) -> None:
        """Have ``work`` done, whose result ``future`` gets. If this raises, ``future`` ends in any case."""
        try:
            self._left.add(future)
            self._pool.submit(self._do, future, work)
        except BaseException:
            if future.cancel():  # else a thread has begun
                self._left.discard(future)
            raise

    def _do(self, future: Future[T], work: Callable[[], T]) -> None:
        try:
            if future.set_running_or_notify_cancel():
                try:
                    result = work()
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
        finally:
            self._left.discard(future)
            del future, work  # an error holds this frame, and would hold itself


def _outlast(wait: Callable[[], None]) -> None:
    """Call ``wait`` until it returns, then raise what it raised last."""
    interrupt: BaseException | None = None
    while True:
        try:
            wait()
            break
        except BaseException as error:
            interrupt = error
    try:
        if interrupt is not None:
            raise interrupt
    finally:
        del interrupt  # it holds this frame
