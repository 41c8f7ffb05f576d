"""Record all missing blocks on a cluster: hand out, watch, retry, let go.

The coordinator. Workers write to the store themselves; all that comes back is that a block is done, and its
future is let go at once, so that neither the scheduler's memory nor the number of keys grows with the run.
"""

from __future__ import annotations

import logging
import queue
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...storage import Block, Cache
from ...storage.errors import ActisketchError, IncompleteError, InputError, StorageError
from ..events import BlockDone, OnEvent, ignore_event
from ..recorder import BLOCKS_IN_FLIGHT
from ..sketch import SketchSpec
from .environment import check_versions
from .limits import Limits
from .reachability import token_in
from .recipes import Recipe
from .worker import BlockPlugin, WorkerNotReady, make_ready, run_block

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["record_missing_on"]

logger = logging.getLogger(__name__)

# Between two looks at the cluster's health, in seconds; blocks that finish are seen at once.
LOOK_S = 1.0


def record_missing_on(
    client: Client,
    cache: Cache,
    recipe: Recipe,
    *,
    sketch: SketchSpec,
    storage_options: Mapping[str, Any] | None = None,
    n_threads: int | None = None,
    limits: Limits | None = None,
    order: Callable[[Sequence[Block]], Sequence[Block]] = tuple,
    on_event: OnEvent = ignore_event,
) -> int:
    """Record every block that the cache lacks on the workers of a Dask cluster.

    Parameters
    ----------
    client : distributed.Client
        Of the cluster. Workers may come and go.
    cache : Cache
        Open for writing here; the workers attach to the same place.
    recipe : Recipe
        How a worker makes its producer.
    sketch : SketchSpec
        How finely to sketch.
    storage_options : mapping, optional
        As the cache was opened with.
    n_threads : int, optional
        TensorFlow threads of each worker; default: ``dask worker --nthreads``.
    limits : Limits, optional
        Retries and patience.
    order : callable
        In which order blocks are handed out; any gives the same bytes.
    on_event : callable
        Told about each block.

    Returns
    -------
    int
        How many blocks were computed.

    Raises
    ------
    MismatchError
        If the workers have other versions than this process: with the table, before the run.
    InputError
        If a worker cannot reach the cache, the network or the data: before the run.
    IncompleteError
        If blocks failed everywhere (``failures`` names index and cause; the others are finished), the scheduler
        was lost, or no worker was left. Run again to resume.
    """
    limits = limits or Limits()
    blocks = cache.missing()
    if not blocks:
        return 0
    check_versions(client)
    name = f"actisketch-{secrets.token_hex(6)}"
    with token_in(cache, storage_options or {}) as token:
        largest = max(block.stop - block.start for block in blocks)
        plugin = BlockPlugin(name, recipe, token, sketch=sketch, largest_block=largest, n_threads=n_threads)
        client.register_plugin(plugin, name=name)
        try:
            _prepare_workers(client, name)
            run = _Run(client, name, limits, on_event, sample_nbytes=_sample_nbytes(cache))
            run.record(order(blocks))
        finally:
            _unregister(client, name)
    still = {block.index for block in cache.missing()} - set(run.failures)
    if still:
        raise StorageError(
            f"{len(still)} blocks were written by workers but are not in {cache.url!r} (the first is "
            f"{min(still)}): do all hosts see the same folder?",
            blocks=sorted(still),
        )
    _raise_failures(run.failures, n_blocks=len(blocks))
    return len(blocks)


def _prepare_workers(client: Client, name: str) -> None:
    """Load the network in every worker there is now; refuse the run if one cannot."""
    started = time.monotonic()
    answers: Mapping[str, Any] = client.run(make_ready, name, on_error="return")
    wrong = {address: str(answer) for address, answer in answers.items() if answer}
    if wrong:
        address, cause = min(wrong.items())
        raise InputError(
            f"{len(wrong)} of {len(answers)} workers cannot work; {address}: {cause}", workers=dict(wrong)
        )
    logger.info("%d workers ready after %.1f s", len(answers), time.monotonic() - started)


