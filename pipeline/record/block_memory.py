"""Foresee what the blocks of a run take: in memory while they are recorded, and their sketches on disk.

Arithmetic only.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...storage import PointSpec, record_nbytes, sample_nbytes
from ..sketch import SketchSpec
from ..sketch.forecast import counters_nbytes
from .point_sketch import forecast_of
from .recorder import JOINED_NBYTES, RECORDING_THREADS, UNMERGED_NBYTES

__all__ = ["block_record_nbytes", "open_block_nbytes", "recording_threads_nbytes", "stored_sketches_nbytes"]


def stored_sketches_nbytes(points: Sequence[PointSpec], spec: SketchSpec, n_samples: int) -> int:
    """Return the bytes on disk of the sketches of one block."""
    return sum(
        forecast_of(point, spec, n_samples).stored_nbytes + len(point.name.encode()) for point in points
    )


def block_record_nbytes(points: Sequence[PointSpec], spec: SketchSpec, n_samples: int) -> int:
    """Return the bytes of the commit record of one block, without its checksums of chunks."""
    return record_nbytes(stored_sketches_nbytes(points, spec, n_samples))


def open_block_nbytes(
    points: Sequence[PointSpec], spec: SketchSpec, *, block_samples: int, slab_samples: int
) -> int:
    """Return the memory of the sketches of a block while it is recorded, in bytes."""
    foreseen = [forecast_of(point, spec, block_samples) for point in points]
    # Sketches of one update have nothing to add up.
    in_parts = sum(
        each.nbytes
        for each, point in zip(foreseen, points, strict=True)
        if block_samples > slab_samples or slab_samples * sample_nbytes([point]) > JOINED_NBYTES
    )
    widened = sorted(each.widened_nbytes for each in foreseen)[-RECORDING_THREADS:]
    sketched = sum(each.nbytes for each in foreseen) + min(UNMERGED_NBYTES, 15 * in_parts) + sum(widened)
    # A sketch is freed when it is packed; then the record is put together from the packed ones.
    return max(sketched, 2 * block_record_nbytes(points, spec, block_samples))


def recording_threads_nbytes(spec: SketchSpec) -> int:
    """Return the memory of the threads that sketch: counters of one point, and small batches put together."""
    return RECORDING_THREADS * (counters_nbytes(spec) + JOINED_NBYTES)
