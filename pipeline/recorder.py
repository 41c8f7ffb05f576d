"""Record one block, and all missing blocks: the task that runs in process and on a cluster alike.

Knows producers, sketches and the cache. Does not know Keras, files or where the samples come from.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from ..storage import Block, Cache, CommitRecord, PointSpec
from ..storage.errors import InputError
from .events import BlockDone, OnEvent, ignore_event
from .producer import Producer
from .sketch import PointSketch, SketchSpec

__all__ = [
    "BLOCKS_IN_FLIGHT",
    "SLAB_NBYTES",
    "BlockBuffers",
    "record_block",
    "record_missing",
    "slab_samples",
]

logger = logging.getLogger(__name__)

# One slab is computed while the one before it is sketched and written. A third would only wait:
# whichever side is slower sets the pace.
BLOCKS_IN_FLIGHT = 2

# So many bytes of activations are collected before they are sketched and written. A block is one slab, unless the
# network is so large that the chunks of its small layers would be tiny: then it is several.
SLAB_NBYTES = 512 * 2**20


def slab_samples(points: Sequence[PointSpec], *, batch_size: int, block_samples: int) -> int:
    """Return how many samples of a block are collected at a time.

    Parameters
    ----------
    points : sequence of PointSpec
        Where is recorded.
    batch_size, block_samples : int
        Of the cache.

    Returns
    -------
    int
        Whole batches, a part of ``block_samples`` without a rest: the largest within ``SLAB_NBYTES``, at least a batch.
    """
    batch_nbytes = 4 * batch_size * sum(math.prod(point.shape) for point in points)
    n_batches = block_samples // batch_size
    fitting = [n for n in range(1, n_batches + 1) if n_batches % n == 0 and n * batch_nbytes <= SLAB_NBYTES]
    return batch_size * max(fitting, default=1)


class BlockBuffers:
    """Memory for the activations of one slab of samples, used again for every slab.

    First touch of fresh memory runs at 0.7-2 GB/s, slower than many a network computes.

    Parameters
    ----------
    points : sequence of PointSpec
        Where is recorded.
    n_samples : int
        Samples of the largest slab; see :func:`slab_samples`.
    """

    def __init__(self, points: Sequence[PointSpec], n_samples: int) -> None:
        self._arrays = {p.name: np.empty((n_samples, *p.shape), np.float32) for p in points}

    @property
    def n_samples(self) -> int:
        """How many samples they hold."""
        return min((len(array) for array in self._arrays.values()), default=0)

    def collect(self, producer: Producer, slab: Block) -> dict[str, NDArray[np.float32]]:
        """Return the activations of some samples, ``{point: (n_samples, *point shape)}``; views of this memory.

        Parameters
        ----------
        producer : Producer
            Where from.
        slab : Block
            A block or a part of one: its index, and which samples.

        Raises
        ------
        InputError
            If the producer gives another number of samples, or another shape, than it announced.
        """
        n_filled, n_wanted = 0, slab.stop - slab.start
        for batch in producer.batches(slab.start, slab.stop):
            n_batch = len(next(iter(batch.values())))
            for name, target in self._arrays.items():
                array = batch[name]
                shape_fits = len(array) == n_batch and array.shape[1:] == target.shape[1:]
                if not shape_fits or n_filled + n_batch > n_wanted:
                    raise InputError(
                        f"point {name!r}, block {slab.index}: expected samples of shape {target.shape[1:]}, "
                        f"{n_wanted} of them, got an array of shape {array.shape} after {n_filled}",
                        point=name,
                        block=slab.index,
                    )
                target[n_filled : n_filled + n_batch] = array
            n_filled += n_batch
        if n_filled != n_wanted:
            raise InputError(
                f"samples {slab.start} to {slab.stop - 1} of block {slab.index} were asked for, the producer gave "
                f"{n_filled}: the data has become shorter since the job was planned",
                block=slab.index,
            )
        return {name: array[:n_filled] for name, array in self._arrays.items()}


def slabs_of(block: Block, n_samples: int) -> Iterator[Block]:
    """Yield the parts of a block that are collected at a time."""
    for start in range(block.start, block.stop, n_samples):
        yield Block(block.index, start, min(start + n_samples, block.stop))


class _OpenBlock:
    """A block that is being sketched and written, slab by slab."""

    def __init__(self, cache: Cache, points: Sequence[PointSpec], block: Block, spec: SketchSpec) -> None:
        self._block, self._points = block, points
        self._writer = cache.write(block)
        self._records = cache.spec.record
        self._sketches = {point.name: _empty_sketch(spec, point) for point in points}
        self._is_whole = True

    def add(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Sketch and write the next samples."""
        if not self._is_whole:
            return  # a slab before this one failed, and its error is on the way
        try:
            for point in self._points:
                self._sketches[point.name].update(
                    arrays[point.name],
                    channel_axis=point.channel_axis,
                    point=point.name,
                    block=self._block.index,
                )
            if self._records:
                self._writer.append(arrays)
        except BaseException:
            self.abandon()
            raise

    def commit(self, digest: str) -> CommitRecord | None:
        """Commit the block, unless a slab failed."""
        if not self._is_whole:
            return None
        sketches = {name: sketch.to_bytes() for name, sketch in self._sketches.items()}
        with self._writer:
            # What the samples were is kept with the block: a resumed run compares it with the data it has.
            return self._writer.commit(sketches, {"data": digest})

    def abandon(self) -> None:
        """Give the writer's memory back; the block stays missing."""
        self._is_whole = False
        self._writer.__exit__(None, None, None)


