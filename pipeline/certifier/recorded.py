"""The activations of the original as a cache holds them: read chunk by chunk, checked, ahead of the pass that asks.

Knows caches. Knows nothing of networks.
"""

from __future__ import annotations

import logging
import mmap
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ...storage import Cache, CacheSpec, LastingThreads, sample_nbytes
from ...storage.codecs import CODECS
from ..graph import Graph
from .value_comparison import ComparedValue

__all__ = ["AHEAD_NBYTES", "RecordedSamples", "reading_nbytes", "recorded_points"]

logger = logging.getLogger(__name__)

AHEAD_NBYTES = 64 * 2**20
"""Chunks that are read before they are needed; one chunk at least."""
READING_THREADS = 2
SPARE_NBYTES = 128 * 2**20
CHECKSUM_NBYTES = 4

_Key = tuple[str, int]
"""A point, and the number of a chunk of it."""


@dataclass(frozen=True, slots=True)
class _Chunk:
    values: NDArray[Any]
    memory: memoryview
    """Where they lie, and what is used again."""


def chunk_nbytes(spec: CacheSpec, points: Iterable[str]) -> dict[str, int]:
    """Return the bytes of a chunk of each of some points, in memory."""
    sizes = spec.chunk_samples
    return {name: sizes[name] * sample_nbytes([spec.point(name)], spec.dtype) for name in points}


def reading_nbytes(spec: CacheSpec) -> int:
    """Return the memory in bytes that reading recorded activations takes; 0 if those of such a cache are not read."""
    if not _is_exact(spec):
        return 0
    sizes = chunk_nbytes(spec, (point.name for point in spec.points))
    held = sum(n for name, n in sizes.items() if spec.chunk_samples[name] > spec.batch_size)
    most = AHEAD_NBYTES + SPARE_NBYTES + 2 * max(sizes.values())
    passing = min(most, spec.n_samples * sample_nbytes(spec.points))
    # A compressed chunk is in memory in both forms.
    return held + passing * (1 if CODECS[spec.codec] is None else 2)


def _is_exact(spec: CacheSpec) -> bool:
    return spec.keeps_activations and spec.dtype == "float32"


def recorded_points(
    cache: Cache | None, graph: Graph, compared: Mapping[int, ComparedValue], *, n_samples: int
) -> dict[int, str] | str:
    """Return the point of a cache that holds each compared value of the original, by its index.

    Or else why the original must run: the cache holds sketches only, fewer samples or rounded values, or not all that
    is compared, such as an output of the network that is no point. Without a cache the reason is empty.
    """
    if cache is None:
        return ""
    spec = cache.spec
    names = {point.name for point in spec.points}
    by_value = {point.value: name for name, point in graph.every_point.items() if name in names}
    missing = [each.name for each in compared.values() if each.value not in by_value]
    reasons = {
        "the cache holds sketches only": not spec.keeps_activations,
        f"the cache holds {spec.dtype}, which rounds": spec.dtype != "float32",
        f"the cache holds {spec.n_samples} samples of {n_samples}": spec.n_samples < n_samples,
        f"{missing[0] if missing else None!r} was not recorded": bool(missing),
    }
    if why := next((reason for reason, is_so in reasons.items() if is_so), None):
        logger.info("the certificate does not read the cache %s: %s", cache.url, why)
        return why
    return {index: by_value[each.value] for index, each in compared.items()}


