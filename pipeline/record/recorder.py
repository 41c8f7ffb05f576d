"""Record one block, and all missing blocks: the task that runs in process and on a cluster alike.

Knows producers, sketches and the cache. Does not know Keras, files or where the samples come from.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait

import numpy as np
from numpy.typing import NDArray

from ...storage import Block, Cache, CommitRecord, PointSpec, SampleRange, sample_nbytes
from ...storage.errors import InputError
from ..events import BlockDone, Event, OnEvent, SamplesDone, ignore_event
from ..sketch import SketchSpec
from .point_sketch import add_up, channel_axis_of, empty_sketch, sketch_nbytes, with_channels
from .producer import Producer

__all__ = [
    "BLOCKS_IN_FLIGHT",
    "JOINED_NBYTES",
    "RECORDING_THREADS",
    "SLAB_NBYTES",
    "UNMERGED_NBYTES",
    "record_block",
    "record_missing",
    "recording_threads",
    "slab_samples",
]

logger = logging.getLogger(__name__)

# One slab is computed while the one before it is sketched and written. A third would only wait:
# whichever side is slower sets the pace.
BLOCKS_IN_FLIGHT = 2

# Bytes of activations that are collected before they are sketched and written. A block is one slab, unless the
# network is so large that the chunks of its small layers would be tiny: then it is several.
SLAB_NBYTES = 512 * 2**20

# Points are sketched and written by several threads, since a network on two cores computes more values than one core
# sketches; more of them than cores, since half of the time they wait for the disk (4 against 2 on two cores: 1.1x).
RECORDING_THREADS = 4
# Small batches of a point are joined up to this size: a call for each costs more than the copy.
JOINED_NBYTES = 8 * 2**20
# A sketch keeps what its updates add apart, since adding up many together is faster: in an open block so much of it
# over all points.
UNMERGED_NBYTES = 32 * 2**20


def slab_samples(
    points: Sequence[PointSpec], *, batch_size: int, block_samples: int, slab_nbytes: int | None = None
) -> int:
    """Return how many samples of a block are collected at a time.

    Parameters
    ----------
    points : sequence of PointSpec
        Points to record.
    batch_size, block_samples : int
        Of the cache.
    slab_nbytes : int, optional
        Bytes of activations that may be collected; default: ``SLAB_NBYTES``.

    Returns
    -------
    int
        Whole batches that divide ``block_samples`` evenly: as many as fit ``slab_nbytes``, at least one batch.
    """
    batch_nbytes = batch_size * sample_nbytes(points)
    n_batches = block_samples // batch_size
    most = (SLAB_NBYTES if slab_nbytes is None else slab_nbytes) // batch_nbytes
    fitting = [n for n in range(1, min(n_batches, most) + 1) if n_batches % n == 0]
    return batch_size * max(fitting, default=1)


Collected = dict[str, list[NDArray[np.float32]]]
"""Activations of the samples of a slab by point, batch after batch: the producer's own memory, not a copy."""


def collect(
    producer: Producer, slab: SampleRange, on_batch: Callable[[int], None] | None = None
) -> Collected:
    """Return the activations of some samples.

    Parameters
    ----------
    producer : Producer
        Computes the activations.
    slab : SampleRange
        A block or a part of one.
    on_batch : callable, optional
        Called after each batch with its number of samples.

    Raises
    ------
    InputError
        If the producer gives another number of samples, or another shape, than it announced.
    """
    n_filled, n_wanted = 0, slab.stop - slab.start
    collected: Collected = {point.name: [] for point in producer.points}
    for batch in producer.batches(slab.start, slab.stop):
        n_batch = len(next(iter(batch.values())))
        for point in producer.points:
            array = batch[point.name]
            if array.shape != (n_batch, *point.shape) or n_filled + n_batch > n_wanted:
                raise InputError(
                    f"point {point.name!r}, block {slab.index}: expected samples of shape {point.shape}, "
                    f"{n_wanted} of them, got an array of shape {array.shape} after {n_filled}",
                    point=point.name,
                    block=slab.index,
                )
            collected[point.name].append(array)
        n_filled += n_batch
        if on_batch is not None:
            on_batch(n_batch)
    if n_filled != n_wanted:
        raise InputError(
            f"samples {slab.start} to {slab.stop - 1} of block {slab.index} were asked for, the producer gave "
            f"{n_filled}: the data has become shorter since the job was planned",
            block=slab.index,
        )
    return collected


