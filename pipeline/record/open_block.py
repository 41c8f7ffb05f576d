"""A block that is being recorded: counts values as they are computed, keeps them, commits.

Knows sketches and the cache's writer. Does not know where values come from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ...storage import Block, Cache, CommitRecord, PointSpec, WritingThreads
from ...storage.errors import InputError
from ..sketch import PointSketch, SketchSpec
from .point_sketch import channel_axis_of, empty_sketch, with_channels

__all__ = ["OpenBlock"]


class _Column:
    """What of one point goes into the block. Values come in order, so from one thread at a time."""

    def __init__(self, point: PointSpec, spec: SketchSpec) -> None:
        self.point = point
        self.sketch: PointSketch | None = empty_sketch(spec, point)
        """None once it is packed."""
        self.n_taken = 0
        """Samples that were handed over."""


class OpenBlock:
    """Consumes the values of a block: the `Consumer` of a producer.

    Parameters
    ----------
    cache : Cache
        Open for writing.
    points : sequence of PointSpec
    block : Block
    spec : SketchSpec
    writing : WritingThreads
        Write what is kept.
    on_batch : callable, optional
        Told after each batch how many samples it had; may raise.
    """

    def __init__(
        self,
        cache: Cache,
        points: Sequence[PointSpec],
        block: Block,
        *,
        spec: SketchSpec,
        writing: WritingThreads,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        self._block, self._on_batch = block, on_batch
        self._writer = cache.write(block, writing=writing)
        self._keeps = cache.spec.keeps_activations
        self._columns = {point.name: _Column(point, spec) for point in points}
        self._n_samples = 0
        """Of whole batches that were handed over."""
        self._packed: dict[str, bytes] = {}
        self._facts: dict[str, str] = {}

    def take(self, point: str, values: NDArray[np.float32]) -> None:
        """Count the next values of a point, and keep a copy if the cache does; see `Consumer`."""
        column = self._columns[point]
        sketch = self._checked(column, values)
        sketch.update(
            with_channels(values),
            channel_axis=channel_axis_of(column.point),
            point=point,
            block=self._block.index,
            first_sample=column.n_taken,
        )
        if self._keeps:
            self._writer.append({point: values})
        column.n_taken += len(values)
        if column.n_taken == self._block.n_samples:
            # While other values are computed, not when all are, and each is freed when it is packed.
            self._packed[point], column.sketch = sketch.to_bytes(), None

    def end_batch(self, n_samples: int) -> None:
        """Note that all points of a batch were handed over; see `Consumer`."""
        self._n_samples += n_samples
        for column in self._columns.values():
            if column.n_taken != self._n_samples:
                raise InputError(
                    f"point {column.point.name!r}, block {self._block.index}: {self._n_samples} samples were computed, "
                    f"the point got {column.n_taken} of them",
                    point=column.point.name,
                    block=self._block.index,
                )
        if self._on_batch is not None:
            self._on_batch(n_samples)

    def _checked(self, column: _Column, values: NDArray[np.float32]) -> PointSketch:
        """Return the sketch that the values are for."""
        point, block = column.point, self._block
        if (
            column.sketch is None
            or values.shape != (len(values), *point.shape)
            or column.n_taken + len(values) > block.n_samples
        ):
            raise InputError(
                f"point {point.name!r}, block {block.index}: expected samples of shape {point.shape}, "
                f"{block.n_samples} of them, got an array of shape {values.shape} after {column.n_taken}",
                point=point.name,
                block=block.index,
            )
        return column.sketch

    def finish(self, content_hash: str) -> None:
        """Take no more values; note what the samples were.

        Raises
        ------
        InputError
            If fewer samples were handed over than the block has.
        """
        block = self._block
        if self._n_samples != block.n_samples:
            raise InputError(
                f"samples {block.start} to {block.stop - 1} of block {block.index} were asked for, the producer gave "
                f"{self._n_samples}: the data has become shorter since the job was planned",
                block=block.index,
            )
        # What the samples were is kept with the block: a resumed run compares it with the data it has.
        self._facts = {"data": content_hash}

    def commit(self) -> CommitRecord:
        """Commit the finished block when all that is kept is written; raise what failed."""
        with self._writer:
            return self._writer.commit(self._packed, self._facts)

    def abandon(self) -> None:
        """Leave out what is not written yet; the block stays missing."""
        self._writer.__exit__(None, None, None)