def _empty_sketch(spec: SketchSpec, point: PointSpec) -> PointSketch:
    # The channel axis counts the samples' axis too; only its size matters here.
    n_channels = (0, *point.shape)[point.channel_axis] if spec.per_channel and point.shape else None
    return PointSketch.empty(spec, n_channels=n_channels)


def record_block(
    cache: Cache,
    producer: Producer,
    block: Block,
    *,
    sketch: SketchSpec,
    buffers: BlockBuffers | None = None,
) -> CommitRecord:
    """Compute, sketch and commit one block. May run twice: same name, same bytes.

    Parameters
    ----------
    cache : Cache
        Where to; open for writing.
    producer : Producer
        Where from.
    block : Block
        Which samples.
    sketch : SketchSpec
        How finely to sketch.
    buffers : BlockBuffers, optional
        Memory to use again.

    Returns
    -------
    CommitRecord
        What was committed.
    """
    if cache.is_committed(block):
        return cache.read_record(block)
    spec = cache.spec
    n_slab = slab_samples(producer.points, batch_size=spec.batch_size, block_samples=spec.block_samples)
    buffers = buffers or BlockBuffers(producer.points, min(n_slab, block.n_samples))
    opened = _OpenBlock(cache, producer.points, block, sketch)
    try:
        for slab in slabs_of(block, n_slab):
            opened.add(buffers.collect(producer, slab))
        record = opened.commit(producer.digest(block.start, block.stop))
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
    on_event: OnEvent = ignore_event,
) -> int:
    """Record every block that the cache lacks, in this process.

    Samples are computed in this thread and sketched and written in another; at most
    ``BLOCKS_IN_FLIGHT`` slabs are in memory. When anything fails, or Ctrl-C is pressed, the block that is
    being written is finished, nothing new is begun, and the error goes on.

    Returns
    -------
    int
        How many blocks were computed.
    """
    blocks = cache.missing()
    if not blocks:
        return 0
    spec = cache.spec
    n_slab = slab_samples(producer.points, batch_size=spec.batch_size, block_samples=spec.block_samples)
    n_slabs = sum(-(-block.n_samples // n_slab) for block in blocks)
    n_largest = min(n_slab, max(block.n_samples for block in blocks))
    # All buffers exist before the first block, so that a run that starts has its memory.
    free = [BlockBuffers(producer.points, n_largest) for _ in range(min(BLOCKS_IN_FLIGHT, n_slabs))]
    available = threading.Semaphore(len(free))
    pending: list[Future[None]] = []

    def add(opened: _OpenBlock, arrays: Mapping[str, NDArray[np.float32]], buffers: BlockBuffers) -> None:
        try:
            opened.add(arrays)
        finally:
            free.append(buffers)
            available.release()

    def commit(opened: _OpenBlock, block: Block, digest: str) -> None:
        if opened.commit(digest) is not None:
            nbytes = 4 * block.n_samples * sum(math.prod(point.shape) for point in producer.points)
            on_event(BlockDone(block=block.index, n_samples=block.n_samples, nbytes=nbytes))

    with ThreadPoolExecutor(1, thread_name_prefix="actisketch-writer") as writer:
        try:
            for block in blocks:
                opened = _OpenBlock(cache, producer.points, block, sketch)
                for slab in slabs_of(block, n_slab):
                    available.acquire()
                    _raise_first_failure(pending)
                    buffers = free.pop()
                    arrays = buffers.collect(producer, slab)
                    pending.append(writer.submit(add, opened, arrays, buffers))
                # Here and not in the writer: a stream has one place, and two threads would restart it.
                digest = producer.digest(block.start, block.stop)
                pending.append(writer.submit(commit, opened, block, digest))
        except BaseException:
            # What is collected is at most two slabs: a block that is whole is committed, the rest is dropped.
            writer.shutdown()
            raise
    _raise_first_failure(pending)
    logger.info("recorded %d blocks", len(blocks))
    return len(blocks)


def _raise_first_failure(pending: list[Future[None]]) -> None:
    """Raise what the writer met; forget what it finished."""
    while pending and pending[0].done():
        pending.pop(0).result()
