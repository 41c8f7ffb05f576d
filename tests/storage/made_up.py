"""Activations without a network: any range of samples can be made again, bit for bit, by anybody."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actisketch.pipeline.record.producer import Consumer
from actisketch.storage import Block, Cache, CacheSpec, PointSpec

POINTS = (
    PointSpec(name="block1/conv", shape=(5, 3, 2), meta={"layer_type": "Conv2D", "n_params": 3}),
    PointSpec(name="schicht ü", shape=(11,)),
    PointSpec(name="all zero", shape=(7,)),
)
"""Distinct primes, a slash, a letter outside ASCII, and a dead layer."""

IDENTITY: dict[str, dict[str, object]] = {
    "model": {"topology": "a1", "weights": "b2"},
    "data": {"content": "c3"},
    "settings": {"bits": 20},
}


def activations(point: PointSpec, start: int, stop: int) -> NDArray[np.float32]:
    """Return what the samples start..stop-1 do at a point: about half zeros, else positive."""
    if point.name == "all zero":
        return np.zeros((stop - start, *point.shape), np.float32)
    n = point.n_values
    state = np.arange(start * n, stop * n, dtype=np.uint64) + np.uint64(zlib.crc32(point.name.encode()) << 32)
    # splitmix64: a good mixture of bits from a mere counter
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    values = (state >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - np.float32(1)
    positive: NDArray[np.float32] = np.maximum(values, 0).reshape(stop - start, *point.shape)
    return positive


def spec(**changed: Any) -> CacheSpec:
    """Return the description of a small cache: 5 blocks of 2 batches of 4, the last one cut."""
    settings: dict[str, Any] = {
        "points": POINTS,
        "n_samples": 37,
        "batch_size": 4,
        "block_samples": 8,
        "identity": IDENTITY,
    }
    return CacheSpec(**{**settings, **changed})


def arrays(cache: Cache, block: Block) -> dict[str, NDArray[np.float32]]:
    """Return the activations of a block at every point."""
    return {point.name: activations(point, block.start, block.stop) for point in cache.spec.points}


def sketches(cache: Cache, block: Block) -> dict[str, bytes]:
    """Return something that depends on the block and the point as a sketch does."""
    return {p.name: f"{p.name} {block.start} {block.stop}".encode() * 5 for p in cache.spec.points}


def write_block(
    cache: Cache,
    block: Block,
    arrays: Mapping[str, NDArray[Any]] | None,
    sketches: Mapping[str, bytes],
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write a block whose activations are all at hand, and commit it; one that is committed is left as it is."""
    if not cache.is_committed(block):
        with cache.write(block) as writer:
            writer.append(arrays or {})
            writer.commit(sketches, facts)


def record(cache: Cache, block: Block) -> None:
    """Compute and commit one block."""
    there = arrays(cache, block) if cache.spec.keeps_activations else None
    write_block(cache, block, there, sketches(cache, block), {"data": f"{block.start}:{block.stop}"})


def fill(cache: Cache) -> Cache:
    """Compute and commit what is missing."""
    for block in cache.missing():
        record(cache, block)
    return cache


def check(cache: Cache) -> None:
    """Compare everything that the cache returns with what was made."""
    assert list(cache.all_sketches()) == [sketches(cache, block) for block in cache.blocks]
    for point in cache.spec.points:
        expected = activations(point, 0, cache.spec.n_samples)
        np.testing.assert_array_equal(np.concatenate(list(cache.chunks(point.name))), expected)


@dataclass(frozen=True)
class MadeUpProducer:
    """Stands in for a network: the protocol of ``pipeline.producer.Producer``."""

    points: tuple[PointSpec, ...]
    batch_size: int

    def content_hash(self, start: int, stop: int) -> str:
        """Return what identifies the samples."""
        return f"made up {start}:{stop}"

    def hand_over(self, start: int, stop: int, consumer: Consumer) -> None:
        """Hand over the activations batch by batch."""
        for first in range(start, stop, self.batch_size):
            last = min(first + self.batch_size, stop)
            for point in self.points:
                consumer.take(point.name, activations(point, first, last))
            consumer.end_batch(last - first)