class _Run:
    """The blocks of one run on their way."""

    def __init__(
        self, client: Client, name: str, limits: Limits, on_event: OnEvent, *, sample_nbytes: int
    ) -> None:
        self._client, self._name, self._limits, self._on_event = client, name, limits, on_event
        self._sample_nbytes = sample_nbytes
        self._waiting: deque[Block] = deque()
        self._running: dict[int, tuple[Block, Future]] = {}
        self._suspects: deque[Block] = deque()
        self._alone: set[int] = set()
        self._attempts: dict[int, int] = {}
        self._done: queue.SimpleQueue[tuple[int, Future]] = queue.SimpleQueue()
        self._n_finished = 0
        self._n_workers = 1
        self._looked = self._alive = self._worked = time.monotonic()
        self.failures: dict[int, BaseException] = {}

    def record(self, blocks: Sequence[Block]) -> None:
        """Hand out blocks until all are finished or have failed."""
        self._waiting.extend(blocks)
        try:
            while self._waiting or self._running or self._suspects:
                self._look()
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
        window = self._limits.window(self._n_workers, BLOCKS_IN_FLIGHT)
        while self._waiting and len(self._running) < window:
            block = self._waiting.popleft()
            attempt = self._attempts.get(block.index, 0)
            future = self._client.submit(
                run_block, self._name, block, key=f"{self._name}-{block.index}-{attempt}", pure=False
            )
            self._running[block.index] = (block, future)
            future.add_done_callback(lambda done, index=block.index: self._done.put((index, done)))

    def _take(self, index: int, future: Future) -> None:
        running = self._running.get(index)
        if running is None or (running[1] is not future and running[1].key != future.key):
            return  # an attempt that was given up
        block, status = running[0], future.status
        del self._running[index]  # the last reference: the scheduler forgets the key
        if status == "finished":
            self._n_finished += 1
            n_samples = block.stop - block.start
            self._on_event(
                BlockDone(block=index, n_samples=n_samples, nbytes=n_samples * self._sample_nbytes)
            )
            return
        error = future.exception() if status == "error" else None
        self._retry_or_fail(block, error)

    def _retry_or_fail(self, block: Block, error: BaseException | None) -> None:
        from distributed import KilledWorker

        attempts = self._attempts[block.index] = self._attempts.get(block.index, 0) + 1
        if isinstance(error, KilledWorker) and block.index not in self._alone:
            # Two blocks are in a worker at a time, so that the other one may have killed it. At the end, when
            # nothing else runs, each of them gets a worker for itself.
            logger.warning(
                "block %d was in several workers that died: it is tried alone at the end", block.index
            )
            self._alone.add(block.index)
            self._suspects.append(block)
            return
        # Dask itself has given a killed block to several workers; wrong data stays wrong.
        for_good = isinstance(error, KilledWorker) or (
            isinstance(error, ActisketchError) and not isinstance(error, StorageError | WorkerNotReady)
        )
        if isinstance(error, WorkerNotReady):
            # It would take every block, and fail each at once.
            logger.warning("worker %s is sent home: %s", error.address, error)
            self._client.retire_workers([error.address])
        if not for_good and attempts <= self._limits.retries:
            logger.warning("block %d is tried again: %s", block.index, error or "its task was lost")
            self._waiting.appendleft(block)
            return
        cause = error or IncompleteError(f"the task of block {block.index} was lost {attempts} times")
        logger.error("block %d failed: %s", block.index, cause)
        self.failures[block.index] = cause
        if not self._n_finished and len(self.failures) >= self._limits.first_failures:
            raise cause

    def _look(self) -> None:
        """Notice, at most once in ``LOOK_S``, that the scheduler or all workers are gone."""
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        address = self._client.scheduler.address if self._client.scheduler else "the scheduler"
        if self._client.status == "running":
            self._alive = now
            self._n_workers = len(self._client.nthreads())
        elif self._client.status == "closed" or now - self._alive > self._limits.scheduler_silence_s:
            raise IncompleteError(
                f"the connection to {address} was lost: finished blocks are kept, run again to resume"
            )
        if self._n_workers:
            self._worked = now
        elif now - self._worked > self._limits.no_workers_s:
            raise IncompleteError(
                f"no worker was left for {self._limits.no_workers_s:.0f} s at {address}: finished blocks are kept; "
                "start workers and run again to resume"
            )


def _unregister(client: Client, name: str) -> None:
    if client.status != "running":
        return
    try:
        client.unregister_worker_plugin(name)
    except (OSError, TimeoutError, ValueError) as error:  # the run is over; workers forget it when they end
        logger.info("the workers were not told that the run is over: %s", error)


def _sample_nbytes(cache: Cache) -> int:
    total = 0
    for point in cache.spec.points:
        n_values = 1
        for axis in point.shape:
            n_values *= axis
        total += 4 * n_values
    return total


def _raise_failures(failures: Mapping[int, BaseException], *, n_blocks: int) -> None:
    if not failures:
        return
    index = min(failures)
    raise IncompleteError(
        f"{len(failures)} of {n_blocks} blocks failed on every attempt, the others are finished; block {index}: "
        f"{failures[index]}; mend the cause and run again to resume",
        failures={index: str(cause) for index, cause in sorted(failures.items())},
    ) from failures[index]
