"""Hand out the parts of a job to workers, watch them, and try again.

The result of a part is taken at once and its future released, so that neither the scheduler's memory nor the number of
keys grows with the job. Knows parts, not what is done with them.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ...storage.errors import ActisketchError, IncompleteError, InputError, StorageError
from ..record.recorder import BLOCKS_IN_FLIGHT
from .limits import Limits
from .worker import LoadedOnce, WorkerNotReady, make_ready

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["Coordinator", "Health", "installed", "raise_failures", "result_of"]

logger = logging.getLogger(__name__)


class Part(Protocol):
    """What a task does at a time: a block, or a range of samples."""

    @property
    def index(self) -> int:
        """Counted from 0, for keys and messages."""
        ...


PartT = TypeVar("PartT", bound=Part)
# Seconds between two checks of the cluster's health; finished parts are seen at once.
LOOK_S = 1.0


@contextmanager
def installed(client: Client, plugin: LoadedOnce[Any]) -> Iterator[None]:
    """Install ``plugin`` in every worker, now and later; refuse the job if a worker cannot use it."""
    client.register_plugin(plugin, name=plugin.name)
    try:
        _prepare_workers(client, plugin.name)
        yield
    finally:
        _unregister(client, plugin.name)


def _prepare_workers(client: Client, name: str) -> None:
    """Load the network in every worker that is there now; refuse the run if one cannot."""
    started = time.monotonic()
    answers: Mapping[str, Any] = client.run(make_ready, name, on_error="return")
    wrong = {address: str(answer) for address, answer in answers.items() if answer}
    if wrong:
        address, cause = min(wrong.items())
        raise InputError(
            f"{len(wrong)} of {len(answers)} workers cannot work; {address}: {cause}", workers=dict(wrong)
        )
    logger.info("%d workers ready after %.1f s", len(answers), time.monotonic() - started)


class Health:
    """Whether the scheduler and the workers of a cluster are there."""

    def __init__(self, client: Client, limits: Limits) -> None:
        self._client, self._limits = client, limits
        self.n_workers = 1
        self._looked = self._alive = self._worked = time.monotonic()

    def look(self) -> None:
        """Look again, at most once in ``LOOK_S``.

        Raises
        ------
        IncompleteError
            If the scheduler or all workers have been gone for longer than the limits allow.
        """
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        address = self._client.scheduler.address if self._client.scheduler else "the scheduler"
        if self._client.status == "running":
            with suppress(OSError):  # the scheduler has just died, and the client does not know it yet
                self.n_workers = len(self._client.nthreads())
                self._alive = now
        if self._client.status == "closed" or now - self._alive > self._limits.scheduler_silence_s:
            raise IncompleteError(
                f"the connection to {address} was lost: finished blocks are kept, run again to resume"
            )
        if self.n_workers:
            self._worked = now
        elif now - self._worked > self._limits.no_workers_s:
            raise IncompleteError(
                f"no worker was left for {self._limits.no_workers_s:.0f} s at {address}: finished blocks are kept; "
                "start workers and run again to resume"
            )


def result_of(client: Client, future: Future, *, limits: Limits) -> Any:
    """Return the result of a task that is no part of a `Coordinator`, and raise what it met.

    Raises
    ------
    IncompleteError
        If the scheduler was lost, no worker was left, or the workers that had the task died.
    """
    from distributed import KilledWorker

    health, is_done = Health(client, limits), threading.Event()
    future.add_done_callback(lambda _: is_done.set())
    while not is_done.wait(LOOK_S):
        health.look()
    try:
        return future.result(timeout=limits.no_workers_s)
    except (CancelledError, KilledWorker, TimeoutError) as lost:
        raise IncompleteError(
            f"the workers of a task were lost ({lost}): finished blocks are kept, run again to resume"
        ) from lost


class Coordinator(Generic[PartT]):
    """The parts of one job, from waiting to finished.

    Parameters
    ----------
    client : distributed.Client
        Of the cluster.
    task : callable
        ``task(part)`` runs in a worker; tasks may run twice.
    name : str
        Of this job only: it is part of the keys of the tasks.
    limits : Limits
        Retries and patience.
    on_done : callable
        ``on_done(part, result)`` is called here for each part that is finished.
    what : str, default="block"
        What a part is called in messages.
    collects : bool, default=False
        Whether results are sent back; else ``result`` is None.
    """

    def __init__(
        self,
        client: Client,
        task: Callable[[PartT], Any],
        *,
        name: str,
        limits: Limits,
        on_done: Callable[[PartT, Any], None],
        what: str = "block",
        collects: bool = False,
    ) -> None:
        self._client, self._task, self._name, self._limits = client, task, name, limits
        self._on_done, self._what, self._collects = on_done, what, collects
        self._waiting: deque[PartT] = deque()
        self._running: dict[int, tuple[PartT, Future]] = {}
        self._suspects: deque[PartT] = deque()
        self._alone: set[int] = set()
        self._attempts: dict[int, int] = {}
        self._done: queue.SimpleQueue[tuple[int, Future]] = queue.SimpleQueue()
        self._n_finished = 0
        self._health = Health(client, limits)
        self.failures: dict[int, BaseException] = {}

    def run(self, parts: Sequence[PartT]) -> None:
        """Hand out parts until all are finished or have failed: ``failures`` names those, with their causes."""
        self._waiting.extend(parts)
        try:
            while self._waiting or self._running or self._suspects:
                self._health.look()
                if self._suspects and not self._waiting and not self._running:
                    self._waiting.append(self._suspects.popleft())
                self._hand_out()
                try:
                    self._take(*self._done.get(timeout=LOOK_S))
                    while True:
                        self._take(*self._done.get_nowait())
                except queue.Empty:
                    continue
        finally:
            futures = [future for _, future in self._running.values()]
            self._running.clear()
            if futures and self._client.status == "running":
                self._client.cancel(futures, force=True)

    def _hand_out(self) -> None:
        window = self._limits.window(self._health.n_workers, BLOCKS_IN_FLIGHT)
        while self._waiting and len(self._running) < window:
            part = self._waiting.popleft()
            attempt = self._attempts.get(part.index, 0)
            future = self._client.submit(
                self._task, part, key=f"{self._name}-{part.index}-{attempt}", pure=False
            )
            self._running[part.index] = (part, future)
            future.add_done_callback(lambda done, index=part.index: self._done.put((index, done)))

    def _take(self, index: int, future: Future) -> None:
        running = self._running.get(index)
        if running is None or (running[1] is not future and running[1].key != future.key):
            return  # of an attempt that was given up
        part, status = running[0], future.status
        del self._running[index]  # the last reference: the scheduler forgets the key
        error: BaseException | None = None
        if status == "finished":
            try:
                result = future.result(timeout=self._limits.scheduler_silence_s) if self._collects else None
            except (CancelledError, OSError, TimeoutError) as lost:  # the worker that had it is gone
                error = IncompleteError(f"the result of {self._what} {index} was lost: {lost}")
            else:
                self._n_finished += 1
                self._on_done(part, result)
                return
        elif status == "error":
            error = future.exception()
        self._retry_or_fail(part, error)

    def _retry_or_fail(self, part: PartT, error: BaseException | None) -> None:
        from distributed import KilledWorker

        attempts = self._attempts[part.index] = self._attempts.get(part.index, 0) + 1
        if isinstance(error, KilledWorker) and part.index not in self._alone:
            # A worker has two parts at a time: the other one may have killed it. At the end, when nothing else
            # runs, each of them gets a worker for itself.
            logger.warning(
                "%s %d was in several workers that died: it is tried alone at the end",
                self._what,
                part.index,
            )
            self._alone.add(part.index)
            self._suspects.append(part)
            return
        # Dask has already tried a killed part on several workers, and wrong data stays wrong.
        for_good = isinstance(error, KilledWorker) or (
            isinstance(error, ActisketchError) and not isinstance(error, StorageError | WorkerNotReady)
        )
        if isinstance(error, WorkerNotReady):
            # It would take part after part, and fail each at once.
            logger.warning("worker %s is dismissed: %s", error.address, error)
            self._client.retire_workers([error.address])
        if not for_good and attempts <= self._limits.retries:
            logger.warning("%s %d is tried again: %s", self._what, part.index, error or "its task was lost")
            self._waiting.appendleft(part)
            return
        cause = error or IncompleteError(f"the task of {self._what} {part.index} was lost {attempts} times")
        logger.error("%s %d failed: %s", self._what, part.index, cause)
        self.failures[part.index] = cause
        if not self._n_finished and len(self.failures) >= self._limits.first_failures:
            raise cause


def _unregister(client: Client, name: str) -> None:
    if client.status != "running":
        return
    try:
        client.unregister_worker_plugin(name)
    except (OSError, TimeoutError, ValueError) as error:  # the run is over; workers forget it when they end
        logger.info("the workers do not know that the run is over: %s", error)


def raise_failures(failures: Mapping[int, BaseException], *, what: str, n_parts: int) -> None:
    """Raise `IncompleteError` if parts failed on every attempt: with their number, the first one and its cause."""
    if not failures:
        return
    index = min(failures)
    raise IncompleteError(
        f"{len(failures)} of {n_parts} {what}s failed on every attempt, all others are finished; {what} {index}: "
        f"{failures[index]}; remove the cause and run again to resume",
        failures={index: str(cause) for index, cause in sorted(failures.items())},
    ) from failures[index]
