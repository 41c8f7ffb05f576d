"""A producer without a network, to try a cluster and a store before a network runs there.

The hidden verb ``actisketch rehearse`` writes blocks of made-up activations through the whole path (workers, sketches,
store, commits, merging) and says how fast that went.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage import Cache, CacheSpec, PointSpec, sample_nbytes
from ..record.producer import Consumer
from ..sketch import SketchSpec
from .connecting import connected
from .merge_tree import merged_sketches_on
from .record_blocks import record_missing_on

__all__ = ["RehearsalRecipe", "rehearsal_report", "rehearsal_spec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RehearsalRecipe:
    """Activations that depend only on the index of the sample; each batch takes ``batch_s`` seconds."""

    shapes: tuple[tuple[int, ...], ...] = ((16, 16, 8), (64,))
    """Of one sample, one for each point."""
    batch_size: int = 8
    batch_s: float = 0.0
    """How long a batch takes, in seconds."""

    def make(self, n_threads: int) -> RehearsalRecipe:
        """Return the producer: this."""
        return self

    @property
    def points(self) -> tuple[PointSpec, ...]:
        """``point0``, ``point1`` and so on."""
        return tuple(PointSpec(name=f"point{i}", shape=shape) for i, shape in enumerate(self.shapes))

    def content_hash(self, start: int, stop: int) -> str:
        """Return the range: the samples depend on nothing else."""
        return f"rehearsal-{start}-{stop}"

    def hand_over(self, start: int, stop: int, consumer: Consumer) -> None:
        """Hand over rectified waves, about half of them zero."""
        for first in range(start, stop, self.batch_size):
            rows = np.arange(first, min(first + self.batch_size, stop))
            if self.batch_s:
                time.sleep(self.batch_s)
            for point in self.points:
                consumer.take(point.name, _waves(rows, point.shape))
            consumer.end_batch(len(rows))


def rehearsal_spec(
    recipe: RehearsalRecipe, *, n_blocks: int, block_samples: int, record: bool = True
) -> CacheSpec:
    """Return the contents of the cache of a rehearsal."""
    return CacheSpec(
        points=recipe.points,
        n_samples=n_blocks * block_samples,
        batch_size=recipe.batch_size,
        block_samples=block_samples,
        identity={"model": {"rehearsal": True}, "data": {}, "settings": {}},
        keeps_activations=record,
    )


def _waves(rows: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.float32]:
    n_values = int(np.prod(shape, dtype=np.int64))
    phase = (rows[:, None] * 0.7 + np.arange(n_values) * 0.013).astype(np.float32)
    return np.maximum(np.sin(phase), 0).reshape(len(rows), *shape)


def rehearsal_report(
    recipe: RehearsalRecipe,
    *,
    cache_url: str,
    n_blocks: int,
    workers: int = 0,
    scheduler: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Record and merge ``n_blocks`` blocks of one batch each on a cluster; return a sentence on how fast that went.

    ``workers`` or ``scheduler`` say which cluster, as in :func:`~.connecting.connected`. ``endpoint`` is that of an
    S3-compatible store, as ``http://minio:9000``.
    """
    spec = rehearsal_spec(recipe, n_blocks=n_blocks, block_samples=recipe.batch_size)
    options: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
    if (endpoint or "").startswith("http://"):
        options["client_options"] = {"allow_http": True}
    with (
        connected(workers=workers, scheduler=scheduler) as client,
        Cache.create_or_resume(cache_url, spec, storage_options=options) as cache,
    ):
        started = time.perf_counter()
        n_recorded = record_missing_on(client, cache, recipe, sketch=SketchSpec(), storage_options=options)
        recorded = time.perf_counter()
        merged = merged_sketches_on(client, cache, storage_options=options)
        merged_s = time.perf_counter() - recorded
        n_workers = len(client.nthreads())
    nbytes = n_recorded * recipe.batch_size * sample_nbytes(recipe.points)
    elapsed_s = recorded - started
    return (
        f"{n_recorded} blocks ({nbytes / 1e9:.2f} GB) on {n_workers} workers in {elapsed_s:.1f} s: "
        f"{elapsed_s / max(n_recorded, 1) * 1e3:.1f} ms a block, {nbytes / elapsed_s / 1e6:.0f} MB/s; merged in "
        f"{merged_s:.1f} s; {merged['point0'].layer.n} values sketched"
    )
