"""Merge the sketches of all blocks on the workers, as a tree; refine percentiles there, block by block.

Sketches are whole numbers, so the tree gives the bytes that one process gives. A task holds what it merges at a time,
which :func:`~..factors.merge.merge_records` bounds, and the merged sketches: at most those of ``FAN_IN`` parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...storage import Block, Cache
from ...storage.options import StorageOptions
from ..factors.merge import check_complete, merge_records
from ..factors.packed_sketches import PackedSketches
from ..sketch import PointSketch, Sketch, exact_percentiles
from .coordinator import result_of
from .limits import Limits

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["FAN_IN", "LEAF_BLOCKS", "exact_percentiles_on", "merged_sketches_on"]

# A record of a large network is some 10 MB: a leaf reads 16 of them, one after the other.
LEAF_BLOCKS = 16
FAN_IN = 8
RETRIES = 3
# Values: 4 MiB. A bucket may hold one value a billion times.
SPELT_OUT = 1 << 20

Parts = dict[str, bytes]


def merged_sketches_on(
    client: Client,
    cache: Cache,
    *,
    storage_options: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
) -> PackedSketches:
    """Return the merged sketch of each point, in model order: :func:`~..factors.merge.merged_sketches` on a cluster.

    Raises
    ------
    IncompleteError
        If blocks are missing, the scheduler was lost, or no worker was left.
    FormatError
        If a record is damaged.
    """
    check_complete(cache)
    options = StorageOptions(storage_options or {})
    level: list[Future] = [
        client.submit(merge_blocks, cache.url, options, group, pure=False, retries=RETRIES)
        for group in _groups(cache.blocks, LEAF_BLOCKS)
    ]
    while len(level) > 1:
        # The futures of a level are released when the next one is submitted, their results when they are merged.
        level = [
            client.submit(merge_parts, group, pure=False, retries=RETRIES) for group in _groups(level, FAN_IN)
        ]
    parts: Parts = result_of(client, level[0], limits=limits or Limits())
    return PackedSketches({point.name: parts[point.name] for point in cache.spec.points})


def merge_blocks(url: str, options: Mapping[str, Any], blocks: Sequence[Block]) -> Parts:
    """Return the merged sketches of some blocks, read one record at a time: a leaf of the tree."""
    cache = Cache.open(url, storage_options=options)
    records = (cache.read_commit(block).sketches or {} for block in blocks)
    return merge_records(records, [point.name for point in cache.spec.points]).packed


def merge_parts(parts: Sequence[Parts]) -> Parts:
    """Return the merged sketches of some parts: a node of the tree."""
    return merge_records(parts, list(parts[0])).packed


def exact_percentiles_on(
    client: Client,
    cache: Cache,
    point: str,
    qs: Sequence[float],
    sketch: PointSketch,
    *,
    nonzero: bool,
    storage_options: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
) -> list[float]:
    """Return exact percentiles of a point: :func:`~..sketch.exact_percentiles` with the pass on the cluster.

    The sketch gives an interval for each percentile. Workers read the chunks and send back which values lie in the
    intervals and how often: a few thousand numbers at most, since a bucket holds 2^(32 - bits) distinct ones.
    """
    layer = sketch.layer
    intervals = [_whole_buckets(layer, q, nonzero=nonzero) for q in qs]
    options = StorageOptions(storage_options or {})
    futures = [
        client.submit(count_values, cache.url, options, point, group, intervals, pure=False, retries=RETRIES)
        for group in _groups(cache.blocks, LEAF_BLOCKS)
    ]
    limits = limits or Limits()
    counted = [result_of(client, future, limits=limits) for future in futures]
    return exact_percentiles(lambda: _spelt_out(counted), list(qs), layer, nonzero=nonzero, is_selection=True)


def _whole_buckets(layer: Sketch, q: float, *, nonzero: bool) -> tuple[float, float]:
    """Return an interval of whole buckets: the percentile's own and the one above, where the next rank may be."""
    found = layer.percentile(q, nonzero=nonzero)
    lower, upper, _ = layer.buckets(nonzero=nonzero)
    if not lower.size:
        return found.lo, found.hi
    first = max(int(np.searchsorted(lower, found.lo, side="right")) - 1, 0)
    last = min(int(np.searchsorted(upper, found.hi, side="left")) + 1, upper.size - 1)
    return float(lower[first]), float(upper[last])


def count_values(
    url: str,
    options: Mapping[str, Any],
    point: str,
    blocks: Sequence[Block],
    intervals: Sequence[tuple[float, float]],
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the distinct values of some blocks that lie in one of the intervals, and how often each occurs."""
    cache = Cache.open(url, storage_options=options)
    values, counts = np.empty(0, np.float32), np.empty(0, np.int64)
    for block in blocks:
        flat = cache.read_block(point, block).reshape(-1)
        inside = np.zeros(flat.shape, bool)
        for lo, hi in intervals:
            inside |= (flat >= lo) & (flat <= hi)
        new, how_often = np.unique(flat[inside], return_counts=True)
        values, where = np.unique(np.concatenate([values, new]), return_inverse=True)
        counts = np.bincount(
            where, weights=np.concatenate([counts, how_often]), minlength=values.size
        ).astype(np.int64)
    return values, counts


def _spelt_out(
    counted: Sequence[tuple[NDArray[np.float32], NDArray[np.int64]]],
) -> Iterator[NDArray[np.float32]]:
    """Yield every value as often as it occurs, at most ``SPELT_OUT`` of them at a time."""
    for values, counts in counted:
        stops = np.cumsum(counts)
        for start in range(0, int(counts.sum()), SPELT_OUT):
            stop = min(start + SPELT_OUT, int(stops[-1]))
            # The first value that is not yet done at `start`, to the one that goes on until `stop` or beyond.
            first, last = np.searchsorted(stops, start, side="right"), np.searchsorted(stops, stop)
            n_each = np.diff(np.minimum(stops[first : last + 1], stop), prepend=start)
            yield np.repeat(values[first : last + 1], n_each)


def _groups(items: Sequence[Any], size: int) -> list[list[Any]]:
    return [list(items[start : start + size]) for start in range(0, len(items), size)]