class RecordedSamples:
    """Recorded activations of consecutive batches; use it in a ``with``.

    Parameters
    ----------
    cache : Cache
        With activations in float32.
    points : sequence of str
        In the order in which they will be asked for.
    steps : sequence of (start, stop)
        The batches, in order.

    Notes
    -----
    Memory holds what is read ahead, the chunk that is being compared, and those that the next batch begins with. A
    point that is asked for out of order is read at once, so no order makes it wait for ever.
    """

    def __init__(self, cache: Cache, points: Sequence[str], steps: Sequence[tuple[int, int]]) -> None:
        self._cache = cache
        self._sizes = cache.spec.chunk_samples
        self._nbytes = chunk_nbytes(cache.spec, points)
        self._coming = self._in_order(points, steps)
        self._ahead: dict[_Key, Future[_Chunk]] = {}
        self._ahead_nbytes = 0
        self._held: dict[_Key, _Chunk] = {}
        """Chunks with samples of the next batch."""
        self._taken: set[_Key] = set()
        """Asked for before they were read ahead."""
        self._spare = _SpareMemory()
        self._guard = threading.Lock()
        self._threads = LastingThreads(READING_THREADS, name="actisketch-recorded")

    def __enter__(self) -> Self:
        with self._guard:
            self._read_ahead()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Ended twice: a second Ctrl-C may come where the first end has not begun.
        with self._threads, self._threads:
            for reading in self._ahead.values():
                reading.cancel()
        self._ahead.clear()
        self._held.clear()
        self._spare.clear()

    def parts(self, name: str, start: int, stop: int) -> Iterator[NDArray[np.float32]]:
        """Yield the samples start..stop-1 of a point, in parts as its chunks have them.

        A part is to be used before the next one is taken: its memory is used again.

        Raises
        ------
        FormatError, IncompleteError, StorageError
            If a chunk is missing, damaged or cannot be read.
        """
        size = self._sizes[name]
        for index in range(start // size, -(-stop // size)):
            chunk = self._chunk((name, index))
            try:
                yield chunk.values[max(0, start - index * size) : stop - index * size]
            finally:
                self._put_back((name, index), chunk, is_done=(index + 1) * size <= stop)

    def _chunk(self, key: _Key) -> _Chunk:
        with self._guard:
            held, reading = self._held.pop(key, None), self._ahead.pop(key, None)
            if reading is not None:
                self._ahead_nbytes -= self._nbytes[key[0]]
            elif held is None:
                self._taken.add(key)
            self._read_ahead()
        if held is not None:
            return held
        return self._read(key) if reading is None else reading.result()

    def _put_back(self, key: _Key, chunk: _Chunk, *, is_done: bool) -> None:
        with self._guard:
            if not is_done:
                self._held[key] = chunk
            else:
                self._spare.put_back(chunk.memory)

    def _read(self, key: _Key) -> _Chunk:
        with self._guard:
            memory = self._spare.take(self._nbytes[key[0]] + CHECKSUM_NBYTES)
        return _Chunk(self._cache.read_chunk(*key, memory=memory), memory)

    def _read_ahead(self) -> None:
        """Begin to read the next chunks, as many as may wait."""
        while not self._ahead or self._ahead_nbytes < AHEAD_NBYTES:
            key = next(self._coming, None)
            if key is None:
                return
            if key not in self._taken:
                reading: Future[_Chunk] = Future()
                self._threads.submit(reading, partial(self._read, key))
                self._ahead[key] = reading
                self._ahead_nbytes += self._nbytes[key[0]]

    def _in_order(self, points: Sequence[str], steps: Sequence[tuple[int, int]]) -> Iterator[_Key]:
        """Yield all chunks in the order of their first use."""
        behind = dict.fromkeys(points, 0)
        for start, stop in steps:
            for name in points:
                size = self._sizes[name]
                first, last = max(start // size, behind[name]), -(-stop // size)
                yield from ((name, index) for index in range(first, last))
                behind[name] = last


class _SpareMemory:
    """Memory that was used before, and is written to again: reading into it takes a fifth of the processor time.

    Pages that are new to the process are cleared by the system first: reading into those ran at 2 GB/s, into others at
    12. Each begins with a page, which lets files be read past the page cache.
    """

    def __init__(self) -> None:
        self._spare: list[memoryview] = []

    def take(self, nbytes: int) -> memoryview:
        """Return memory of whole pages for so many bytes, of at most twice as many pages as they need."""
        nbytes += -nbytes % mmap.PAGESIZE
        fitting = [i for i, each in enumerate(self._spare) if nbytes <= each.nbytes <= 2 * nbytes]
        return self._spare.pop(fitting[-1]) if fitting else _whole_pages(nbytes)

    def put_back(self, memory: memoryview) -> None:
        """Keep memory for another time; what was put back first is given up if that is too much."""
        self._spare.append(memory)
        while sum(each.nbytes + mmap.PAGESIZE for each in self._spare) > SPARE_NBYTES:
            del self._spare[0]

    def clear(self) -> None:
        self._spare.clear()


def _whole_pages(nbytes: int) -> memoryview:
    """Return memory that begins with a page. It takes one page more, as NumPy's begins anywhere in one."""
    more = np.empty(nbytes + mmap.PAGESIZE, np.uint8)
    begin = -more.ctypes.data % mmap.PAGESIZE
    return more[begin : begin + nbytes].data
