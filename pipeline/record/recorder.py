"""Record one block, and all missing blocks: the task that runs in process and on a cluster alike.

Knows producers and the cache. Does not know Keras, files or where the samples come from.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from ...storage import (
    Block,
    Cache,
    CacheSpec,
    CommitRecord,
    LastingThreads,
    WritingThreads,
    sample_nbytes,
)
from ..events import BlockDone, Event, OnEvent, SamplesDone, ignore_event
from ..sketch import SketchSpec
from .freed_memory import give_freed_memory_back
from .open_block import OpenBlock
from .producer import Producer

__all__ = ["BLOCKS_IN_FLIGHT", "record_block", "record_missing", "waiting_nbytes", "writing_threads"]

logger = logging.getLogger(__name__)

# Chunks that wait for the disk, or are being written. Two of the largest may, up to twice this, so that one is written
# while another one fills.
WAITING_NBYTES = 64 * 2**20
# One block is computed while the last chunks of the one before it are written, and it is committed.
BLOCKS_IN_FLIGHT = 2


def waiting_nbytes(spec: CacheSpec) -> int:
    """Return how many bytes of chunks may wait to be written: those of a block, which fill at about the same time."""
    block = min(spec.block_samples, spec.n_samples) * sample_nbytes(spec.points, spec.dtype)
    chunk_samples = spec.chunk_samples
    largest = max(chunk_samples[p.name] * sample_nbytes([p], spec.dtype) for p in spec.points)
    return min(block, max(WAITING_NBYTES, 2 * min(largest, WAITING_NBYTES)))


def writing_threads(spec: CacheSpec) -> WritingThreads:
    """Return threads that write the chunks of a cache."""
    return WritingThreads(most_nbytes=waiting_nbytes(spec))


def record_block(
    cache: Cache,
    producer: Producer,
    block: Block,
    *,
    sketch: SketchSpec,
    writing: WritingThreads | None = None,
    turn: AbstractContextManager[Any] | None = None,
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
    writing : WritingThreads, optional
        Threads that write chunks; default: some for this block alone.
    turn : context manager, optional
        Entered until the sketches are packed: they take much more memory than the record.

    Returns
    -------
    CommitRecord
        What was committed.
    """
    if cache.is_committed(block):
        return cache.read_commit(block)
    if writing is None:
        with writing_threads(cache.spec) as own, own:  # twice, as in record_missing
            return record_block(cache, producer, block, sketch=sketch, writing=own, turn=turn)
    opened = OpenBlock(cache, producer.points, block, spec=sketch, writing=writing)
    try:
        with turn or nullcontext():
            _hand_over(producer, block, opened)
        return opened.commit()
    except BaseException:
        opened.abandon()
        raise


def _hand_over(producer: Producer, block: Block, opened: OpenBlock) -> None:
    """Have the samples of a block computed and handed over."""
    producer.hand_over(block.start, block.stop, opened)
    opened.finish(producer.content_hash(block.start, block.stop))
    give_freed_memory_back()


def record_missing(
    cache: Cache, producer: Producer, *, sketch: SketchSpec, on_event: OnEvent = ignore_event
) -> int:
    """Record every block that the cache lacks, in this process.

    Samples are read in this thread, and computed in the producer's; their values are sketched, written and committed
    by others. ``on_event`` is called in the producer's thread and in the one that commits.
    When anything fails, or Ctrl-C is pressed, blocks that are computed are committed, nothing new is begun, and the
    error is raised. No thread is at work then, however often Ctrl-C was pressed.

    Returns
    -------
    int
        How many blocks were computed.
    """
    blocks = cache.missing()
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
        _raise_first_failure(pending)

    def commit(opened: OpenBlock, block: Block) -> None:
        try:
            opened.commit()
        except BaseException:
            opened.abandon()
            raise
        finally:
            available.release()
        nbytes = block.n_samples * sample_nbytes(producer.points)
        tell(BlockDone(block=block.index, n_samples=block.n_samples, nbytes=nbytes))

    # The committer ends first: it waits for what the other threads do. Both are ended twice: a second Ctrl-C may come
    # where the end of one has not begun.
    with (
        writing_threads(cache.spec) as writing,
        LastingThreads(1, name="actisketch-committer") as committer,
        writing,
        committer,
    ):
        for block in blocks:
            available.acquire()
            _raise_first_failure(pending)
            opened = OpenBlock(cache, producer.points, block, spec=sketch, writing=writing, on_batch=passed)
            try:
                _hand_over(producer, block, opened)
            except BaseException:
                opened.abandon()
                raise
            pending.append(Future())
            committer.submit(pending[-1], partial(commit, opened, block))
    _raise_first_failure(pending)
    if blocks:
        logger.info("recorded %d blocks", len(blocks))
    return len(blocks)


def _raise_first_failure(pending: list[Future[None]]) -> None:
    """Raise what a commit met; forget those that are done."""
    while pending and pending[0].done():
        pending.pop(0).result()
