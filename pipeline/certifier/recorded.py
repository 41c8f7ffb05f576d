"""The activations of the original as a cache holds them: read chunk by chunk, checked, ahead of the pass that asks.

Knows caches. Knows nothing of networks.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ...storage import Cache, sample_nbytes
from ..graph import Graph
from .value_comparison import ComparedValue

__all__ = ["AHEAD_NBYTES", "RecordedSamples", "recorded_points"]

logger = logging.getLogger(__name__)

AHEAD_NBYTES = 64 * 2**20
"""Chunks that are read before they are needed; one chunk at least."""
READING_THREADS = 2

_Key = tuple[str, int]
"""A point, and the number of a chunk of it."""


def recorded_points(
    cache: Cache | None, graph: Graph, compared: Mapping[int, ComparedValue], *, n_samples: int
) -> dict[int, str] | None:
    """Return the point of a cache that holds each compared value of the original, by its index.

    None if the original must run: there is no cache, it holds sketches only, fewer samples or rounded values, or not
    all that is compared, such as an output of the network that is no point.
    """
    if cache is None:
        return None
    spec = cache.spec
    names = {point.name for point in spec.points}
    by_value = {point.value: name for name, point in graph.every_point.items() if name in names}
    missing = [each.name for each in compared.values() if each.value not in by_value]
    reasons = {
        "it holds sketches only": not spec.keeps_activations,
        f"it holds {spec.dtype}, which rounds": spec.dtype != "float32",
        f"it holds {spec.n_samples} samples of {n_samples}": spec.n_samples < n_samples,
        f"{missing[0] if missing else None!r} was not recorded": bool(missing),
    }
    if why := next((reason for reason, is_so in reasons.items() if is_so), None):
        logger.info("the certificate does not read the cache %s: %s", cache.url, why)
        return None
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
    Memory holds what is read ahead, the chunks that are being compared, and those that the next batch begins with. A
    point that is asked for out of order is read at once, so no order makes it wait for ever.
    """

    def __init__(self, cache: Cache, points: Sequence[str], steps: Sequence[tuple[int, int]]) -> None:
        self._cache = cache
        self._sizes = cache.spec.chunk_samples
        self._nbytes = {name: self._sizes[name] * sample_nbytes([cache.spec.point(name)]) for name in points}
        self._coming = self._in_order(points, steps)
        self._ahead: dict[_Key, Future[NDArray[Any]]] = {}
        self._ahead_nbytes = 0
        self._held: dict[_Key, NDArray[Any]] = {}
        """Chunks with samples of the next batch."""
        self._taken: set[_Key] = set()
        """Asked for before they were read ahead."""
        self._guard = threading.Lock()
        self._pool = ThreadPoolExecutor(READING_THREADS, "actisketch-recorded")

    def __enter__(self) -> Self:
        with self._guard:
            self._read_ahead()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._ahead.clear()
        self._held.clear()

    def parts(self, name: str, start: int, stop: int) -> Iterator[NDArray[np.float32]]:
        """Yield the samples start..stop-1 of a point, in parts as its chunks have them.

        Raises
        ------
        FormatError, IncompleteError, StorageError
            If a chunk is missing, damaged or cannot be read.
        """
        size = self._sizes[name]
        for index in range(start // size, -(-stop // size)):
            chunk = self._chunk((name, index), is_done=(index + 1) * size <= stop)
            yield chunk[max(0, start - index * size) : stop - index * size]

    def _chunk(self, key: _Key, *, is_done: bool) -> NDArray[Any]:
        with self._guard:
            chunk = self._held.pop(key, None)
            reading = self._ahead.pop(key, None)
            if reading is not None:
                self._ahead_nbytes -= self._nbytes[key[0]]
            elif chunk is None:
                self._taken.add(key)
            self._read_ahead()
        if chunk is None:
            chunk = self._cache.read_chunk(*key) if reading is None else reading.result()
        if not is_done:
            self._held[key] = chunk
        return chunk

    def _read_ahead(self) -> None:
        """Begin to read the next chunks, as many as may wait."""
        while not self._ahead or self._ahead_nbytes < AHEAD_NBYTES:
            key = next(self._coming, None)
            if key is None:
                return
            if key not in self._taken:
                self._ahead[key] = self._pool.submit(self._cache.read_chunk, *key)
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
