"""A producer without a network: to rehearse a cluster and a store before a network is worth the time on them.

``python -m actisketch.pipeline.cluster.rehearsal --scheduler tcp://head:8786 --cache s3://bucket/try`` writes blocks of
made-up activations through the whole path (workers, sketches, store, commits, reduce) and says how fast that went.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage import Cache, CacheSpec, PointSpec
from ..sketch import SketchSpec

__all__ = ["RehearsalRecipe", "main", "rehearsal_spec"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RehearsalRecipe:
    """Activations that follow from the sample's index, computed in a time of one's choice."""

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
        """Return the range: the samples follow from it."""
        return f"rehearsal-{start}-{stop}"

    def batches(self, start: int, stop: int) -> Iterator[Mapping[str, NDArray[np.float32]]]:
        """Yield rectified waves, about half of them zero."""
        for first in range(start, stop, self.batch_size):
            rows = np.arange(first, min(first + self.batch_size, stop))
            if self.batch_s:
                time.sleep(self.batch_s)
            yield {point.name: _waves(rows, point.shape) for point in self.points}


def rehearsal_spec(
    recipe: RehearsalRecipe, *, n_blocks: int, block_samples: int, record: bool = True
) -> CacheSpec:
    """Return what the cache of a rehearsal holds."""
    return CacheSpec(
        points=recipe.points,
        n_samples=n_blocks * block_samples,
        batch_size=recipe.batch_size,
        block_samples=block_samples,
        identity={"model": {"rehearsal": True}, "data": {}, "settings": {}},
        record=record,
    )


def _waves(rows: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.float32]:
    n_values = int(np.prod(shape, dtype=np.int64))
    phase = (rows[:, None] * 0.7 + np.arange(n_values) * 0.013).astype(np.float32)
    return np.maximum(np.sin(phase), 0).reshape(len(rows), *shape)


def main(arguments: Sequence[str] | None = None) -> None:
    """Rehearse; the report goes to standard output."""
    from .connecting import connected
    from .merge_tree import merged_sketches_on
    from .record_blocks import record_missing_on

    chosen = _parser().parse_args(arguments)
    recipe = RehearsalRecipe(
        shapes=((chosen.values,),), batch_size=chosen.block_samples, batch_s=chosen.block_seconds
    )
    spec = rehearsal_spec(recipe, n_blocks=chosen.blocks, block_samples=chosen.block_samples)
    options: dict[str, Any] = {"endpoint": chosen.endpoint} if chosen.endpoint else {}
    if (chosen.endpoint or "").startswith("http://"):
        options["client_options"] = {"allow_http": True}
    with (
        connected(workers=chosen.workers, scheduler=chosen.scheduler) as client,
        Cache.create_or_resume(chosen.cache, spec, storage_options=options) as cache,
    ):
        started = time.perf_counter()
        n_blocks = record_missing_on(client, cache, recipe, sketch=SketchSpec(), storage_options=options)
        recorded = time.perf_counter()
        merged = merged_sketches_on(client, cache, storage_options=options)
        reduced = time.perf_counter()
        n_workers = len(client.nthreads())
    nbytes = n_blocks * chosen.block_samples * chosen.values * 4
    elapsed_s = recorded - started
    sys.stdout.write(
        f"{n_blocks} blocks ({nbytes / 1e9:.2f} GB) on {n_workers} workers in {elapsed_s:.1f} s: "
        f"{elapsed_s / max(n_blocks, 1) * 1e3:.1f} ms a block, {nbytes / elapsed_s / 1e6:.0f} MB/s; reduced in "
        f"{reduced - recorded:.1f} s; {merged['point0'].layer.n} values sketched\n"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m actisketch.pipeline.cluster.rehearsal", description=__doc__
    )
    parser.add_argument("--cache", required=True, help="an empty place that all workers reach")
    parser.add_argument("--scheduler", help="address or scheduler file of a running cluster")
    parser.add_argument("--workers", type=int, default=0, help="or start so many local ones")
    parser.add_argument("--blocks", type=int, default=100)
    parser.add_argument("--block-samples", type=int, default=64)
    parser.add_argument("--values", type=int, default=100_000, help="activations of one sample")
    parser.add_argument("--block-seconds", type=float, default=0.0, help="how long the network would take")
    parser.add_argument("--endpoint", help="of an S3-compatible store, as http://minio:9000")
    return parser


if __name__ == "__main__":
    main()
