"""Record one block, and all missing blocks: the task that runs in process and on a cluster alike.

Knows producers, sketches and the cache. Does not know Keras, files or where the samples come from.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from ..storage import Block, Cache, CommitRecord, PointSpec
from ..storage.errors import InputError
from .events import BlockDone, OnEvent, ignore_event
from .producer import Producer
from .sketch import PointSketch, SketchSpec

__all__ = ["BLOCKS_IN_FLIGHT", "BlockBuffers", "record_block", "record_missing"]

logger = logging.getLogger(__name__)

# One block is computed while the one before it is sketched and written. A third would only wait:
# whichever side is slower sets the pace.
BLOCKS_IN_FLIGHT = 2


class BlockBuffers:
    """Memory for the activations of one block, used again for every block.

    First touch of fresh memory runs at 0.7-2 GB/s, slower than many a network computes.

    Parameters
    ----------
    points : sequence of PointSpec
        Where is recorded.
    n_samples : int
        Samples of the largest block.
    """

    def __init__(self, points: Sequence[PointSpec], n_samples: int) -> None:
        self._arrays = {p.name: np.empty((n_samples, *p.shape), np.float32) for p in points}

    def collect(self, producer: Producer, block: Block) -> dict[str, NDArray[np.float32]]:
        """Return the activations of a block, ``{point: (block samples, *point shape)}``; views of this memory.

        Raises
        ------
        InputError
            If the producer gives another number of samples, or another shape, than it announced.
        """
        n_filled, n_wanted = 0, block.stop - block.start
        for batch in producer.batches(block.start, block.stop):
            n_batch = len(next(iter(batch.values())))
            for name, target in self._arrays.items():
                array = batch[name]
                if (
                    len(array) != n_batch
                    or array.shape[1:] != target.shape[1:]
                    or n_filled + n_batch > n_wanted
                ):
                    raise InputError(
                        f"point {name!r}, block {block.index}: expected samples of shape {target.shape[1:]}, "
                        f"{n_wanted} in the block, got an array of shape {array.shape} after {n_filled}",
                        point=name,
                        block=block.index,
                    )
                target[n_filled : n_filled + n_batch] = array
            n_filled += n_batch
        if n_filled != n_wanted:
            raise InputError(
                f"block {block.index} has {n_wanted} samples, the producer gave {n_filled}: "
                "the data has become shorter since the job was planned",
                block=block.index,
            )
        return {name: array[:n_filled] for name, array in self._arrays.items()}


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
    buffers = buffers or BlockBuffers(producer.points, block.stop - block.start)
    arrays = buffers.collect(producer, block)
    return _commit(cache, producer.points, block, arrays, sketch, producer.digest(block.start, block.stop))


def _commit(
    cache: Cache,
    points: Sequence[PointSpec],
    block: Block,
    arrays: Mapping[str, NDArray[np.float32]],
    spec: SketchSpec,
    digest: str,
) -> CommitRecord:
    sketches = {}
    for point in points:
        array = arrays[point.name]
        n_channels = array.shape[point.channel_axis] if spec.per_channel and point.shape else None
        sketch = PointSketch.empty(spec, n_channels=n_channels)
        sketch.update(array, channel_axis=point.channel_axis, point=point.name, block=block.index)
        sketches[point.name] = sketch.to_bytes()
    # What the samples were is kept with the block: a resumed run compares it with the data it has.
    return cache.write_block(block, arrays if cache.spec.record else None, sketches, {"data": digest})


def record_missing(
    cache: Cache,
    producer: Producer,
    *,
    sketch: SketchSpec,
    on_event: OnEvent = ignore_event,
) -> int:
    """Record every block that the cache lacks, in this process.

    Blocks are computed in this thread and sketched and written in another; at most
    ``BLOCKS_IN_FLIGHT`` are in memory. When anything fails, or Ctrl-C is pressed, the block that is
    being written is finished, nothing new is begun, and the error goes on.

    Returns
    -------
    int
        How many blocks were computed.
    """
    blocks = cache.missing()
    if not blocks:
        return 0
    n_largest = max(block.stop - block.start for block in blocks)
    # All buffers exist before the first block, so that a run that starts has its memory.
    free = [BlockBuffers(producer.points, n_largest) for _ in range(min(BLOCKS_IN_FLIGHT, len(blocks)))]
    available = threading.Semaphore(len(free))
    pending: list[Future[None]] = []

    def commit(
        block: Block, arrays: Mapping[str, NDArray[np.float32]], digest: str, buffers: BlockBuffers
    ) -> None:
        try:
            _commit(cache, producer.points, block, arrays, sketch, digest)
        finally:
            free.append(buffers)
            available.release()
        nbytes = sum(array.nbytes for array in arrays.values())
        on_event(BlockDone(block=block.index, n_samples=block.stop - block.start, nbytes=nbytes))

    with ThreadPoolExecutor(1, thread_name_prefix="actisketch-writer") as writer:
        try:
            for block in blocks:
                available.acquire()
                _raise_first_failure(pending)
                buffers = free.pop()
                arrays = buffers.collect(producer, block)
                # Here and not in the writer: a stream has one place, and reading it from two threads would restart it.
                digest = producer.digest(block.start, block.stop)
                pending.append(writer.submit(commit, block, arrays, digest, buffers))
        except BaseException:
            writer.shutdown(cancel_futures=True)
            raise
    _raise_first_failure(pending)
    logger.info("recorded %d blocks", len(blocks))
    return len(blocks)


def _raise_first_failure(pending: list[Future[None]]) -> None:
    """Raise what the writer met; forget what it finished."""
    while pending and pending[0].done():
        pending.pop(0).result()