class _Joint:
    """Memory of one thread in which small batches are put together; touched once, used for every point."""

    _of_thread = threading.local()

    @classmethod
    def joined(cls, arrays: Sequence[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Yield the same samples in fewer arrays, each valid until the next one is asked for."""
        group: list[NDArray[np.float32]] = []
        for array in arrays:
            if group and sum(each.nbytes for each in group) + array.nbytes > JOINED_NBYTES:
                yield cls._together(group)
                group = []
            group.append(array)
        if group:
            yield cls._together(group)

    @classmethod
    def _together(cls, group: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        if len(group) == 1:
            return group[0]
        if not hasattr(cls._of_thread, "memory"):
            cls._of_thread.memory = np.empty(JOINED_NBYTES // 4, np.float32)
        n_samples, shape = sum(map(len, group)), group[0].shape[1:]
        out: NDArray[np.float32] = cls._of_thread.memory[: n_samples * math.prod(shape)]
        return np.concatenate(group, out=out.reshape(n_samples, *shape))


def slabs_of(block: Block, n_samples: int) -> Iterator[SampleRange]:
    """Yield the parts of a block that are collected at a time."""
    for start in range(block.start, block.stop, n_samples):
        yield SampleRange(block.index, start, min(start + n_samples, block.stop))


class _OpenBlock:
    """A block that is being sketched and written, slab by slab."""

    def __init__(self, cache: Cache, points: Sequence[PointSpec], block: Block, spec: SketchSpec) -> None:
        # The largest first, so that no thread is left with one at the end.
        self._block, self._points = block, sorted(points, key=lambda point: -point.n_values)
        self._writer = cache.write(block)
        self._records = cache.spec.keeps_activations
        self._sketches = {point.name: empty_sketch(spec, point) for point in points}
        self._n_samples = dict.fromkeys(self._sketches, 0)
        """Done so far."""
        self._merged_nbytes = dict.fromkeys(self._sketches, 0)
        """Of each sketch, when its parts were last added up."""
        self._is_whole = True

    def add(self, collected: Collected, pool: Executor | None = None) -> None:
        """Sketch and write the next samples, several points at a time where there is a pool.

        The memory of a point is freed when it is written.
        """
        if not self._is_whole:
            return  # a slab before this one failed, and its error is on the way
        try:
            if pool is None:
                for point in self._points:
                    self._add_point(point, collected)
                return
            points = [pool.submit(self._add_point, point, collected) for point in self._points]
            # All of them, before an error is raised: the writer's memory is freed then.
            wait(points)
            for each in points:
                each.result()
        except BaseException:
            self.abandon()
            raise

    def _add_point(self, point: PointSpec, collected: Collected) -> None:
        sketch = self._sketches[point.name]
        for array in _Joint.joined(collected.pop(point.name)):
            sketch.update(
                with_channels(array),
                channel_axis=channel_axis_of(point),
                point=point.name,
                block=self._block.index,
                first_sample=self._n_samples[point.name],
            )
            if self._records:
                self._writer.append({point.name: array})
            self._n_samples[point.name] += len(array)
            self._spare_memory(point.name)

    def _spare_memory(self, name: str) -> None:
        """Add the parts of a sketch up when they have become more than its share."""
        sketch = self._sketches[name]
        if sketch_nbytes(sketch) - self._merged_nbytes[name] > UNMERGED_NBYTES // len(self._points):
            add_up(sketch)
            self._merged_nbytes[name] = sketch_nbytes(sketch)

    def commit(self, content_hash: str) -> CommitRecord | None:
        """Commit the block, unless a slab failed."""
        if not self._is_whole:
            return None
        # Each is freed when it is packed: many points are not in memory twice.
        sketches = {name: self._sketches.pop(name).to_bytes() for name in list(self._sketches)}
        with self._writer:
            # What the samples were is kept with the block: a resumed run compares it with the data it has.
            return self._writer.commit(sketches, {"data": content_hash})

    def abandon(self) -> None:
        """Free the writer's memory; the block stays missing."""
        self._is_whole = False
        self._writer.__exit__(None, None, None)


def recording_threads(n_threads: int | None = None) -> ThreadPoolExecutor:
    """Return the threads that sketch and write: ``RECORDING_THREADS``, or fewer where ``n_threads`` says so."""
    n_threads = min(n_threads or RECORDING_THREADS, RECORDING_THREADS)
    return ThreadPoolExecutor(n_threads, thread_name_prefix="actisketch-point")


def record_block(
    cache: Cache,
    producer: Producer,
    block: Block,
    *,
    sketch: SketchSpec,
    slab: int | None = None,
    pool: Executor | None = None,
) -> CommitRecord:
    """Compute, sketch and commit one block. May run twice: same name, same bytes.

    Parameters
    ----------
    cache : Cache
        Open for writing.
    producer : Producer
        Computes the activations.
    block : Block
        The samples to record.
    sketch : SketchSpec
        Sketch resolution.
    slab : int, optional
        Samples that are collected at a time, from the plan; default: as :func:`slab_samples`. It does not affect the
        bytes.
    pool : Executor, optional
        Threads that sketch and write several points at a time.

    Returns
    -------
    CommitRecord
        What was committed.
    """
    if cache.is_committed(block):
        return cache.read_commit(block)
    n_slab = slab or _default_slab(cache, producer)
    opened = _OpenBlock(cache, producer.points, block, sketch)
    try:
        for part in slabs_of(block, n_slab):
            opened.add(collect(producer, part), pool)
        record = opened.commit(producer.content_hash(block.start, block.stop))
    except BaseException:
        opened.abandon()
        raise
    assert record is not None  # nothing failed
    return record


def record_missing(
    cache: Cache,
    producer: Producer,
    *,
    sketch: SketchSpec,
    slab: int | None = None,
    on_event: OnEvent = ignore_event,
) -> int:
    """Record every block that the cache lacks, in this process; ``slab`` as for :func:`record_block`.

    Samples are computed in this thread and sketched and written in others; at most
    ``BLOCKS_IN_FLIGHT`` slabs are in memory. When anything fails, or Ctrl-C is pressed, the block that is
    being written is finished, nothing new is begun, and the error is raised.

    Returns
    -------
    int
        How many blocks were computed.
    """
    blocks = cache.missing()
    if not blocks:
        return 0
    n_slab = slab or _default_slab(cache, producer)
    available = threading.Semaphore(BLOCKS_IN_FLIGHT)
    pending: list[Future[None]] = []
    telling = threading.Lock()
    n_passed = 0

    def tell(event: Event) -> None:
        with telling:  # two threads tell, a listener hears one at a time
            on_event(event)

    def passed(n_samples: int) -> None:
        nonlocal n_passed
        n_passed += n_samples
        tell(SamplesDone(n_done=n_passed))

    def add(opened: _OpenBlock, collected: Collected) -> None:
        try:
            opened.add(collected, pool)
        finally:
            collected.clear()
            available.release()

    def commit(opened: _OpenBlock, block: Block, content_hash: str) -> None:
        if opened.commit(content_hash) is not None:
            nbytes = block.n_samples * sample_nbytes(producer.points)
            tell(BlockDone(block=block.index, n_samples=block.n_samples, nbytes=nbytes))

    with (
        recording_threads() as pool,
        ThreadPoolExecutor(1, thread_name_prefix="actisketch-writer") as writer,
    ):
        try:
            for block in blocks:
                opened = _OpenBlock(cache, producer.points, block, sketch)
                for part in slabs_of(block, n_slab):
                    available.acquire()
                    _raise_first_failure(pending)
                    pending.append(writer.submit(add, opened, collect(producer, part, passed)))
                # Here and not in the writer: a stream has one place, and two threads would restart it.
                content_hash = producer.content_hash(block.start, block.stop)
                pending.append(writer.submit(commit, opened, block, content_hash))
        except BaseException:
            # What is collected is at most two slabs: a block that is whole is committed, the rest is dropped.
            writer.shutdown()
            raise
    _raise_first_failure(pending)
    logger.info("recorded %d blocks", len(blocks))
    return len(blocks)


def _default_slab(cache: Cache, producer: Producer) -> int:
    spec = cache.spec
    return slab_samples(producer.points, batch_size=spec.batch_size, block_samples=spec.block_samples)


def _raise_first_failure(pending: list[Future[None]]) -> None:
    """Raise what the writer met; forget what it finished."""
    while pending and pending[0].done():
        pending.pop(0).result()
