"""Threads that answer questions: a bounded number, with a bounded queue, a time limit, and an end when nobody waits.

Knows work and time. Does not know runs.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["Gone", "Overloaded", "Stop", "Stopped", "TooLong", "Workers"]

Result = TypeVar("Result")
IsGone = Callable[[], Awaitable[bool]]

# How long a client may be gone before its question is stopped.
GONE_CHECK_S = 0.2


class Stopped(Exception):
    """The question was stopped while it was answered."""


class Overloaded(Exception):
    """Too many questions wait already."""


class TooLong(Exception):
    """The time limit is over."""


class Gone(Exception):
    """The client has gone away."""


class Stop:
    """Ends a piece of work from outside: the work calls `check` every now and then."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Let the next `check` raise."""
        self._event.set()

    def check(self) -> None:
        """Raise Stopped if the work shall end."""
        if self._event.is_set():
            raise Stopped


class Workers:
    """A pool of threads.

    Parameters
    ----------
    name : str
        Of the threads.
    n_threads : int
    n_waiting : int
        Questions that may wait for a thread; one more is refused.
    limit_s : float
        For waiting and answering together.
    begin : callable, optional
        Called in each thread before its first question.
    """

    def __init__(
        self,
        name: str,
        *,
        n_threads: int,
        n_waiting: int,
        limit_s: float,
        begin: Callable[[], None] | None = None,
    ) -> None:
        self.limit_s, self._most = limit_s, n_threads + n_waiting
        self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix=f"actisketch-{name}", initializer=begin)
        self._n_held = 0
        self._running: set[Stop] = set()

    @property
    def n_held(self) -> int:
        """Questions that wait or are answered."""
        return self._n_held

    async def run(
        self, work: Callable[[Stop], Result], is_gone: IsGone | None = None, *, goes_on: bool = False
    ) -> Result:
        """Return what ``work`` returns.

        Parameters
        ----------
        work : callable
            Called in a thread.
        is_gone : callable, optional
            Whether the client has gone away; asked while it waits.
        goes_on : bool
            Whether the time limit is for waiting only: what has begun comes to its end.

        Raises
        ------
        Overloaded, TooLong, Gone
            The work is stopped at its next check. Its thread is taken until then.
        """
        if self._n_held >= self._most:
            raise Overloaded
        loop, stop, begun = asyncio.get_running_loop(), Stop(), threading.Event()

        def answer() -> Result:
            begun.set()
            return work(stop)

        self._n_held += 1
        self._running.add(stop)
        future = loop.run_in_executor(self._pool, answer)
        future.add_done_callback(lambda _: self._let_go(stop))
        deadline_s = loop.time() + self.limit_s
        try:
            while not future.done():
                left_s = deadline_s - loop.time()
                if left_s <= 0:
                    if not (goes_on and begun.is_set()):
                        raise TooLong
                    await asyncio.wait([future])
                    break
                step_s = left_s if is_gone is None else min(left_s, GONE_CHECK_S)
                await asyncio.wait([future], timeout=step_s)
                if is_gone is not None and not future.done() and await is_gone():
                    raise Gone
            return future.result()
        finally:
            if not future.done():
                stop.set()
                future.add_done_callback(_forget)

    def _let_go(self, stop: Stop) -> None:
        self._n_held -= 1
        self._running.discard(stop)

    def close(self) -> None:
        """Stop everything, and take no more."""
        for stop in tuple(self._running):
            stop.set()
        self._pool.shutdown(wait=False, cancel_futures=True)


def _forget(future: asyncio.Future[Result]) -> None:
    """Take the error of a stopped piece of work, so that nobody is told that it was not taken; close what it opened."""
    if not future.cancelled() and future.exception() is None:
        close = getattr(future.result(), "close", None)
        if close is not None:
            close()
