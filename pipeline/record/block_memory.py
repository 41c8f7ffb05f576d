"""Foresee what the blocks of a run take: in memory while they are recorded, and their sketches on disk.

Arithmetic only.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...storage import CacheSpec, PointSpec, record_nbytes, sample_nbytes
from ..sketch import SketchSpec
from ..sketch.forecast import counters_nbytes
from .point_sketch import forecast_of
from .recorder import waiting_nbytes
from .taps import AHEAD_NBYTES, SMALL_NBYTES, TAPS_AT_ONCE

__all__ = [
    "block_record_nbytes",
    "blocks_sketches_nbytes",
    "counting_nbytes",
    "held_nbytes",
    "stored_sketches_nbytes",
]


def stored_sketches_nbytes(points: Sequence[PointSpec], spec: SketchSpec, n_samples: int) -> int:
    """Return the bytes on disk of the sketches of one block."""
    return sum(
        forecast_of(point, spec, n_samples).stored_nbytes + len(point.name.encode()) for point in points
    )


def block_record_nbytes(points: Sequence[PointSpec], spec: SketchSpec, n_samples: int) -> int:
    """Return the bytes of the commit record of one block, without its checksums of chunks."""
    return record_nbytes(stored_sketches_nbytes(points, spec, n_samples))


def blocks_sketches_nbytes(
    points: Sequence[PointSpec], spec: SketchSpec, *, block_samples: int, n_samples: int
) -> int:
    """Return the memory of the sketches of the blocks that are recorded and committed at a time, in bytes."""
    block = min(block_samples, n_samples)
    foreseen = [forecast_of(point, spec, block) for point in points]
    widened = sorted(each.widened_nbytes for each in foreseen)
    record = block_record_nbytes(points, spec, block)
    opened = sum(each.nbytes for each in foreseen) + sum(widened[-TAPS_AT_ONCE:])
    # Each sketch is packed when it has all values of the block, and freed then.
    packing = max(opened, record + widened[-1])
    # The record of the block before is put together from its packed sketches meanwhile.
    return packing + (2 * record if block < n_samples else record)


def counting_nbytes(spec: SketchSpec) -> int:
    """Return the memory of the threads that count: the counters of one point each."""
    return TAPS_AT_ONCE * counters_nbytes(spec)


def held_nbytes(spec: CacheSpec) -> int:
    """Return the bytes of values that are with their taps, and of chunks that are being filled or written."""
    return _with_taps_nbytes(spec) + (_chunks_nbytes(spec) if spec.keeps_activations else 0)


def _with_taps_nbytes(spec: CacheSpec) -> int:
    batch = min(spec.batch_size, spec.n_samples)
    values = [batch * sample_nbytes([point]) for point in spec.points]
    largest = max(values)
    # What follows a large value waits: see `Taps`. The value after it is computed by then.
    large = min(max(AHEAD_NBYTES, largest) + largest, sum(values))
    return large + sum(each for each in values if each < SMALL_NBYTES)


def _chunks_nbytes(spec: CacheSpec) -> int:
    chunk_samples = spec.chunk_samples
    sizes = {p.name: chunk_samples[p.name] * sample_nbytes([p], spec.dtype) for p in spec.points}
    # Those of several batches are open from the first of them to the last, at all points at once.
    several = sum(nbytes for name, nbytes in sizes.items() if chunk_samples[name] > spec.batch_size)
    # A part of a value that waits holds the whole value.
    batch = min(spec.batch_size, spec.n_samples)
    parts = [batch * sample_nbytes([p]) for p in spec.points if chunk_samples[p.name] < batch]
    return several + max(waiting_nbytes(spec), *sizes.values()) + max(parts, default=0)
